import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { PLAIN_FACTS, runsNativeSidecars } from "#core/inject/facts.ts";
import type { Facts } from "#core/inject/facts.ts";
import { inject } from "#core/inject/inject.ts";
import type { Container, Pod, PodSpec } from "#core/inject/pod.ts";
import { CLUSTER, WEB, denied, injected, podWith, sidecarOf } from "../support/inject.ts";
import type { Annotations } from "../support/inject.ts";

const OLD: Facts = { ...PLAIN_FACTS, nativeSidecars: false };
const BOTH = { channel: "web/stable", "secret.db": "database/creds/web" };
const JOB = { ...BOTH, "on-update": "none" };

function onOldNodes(annotations: Annotations, spec: PodSpec = {}): ReturnType<typeof injected> {
  const result = inject(podWith(annotations, spec), CLUSTER, OLD);
  if (result.kind !== "injected") throw new Error(JSON.stringify(result));
  return result;
}

const names = (list: readonly Container[] | null | undefined): readonly string[] | undefined =>
  list?.map(({ name }) => name);

function assertUnchanged(pod: Pod, facts: Facts): void {
  const result = inject(pod, CLUSTER, facts);
  assert.equal(result.kind === "skip" && result.reason, "already_injected", JSON.stringify(result));
}

describe("native sidecars", () => {
  const cases: readonly (readonly [string, boolean])[] = [
    ["v1.28.15", false],
    ["v1.29.0", true],
    ["v1.29.0-rc.1", true],
    ["v1.31.4+k3s1", true],
    ["v1.33.1-gke.1107000", true],
    ["v1.35.0", false],
    ["v1.35.3+rke2r1", false],
    ["v1.35.4-rc.0", false],
    ["v1.35.4", true],
    ["v1.36.2", true],
    ["v2.0.0", true],
    ["", false],
    ["devel", false],
  ];
  for (const [version, native] of cases)
    test(`are ${native ? "" : "not "}for kubelet ${JSON.stringify(version)}`, () => {
      assert.equal(runsNativeSidecars(version), native);
    });
});

describe("where native sidecars are not to be had, the sidecar", () => {
  test("is the first container, and its start hook waits", () => {
    const { pod, mode } = onOldNodes(BOTH, { containers: [WEB, { name: "other" }] });
    assert.equal(mode, "container");
    assert.deepEqual(names(pod.spec?.containers), ["edgesync", "web", "other"]);
    assert.equal(pod.spec?.initContainers, undefined);
    const { lifecycle, restartPolicy } = sidecarOf(pod);
    assert.equal(restartPolicy, undefined);
    assert.deepEqual(lifecycle, {
      postStart: { exec: { command: ["node", "/app/edgesync.mjs", "agent", "--wait"] } },
    });
    assert.equal(
      pod.metadata?.annotations?.["kubectl.kubernetes.io/default-container"],
      "web",
      "kubectl logs must not go to the sidecar",
    );
  });

  test("has memory for the process of the hook on top", () => {
    const limit = (pod: Pod): unknown => sidecarOf(pod).resources?.limits?.["memory"];
    assert.equal(limit(injected(podWith(BOTH)).pod), "136Mi");
    assert.equal(limit(onOldNodes(BOTH).pod), "184Mi");
  });

  test("is still there at the second call, also when the nodes have become new meanwhile", () => {
    const { pod } = onOldNodes(BOTH, { initContainers: [{ name: "migrate" }] });
    assertUnchanged(pod, OLD);
    assertUnchanged(pod, PLAIN_FACTS);
    assertUnchanged(injected(podWith(BOTH)).pod, OLD);
  });

  test("stays where it is behind containers that others have put first", () => {
    const { pod } = onOldNodes(BOTH);
    const containers = [{ name: "vault-agent" }, ...(pod.spec?.containers ?? [])];
    assertUnchanged({ ...pod, spec: { ...pod.spec, containers } }, OLD);
  });

  test("comes behind a mesh's proxy that comes first, which is its network", () => {
    const spec = { containers: [{ name: "istio-proxy" }, WEB] };
    assert.deepEqual(names(onOldNodes(BOTH, spec).pod.spec?.containers), [
      "istio-proxy",
      "edgesync",
      "web",
    ]);
  });

  test("is refused where the proxy comes last and would wait for it", () => {
    const result = inject(
      podWith(BOTH, { containers: [WEB, { name: "linkerd-proxy" }] }),
      CLUSTER,
      OLD,
    );
    assert.equal(result.kind === "deny" && result.code, "INJECTION_CONFLICT");
    assert.match(JSON.stringify(result), /spec\.containers\[1\]/);
    const { pod } = onOldNodes(BOTH);
    const containers = [...(pod.spec?.containers ?? []), { name: "istio-proxy" }];
    const again = inject({ ...pod, spec: { ...pod.spec, containers } }, CLUSTER, OLD);
    assert.equal(again.kind === "deny" && again.code, "INJECTION_CONFLICT");
  });

  test("cannot give anything to an init container, which is told by its field", () => {
    const spec = { initContainers: [{ name: "migrate" }] };
    const annotations = { ...BOTH, "secrets-containers": "web,migrate" };
    const result = inject(podWith(annotations, spec), CLUSTER, OLD);
    assert.equal(result.kind === "deny" && result.code, "ANNOTATION_INVALID");
    assert.match(JSON.stringify(result), /secrets-containers.*spec\.initContainers\[0\]/);
    injected(podWith(annotations, spec));
  });
});

describe("a pod whose containers end", () => {
  for (const [gate, missing] of [
    ["none", "payload and secrets"],
    ["secrets", "payload"],
    ["payload", "secrets"],
  ] as const)
    test(`is refused with gate ${gate} where its sidecar ends first, for it would run without its ${missing}`, () => {
      const pod = podWith({ ...JOB, gate }, { restartPolicy: "Never" });
      const result = inject(pod, CLUSTER, OLD);
      assert.equal(result.kind === "deny" && result.code, "ANNOTATION_INVALID");
      assert.match(
        JSON.stringify(result),
        new RegExp(`edgesync.dev/gate.* without its ${missing}:`),
      );
      // A native one goes on, and what was not waited for comes later.
      injected(pod);
      const { channel } = BOTH;
      const payload = { channel, "on-update": "none", gate: "payload" };
      assert.equal(onOldNodes(payload, { restartPolicy: "Never" }).mode, "once");
    });

  for (const restartPolicy of ["Never", "OnFailure"])
    test(`has a native sidecar where it can (${restartPolicy}), which the kubelet ends`, () => {
      const { pod, mode } = injected(podWith(JOB, { restartPolicy }));
      assert.equal(mode, "native");
      assert.equal(sidecarOf(pod).restartPolicy, "Always");
    });

  test("has an init container that ends by itself elsewhere, before its own", () => {
    const { pod, mode, warnings } = onOldNodes(
      { ...JOB, "secrets-containers": "migrate" },
      { restartPolicy: "Never", initContainers: [{ name: "migrate" }] },
    );
    assert.equal(mode, "once");
    assert.deepEqual(names(pod.spec?.initContainers), ["edgesync", "migrate"]);
    const { args, restartPolicy, startupProbe, readinessProbe, livenessProbe, lifecycle } =
      sidecarOf(pod);
    assert.deepEqual(args, ["agent", "--once"]);
    // The API server refuses an init container that has any of these.
    for (const field of [restartPolicy, startupProbe, readinessProbe, livenessProbe, lifecycle])
      assert.equal(field, undefined);
    assert.ok(warnings.some((text) => text.includes("credentials are not renewed")));
    assertUnchanged(pod, OLD);
    assertUnchanged(pod, PLAIN_FACTS);
  });
});

describe("sidecar-mode", () => {
  test("of a pod decides whatever the nodes are", () => {
    const mode = (wanted: string, facts: Facts): unknown => {
      const result = inject(podWith({ ...BOTH, "sidecar-mode": wanted }), CLUSTER, facts);
      return result.kind === "injected" && result.mode;
    };
    assert.equal(mode("container", PLAIN_FACTS), "container");
    assert.equal(mode("native", OLD), "native");
    assert.equal(mode("auto", PLAIN_FACTS), "native");
    assert.equal(mode("auto", OLD), "container");
  });
});

describe("an API server that does not know native sidecars", () => {
  test("drops the field that makes one, which is noticed at the second call and told with the way out", () => {
    const { pod } = injected(podWith(BOTH));
    const initContainers = (pod.spec?.initContainers ?? []).map((container) => {
      const { restartPolicy: dropped, ...others } = container;
      assert.equal(dropped, "Always");
      return others;
    });
    const { code, message } = denied({ ...pod, spec: { ...pod.spec, initContainers } });
    assert.equal(code, "INJECTION_CONFLICT");
    assert.match(message, /spec\.initContainers\[0\]\.restartPolicy is not kept.*sidecar-mode/);
    // What follows from it is not told as well.
    assert.doesNotMatch(message, /\.name is/);
  });
});

describe("a container that only looks like the fallback's sidecar", () => {
  const forged = (change: Partial<Container>): Container => ({
    name: "edgesync",
    args: ["agent"],
    lifecycle: {
      postStart: { exec: { command: ["node", "/app/edgesync.mjs", "agent", "--wait"] } },
    },
    env: [{ name: "EDGESYNC_SETTINGS_VERSION", value: "1" }],
    ...change,
  });
  const cases: readonly (readonly [string, Partial<Container>])[] = [
    ["with a command", { command: ["sh"] }],
    ["with another hook", { lifecycle: { postStart: { exec: { command: ["sh"] } } } }],
    ["without a hook", { lifecycle: null }],
    ["with variables from elsewhere", { envFrom: [{}] }],
    ["with the arguments of another mode", { args: ["agent", "--once"] }],
  ];
  for (const [what, change] of cases)
    test(`is refused ${what}`, () => {
      const { code, message } = denied(podWith(BOTH, { containers: [WEB, forged(change)] }));
      assert.equal(code, "INJECTION_CONFLICT");
      assert.match(message, /spec\.containers\[1\]\.name/);
    });
});
