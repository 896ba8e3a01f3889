import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { ClusterOptions } from "#core/inject/cluster.ts";
import type { Container, PodSpec } from "#core/inject/pod.ts";
import { CLUSTER, denied, injected, podWith, WEB } from "../support/inject.ts";

type Annotations = Readonly<Record<string, string>>;

const CHANNEL = { channel: "web/stable" };
const SECRET = { "secret.db": "database/creds/web" };
const BOTH = { ...CHANNEL, ...SECRET };

function refused(
  code: "ANNOTATION_INVALID" | "INJECTION_CONFLICT",
  named: readonly string[],
  annotations: Annotations,
  spec: PodSpec = {},
  cluster: ClusterOptions = CLUSTER,
): void {
  const result = denied(podWith(annotations, spec), cluster);
  assert.equal(result.code, code, result.message);
  for (const text of named) assert.ok(result.message.includes(text), result.message);
}

describe("annotations are refused, and named:", () => {
  const bare: ClusterOptions = { ...CLUSTER, repository: undefined, vaultAddress: undefined };
  const cases: readonly (readonly [string, Annotations, readonly string[], ClusterOptions?])[] = [
    ["an unknown key", { ...BOTH, chanel: "x" }, ["edgesync.dev/chanel", "edgesync.dev/channel?"]],
    ["a bad duration", { ...BOTH, "poll-interval": "15" }, ["edgesync.dev/poll-interval"]],
    ["a wrong address", { ...BOTH, repository: "ftp://x" }, ["edgesync.dev/repository"]],
    ["nothing to do", { "log-level": "debug" }, ["edgesync.dev/channel", "edgesync.dev/secret."]],
    ["a channel without a repository", CHANNEL, ["edgesync.dev/repository"], bare],
    ["a secret without a Vault", SECRET, ["edgesync.dev/vault-address"], bare],
    [
      "jwt without an audience",
      { ...SECRET, "vault-auth": "jwt" },
      ["edgesync.dev/vault-audience"],
    ],
    [
      "a login by certificate without one",
      { ...SECRET, "vault-auth": "cert" },
      ["edgesync.dev/vault-tls-secret is needed", "tls.crt and tls.key"],
    ],
    [
      "approle without its Secret",
      { ...SECRET, "vault-auth": "approle", "vault-tls-secret": "vault-client" },
      ["edgesync.dev/vault-approle-secret is needed", "role_id and secret_id"],
    ],
    [
      "a server's name that is an address",
      { ...SECRET, "vault-server-name": "10.0.0.1" },
      ["edgesync.dev/vault-server-name"],
    ],
    [
      "a set for a start without a link, without its key",
      { ...BOTH, "offline-secrets": "72h" },
      ["edgesync.dev/offline-key is needed", "edgesync.dev/offline-secrets"],
    ],
    [
      "the same without a volume to keep it on",
      { ...SECRET, "offline-secrets": "72h", "offline-key": "seal" },
      ["edgesync.dev/offline-secrets needs a payload volume", "edgesync.dev/channel"],
    ],
    [
      "a sealed secret without the key that opens it",
      { ...CHANNEL, "secret.db": "sealed:secrets/db.jwe" },
      ["edgesync.dev/sealed-key is needed"],
    ],
    [
      "a sealed secret without a release to come with",
      { "secret.db": "sealed:secrets/db.jwe", "sealed-key": "site-key" },
      ["edgesync.dev/channel"],
    ],
    [
      "a trial that cannot be long enough",
      { ...CHANNEL, "trial-duration": "10m", "trial-timeout": "10m" },
      ["edgesync.dev/trial-timeout", "edgesync.dev/trial-duration"],
    ],
    [
      "a trial that is over before its restart",
      { ...CHANNEL, "restart-window": "10m" },
      ["edgesync.dev/trial-timeout is 10m", "longer than 11m", "restart-window"],
    ],
    [
      "a memory limit that the secrets fill",
      { ...SECRET, "secrets-size": "32Mi", "memory-limit": "64Mi" },
      ["edgesync.dev/memory-limit", "edgesync.dev/secrets-size", "96Mi"],
    ],
    [
      "more requested than limited",
      {
        ...SECRET,
        "memory-request": "512Mi",
        "memory-limit": "256Mi",
        "cpu-request": "2",
        "cpu-limit": "1",
      },
      ["edgesync.dev/memory-request", "edgesync.dev/cpu-request"],
    ],
    [
      "an image that is not allowed",
      { ...BOTH, image: "evil.example/x:1" },
      ["edgesync.dev/image"],
    ],
    [
      "a repository that is not allowed",
      { ...BOTH, repository: "https://evil.example" },
      ["edgesync.dev/repository", "https://other.example/*"],
    ],
    [
      "a Vault that is not allowed",
      { ...BOTH, "vault-address": "https://evil.example" },
      ["edgesync.dev/vault-address"],
    ],
    [
      "a path of the system",
      { ...CHANNEL, "payload-path": "/proc/x" },
      ["edgesync.dev/payload-path"],
    ],
    [
      "paths within each other",
      { ...BOTH, "payload-path": "/data", "secrets-path": "/data/secrets" },
      ["edgesync.dev/payload-path", "edgesync.dev/secrets-path"],
    ],
    [
      "containers that are not there",
      { ...BOTH, "payload-containers": "webb", "secrets-containers": "db" },
      [
        "edgesync.dev/payload-containers",
        '"webb"',
        "edgesync.dev/secrets-containers",
        "the pod has web",
      ],
    ],
  ];
  for (const [what, annotations, named, cluster] of cases)
    test(what, () => {
      refused("ANNOTATION_INVALID", named, annotations, {}, cluster);
    });

  test("everything at once", () => {
    const wrong = {
      channel: "web",
      "poll-interval": "soon",
      "secret.db": "",
      "vault-auth": "token",
      "payload-containers": "nobody",
      image: "evil.example/x",
      unknown: "1",
    };
    refused(
      "ANNOTATION_INVALID",
      Object.keys(wrong).map((key) => `edgesync.dev/${key}`),
      wrong,
      { hostNetwork: true },
    );
  });

  test("a restart lever where containers are not restarted, with the way out", () => {
    for (const restartPolicy of ["Never", "OnFailure"])
      refused(
        "ANNOTATION_INVALID",
        ["edgesync.dev/on-update: none", "spec.restartPolicy"],
        CHANNEL,
        {
          restartPolicy,
        },
      );
    injected(podWith({ ...CHANNEL, "on-update": "none" }, { restartPolicy: "Never" }));
    injected(podWith(SECRET, { restartPolicy: "Never" }));
  });

  test("an init container that runs before the sidecar", () => {
    const initContainers: readonly Container[] = [
      { name: "istio-init" },
      { name: "istio-proxy", restartPolicy: "Always" },
    ];
    refused(
      "ANNOTATION_INVALID",
      ["edgesync.dev/secrets-containers", "spec.initContainers[0]"],
      { ...SECRET, "secrets-containers": "istio-init" },
      { initContainers },
    );
  });

  test("a main container that is not there", () => {
    const pod = podWith(BOTH);
    const annotations = {
      ...pod.metadata?.annotations,
      "kubectl.kubernetes.io/default-container": "gone",
    };
    assert.match(
      denied({ ...pod, metadata: { annotations } }).message,
      /default-container.*"gone"/,
    );
    assert.equal(denied(podWith(BOTH, { containers: [] })).code, "ANNOTATION_INVALID");
    assert.equal(denied(podWith(BOTH, { containers: null })).code, "ANNOTATION_INVALID");
  });

  test("a label that is neither true nor false", () => {
    const pod = podWith(BOTH);
    const labels = { "edgesync.dev/inject": "yes" };
    const result = denied({ ...pod, metadata: { ...pod.metadata, labels } });
    assert.match(result.message, /edgesync\.dev\/inject/);
  });

  test("a value larger than a variable may be, with its key and the limit", () => {
    const many = Array.from({ length: 129 }, (_, i) => `p${i}=${"x".repeat(1020)}`).join(" ");
    refused("ANNOTATION_INVALID", ["secret.big", "131072"], {
      "secret.big": `pki/issue/web ${many}`,
    });
  });

  test("however many are wrong, in an answer of bounded length", () => {
    const wrong = Object.fromEntries(Array.from({ length: 5_000 }, (_, i) => [`unknown-${i}`, ""]));
    assert.ok(denied(podWith(wrong)).message.length < 10_000);
  });

  test("before they are read, when they are more than the API server takes", () => {
    const many = Object.fromEntries(
      Array.from({ length: 40_000 }, (_, i) => [`secret.s${i}`, "kv/web"]),
    );
    refused("ANNOTATION_INVALID", ["metadata.annotations have", "takes 262144"], many);
  });

  test("with no more names of containers than can be read", () => {
    const containers = Array.from({ length: 5_000 }, (_, i) => ({ name: `c${i}` }));
    const { message } = denied(podWith({ ...CHANNEL, "payload-containers": "x" }, { containers }));
    assert.ok(message.includes("c19 and 4980 more") && message.length < 1_000, message);
  });

  test("as a list of container names that is too long", () => {
    const names = Array.from({ length: 65 }, (_, i) => `c${i}`).join();
    refused("ANNOTATION_INVALID", ["edgesync.dev/payload-containers"], {
      ...CHANNEL,
      "payload-containers": names,
    });
  });
});

describe("what the operator allows", () => {
  const accepted: readonly Annotations[] = [
    { image: "mirror.example/edgesync:2" },
    { image: CLUSTER.image },
    { repository: "https://other.example/team-a" },
    { repository: "https://releases.example/" },
  ];
  for (const annotations of accepted)
    test(`includes ${Object.values(annotations).join()}`, () => {
      injected(podWith({ ...CHANNEL, ...annotations }));
    });

  test("is only the default where there is no list", () => {
    refused("ANNOTATION_INVALID", ["edgesync.dev/vault-address"], {
      ...SECRET,
      "vault-address": "https://vault.example:8201",
    });
    injected(podWith({ ...SECRET, "vault-address": "https://vault.example:8200" }));
  });
});

describe("fields in the way are refused, and named:", () => {
  const cases: readonly (readonly [string, PodSpec, string])[] = [
    [
      "the sidecar's name on a container",
      { containers: [WEB, { name: "edgesync" }] },
      "spec.containers[1].name",
    ],
    [
      "on an init container",
      { initContainers: [{ name: "edgesync" }] },
      "spec.initContainers[0].name",
    ],
    [
      "on one that only looks like a sidecar",
      {
        initContainers: [
          {
            name: "edgesync",
            restartPolicy: "Always",
            args: ["agent"],
            command: ["sh"],
            env: [{ name: "EDGESYNC_SETTINGS_VERSION", value: "1" }],
          },
        ],
      },
      "spec.initContainers[0].name",
    ],
    [
      "on an ephemeral container",
      { ephemeralContainers: [{ name: "edgesync" }] },
      "spec.ephemeralContainers[0].name",
    ],
    [
      "a volume's name",
      { volumes: [{ name: "x" }, { name: "edgesync-payload" }] },
      "spec.volumes[1].name",
    ],
    [
      "the payload's path",
      { containers: [{ ...WEB, volumeMounts: [{ name: "x", mountPath: "/payload/" }] }] },
      "spec.containers[0].volumeMounts[0].mountPath /payload/",
    ],
    [
      "a path within the secrets",
      {
        containers: [
          { ...WEB, volumeMounts: [{ name: "x", mountPath: "/run/secrets/edgesync/a" }] },
        ],
      },
      "spec.containers[0].volumeMounts[0].mountPath",
    ],
    [
      "a block device",
      { containers: [{ ...WEB, volumeDevices: [{ devicePath: "/payload" }] }] },
      "spec.containers[0].volumeDevices[0].devicePath",
    ],
    [
      "the sidecar's port",
      { containers: [WEB, { name: "b", ports: [{ containerPort: 1 }, { containerPort: 19465 }] }] },
      "spec.containers[1].ports[1].containerPort 19465",
    ],
    ["the node's network", { hostNetwork: true }, "spec.hostNetwork"],
  ];
  for (const [what, spec, field] of cases)
    test(what, () => {
      refused("INJECTION_CONFLICT", [field], BOTH, spec);
    });

  test("but a mount above ours is fine, and the same port for UDP", () => {
    injected(
      podWith(BOTH, {
        containers: [
          {
            ...WEB,
            volumeMounts: [{ name: "run", mountPath: "/run" }],
            ports: [{ containerPort: 19465, protocol: "UDP" }, ...(WEB.ports ?? [])],
          },
        ],
        volumes: [{ name: "run" }],
      }),
    );
  });
});
