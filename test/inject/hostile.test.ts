/** Annotations by which somebody who may create pods would get more than that. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { inject } from "#core/inject/inject.ts";
import type { Container, PodSpec } from "#core/inject/pod.ts";
import { CLUSTER, WEB, denied, injected, podWith, prefixed, sidecarOf } from "../support/inject.ts";
import type { Annotations } from "../support/inject.ts";

const BOTH = { channel: "web/stable", "secret.db": "database/creds/web" };

describe("an annotation cannot", () => {
  const cases: readonly (readonly [string, Annotations])[] = [
    ["leave the payload's folder", { "payload-path": "/payload/../etc" }],
    ["take the place of a system's folder", { "payload-path": "/proc/self" }],
    ["take the place of the root", { "secrets-path": "/" }],
    ["name a file outside of the secrets", { "file.db": "../../payload/x" }],
    ["hide a file", { "file.db": ".hidden" }],
    ["leave Vault's path", { "secret.db": "database/../sys/seal" }],
    ["smuggle a second parameter into Vault's path", { "secret.db": "kv/web?list=true" }],
    ["leave a mount", { "vault-mount": "kubernetes/../../sys" }],
    ["name a claim by a path", { "payload-storage": "claim/../../etc" }],
    ["name a ConfigMap of another namespace", { "trust-root": "kube-system/root" }],
    ["leave a seed's volume", { "payload-seed": "data/../../etc" }],
    ["name an image that nobody allows", { image: "registry.example/edgesync-evil:1" }],
    ["name an image by a trick of letters", { image: "mirror.example/edgesync\n:1" }],
    ["name a repository that nobody allows", { repository: "https://other.example.evil.org/x" }],
    ["put credentials into an address", { repository: "https://a:b@other.example/x" }],
    ["name a Vault that nobody allows", { "vault-address": "https://vault.example:8200.evil.org" }],
    ["send a secret in the clear", { "vault-address": "http://vault.example:8200" }],
    ["run the sidecar as root", { "run-as": "0" }],
    ["run the sidecar in root's group", { "run-as": "1000:0" }],
    ["make the sidecar privileged", { privileged: "true" }],
    ["state a security context", { "security-context": "{}" }],
    ["patch the sidecar's container", { "json-patch": "[]" }],
    ["give the sidecar a command", { command: "sh" }],
    ["take a port below 1024 of the node", { "sidecar-port": "80" }],
    ["have a hook reach another machine", { "hook.pre-swap": "http:10.0.0.1:80/x" }],
    ["run a program by a hook", { "hook.pre-swap": "exec:/bin/sh" }],
    ["run a program for an update", { "on-update": "command:sh -c x" }],
    ["make secrets that all can write", { "mode.db": "0666" }],
    ["fill the node's memory with secrets", { "secrets-size": "1Ti" }],
  ];
  for (const [what, annotations] of cases)
    test(what, () => {
      const { code, message } = denied(podWith({ ...BOTH, ...annotations }));
      assert.equal(code, "ANNOTATION_INVALID");
      const [key = ""] = Object.keys(annotations);
      assert.ok(message.includes(`edgesync.dev/${key}`), message);
    });

  test("climb out of the part of a server that the operator allows", () => {
    const cluster = {
      ...CLUSTER,
      repositories: ["https://other.example/team-a/*", "oci://other.example/team-a/*"],
    };
    for (const repository of [
      "https://other.example/team-a/../team-b",
      "https://other.example/team-a/%2e%2e/team-b",
      "https://other.example/team-a/.%2E/team-b",
      "https://other.example/team-a\\..\\team-b",
      "oci://other.example/team-a/../team-b",
    ])
      assert.equal(
        denied(podWith({ ...BOTH, repository }), cluster).code,
        "ANNOTATION_INVALID",
        repository,
      );
    injected(podWith({ ...BOTH, repository: "https://other.example/team-a/x" }), cluster);
  });

  test("break out of the message that names it", () => {
    const { message } = denied(podWith({ ...BOTH, repository: `x\n\u001B[31m${"y".repeat(500)}` }));
    assert.doesNotMatch(message, /\p{Cc}/u);
    assert.ok(message.length < 1_000, String(message.length));
  });

  test("be one of an object's own words", () => {
    for (const key of ["__proto__", "constructor", "toString", "hasOwnProperty"]) {
      const annotations = JSON.parse(
        `{"edgesync.dev/channel":"web/stable","edgesync.dev/${key}":"x"}`,
      ) as Annotations;
      const result = inject({ metadata: { annotations }, spec: { containers: [WEB] } }, CLUSTER);
      assert.equal(result.kind === "deny" && result.code, "ANNOTATION_INVALID", key);
    }
  });
});

describe("a pod cannot say that it is injected already", () => {
  test("by an annotation or a label of its own", () => {
    for (const status of ["injected", "status"])
      assert.equal(denied(podWith({ ...BOTH, [status]: "true" })).code, "ANNOTATION_INVALID");
  });

  test("by bringing a sidecar of its own image, which is replaced", () => {
    const { pod } = injected(podWith(BOTH));
    const initContainers = (pod.spec?.initContainers ?? []).map((one) => ({
      ...one,
      image: "evil.example/edgesync:1",
      securityContext: { runAsUser: 0, privileged: true },
    }));
    const again = injected({ ...pod, spec: { ...pod.spec, initContainers } }).pod;
    assert.deepEqual(sidecarOf(again), sidecarOf(pod));
  });
});

describe("shapes of pods that others make", () => {
  const init = (name: string, more: Partial<Container> = {}): Container => ({ name, ...more });
  const order = (initContainers: readonly Container[]): readonly string[] =>
    (injected(podWith(BOTH, { initContainers })).pod.spec?.initContainers ?? []).map(
      ({ name }) => name,
    );

  test("of a classic mesh: the sidecar comes before the redirection, which leaves no network", () => {
    assert.deepEqual(order([init("linkerd-init"), init("migrate")]), [
      "edgesync",
      "linkerd-init",
      "migrate",
    ]);
    assert.deepEqual(order([init("istio-validation"), init("istio-init")])[0], "edgesync");
  });

  test("of a native mesh: the sidecar comes behind the proxy, which is its network", () => {
    const proxy = init("istio-proxy", { restartPolicy: "Always" });
    assert.deepEqual(order([init("istio-init"), proxy, init("migrate")]), [
      "istio-init",
      "istio-proxy",
      "edgesync",
      "migrate",
    ]);
  });

  test("with lists and maps missing, null or empty", () => {
    const annotations = prefixed(BOTH);
    const specs: readonly PodSpec[] = [
      { containers: [{ name: "web" }] },
      { containers: [{ name: "web", volumeMounts: null, env: null, ports: null }], volumes: null },
      {
        containers: [{ name: "web", resources: null, securityContext: null, lifecycle: null }],
        initContainers: [],
        ephemeralContainers: null,
        volumes: [],
      },
    ];
    for (const spec of specs)
      assert.equal(inject({ metadata: { annotations }, spec }, CLUSTER).kind, "injected");
  });

  test("without a spec, or without containers, are refused and not wondered at", () => {
    const metadata = { annotations: prefixed(BOTH) };
    for (const pod of [{ metadata }, { metadata, spec: null }, { metadata, spec: {} }])
      assert.equal(inject(pod, CLUSTER).kind, "deny");
    assert.equal(inject({}, CLUSTER).kind, "skip");
  });

  test("that state no token keep none, and the sidecar has its own for Vault alone", () => {
    const spec = { hostNetwork: false, automountServiceAccountToken: false };
    const { pod } = injected(podWith({ ...BOTH, "vault-audience": "vault" }, spec));
    assert.equal((pod.spec as typeof spec).automountServiceAccountToken, false);
    const volume = pod.spec?.volumes?.find(({ name }) => name === "edgesync-token");
    assert.match(JSON.stringify(volume), /"audience":"vault"/);
    const mounts = pod.spec?.containers?.flatMap(({ volumeMounts }) => volumeMounts ?? []) ?? [];
    assert.ok(mounts.every(({ name }) => name !== "edgesync-token"));
  });
});
