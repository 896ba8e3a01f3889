/** Refusals and warnings of which the reader must learn what to change. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { PLAIN_FACTS } from "#core/inject/facts.ts";
import { inject } from "#core/inject/inject.ts";
import type { PodSpec } from "#core/inject/pod.ts";
import { fromEnv } from "#core/settings.ts";
import { CLUSTER, WEB, denied, envOf, injected, podWith, sidecarOf } from "../support/inject.ts";
import type { Annotations } from "../support/inject.ts";

const CHANNEL = { channel: "web/stable" };

function refusal(annotations: Annotations, spec: PodSpec = {}): string {
  return denied(podWith({ ...CHANNEL, ...annotations }, spec)).message;
}

function warned(annotations: Annotations, spec: PodSpec = {}, now?: number): string {
  const pod = podWith({ ...CHANNEL, ...annotations }, spec);
  const result = inject(pod, CLUSTER, { ...PLAIN_FACTS, now });
  if (result.kind !== "injected") throw new Error(JSON.stringify(result));
  return result.warnings.join("\n");
}

describe("a port that the application has", () => {
  const port = (containerPort: number): PodSpec => ({
    containers: [{ ...WEB, ports: [{ name: "http", containerPort }] }],
  });

  test("is left to it: the annotation that says another one for the sidecar is named", () => {
    assert.match(
      refusal({}, port(9903)),
      /spec\.containers\[0\]\.ports\[0\]\.containerPort 9903 is the default of edgesync\.dev\/control-port/,
    );
    assert.match(
      refusal({ "control-port": "8080" }),
      /containerPort 8080 is edgesync\.dev\/control/,
    );
    assert.match(refusal({}, port(19465)), /set that to a port that no container has/);
  });

  test("is no conflict once that annotation names another one", () => {
    injected(podWith({ ...CHANNEL, "control-port": "9999" }, port(9903)));
    const { pod } = injected(podWith({ ...CHANNEL, "sidecar-port": "19999" }, port(19465)));
    assert.equal(sidecarOf(pod).ports?.[0]?.containerPort, 19_999);
    const env = sidecarOf(pod).env?.find(({ name }) => name === "EDGESYNC_PORT");
    assert.equal(env?.value, "19999");
  });

  test("cannot be both of the sidecar's", () => {
    assert.match(
      refusal({ "sidecar-port": "9903" }),
      /control-port is 9903, which edgesync\.dev\/sidecar-port is too/,
    );
  });
});

describe("the node's network", () => {
  const host = { hostNetwork: true };

  test("is refused until both ports are stated, because they would be the node's", () => {
    assert.match(refusal({}, host), /spec\.hostNetwork.*sidecar-port.*control-port/);
    assert.match(refusal({ "sidecar-port": "19470" }, host), /state edgesync\.dev\/control-port/);
    const { message } = denied(podWith({ "secret.db": "database/creds/web" }, host));
    assert.match(message, /sidecar-port/);
    assert.doesNotMatch(message, /control-port/);
  });

  test("is allowed with them, and told of", () => {
    const ports = { "sidecar-port": "19470", "control-port": "19471" };
    assert.match(warned(ports, host), /spec\.hostNetwork is true/);
    const { pod } = injected(podWith({ ...CHANNEL, ...ports }, host));
    assert.deepEqual(sidecarOf(pod).ports, [
      { name: "edgesync", containerPort: 19_470, hostPort: 19_470, protocol: "TCP" },
    ]);
  });
});

describe("a hook of an unknown name", () => {
  test("is told the near one, or all that there are", () => {
    assert.match(refusal({ "hook.pre-swop": "http:8080/x" }), /did you mean .*hook\.pre-swap\?/);
    assert.match(
      refusal({ "hook.before": "http:8080/x" }),
      /hook\.before is not known; hooks are pre-download, pre-swap, post-swap, health/,
    );
  });
});

describe("a port of the sidecar's own", () => {
  const cases: readonly (readonly [string, Annotations, string])[] = [
    ["a hook", { "hook.pre-swap": "http:9903/v1/holds" }, "hook.pre-swap"],
    ["on-update", { "on-update": "http:19465/app/web/live" }, "on-update"],
    ["the health of a trial", { health: "tcp:19465" }, "health"],
    [
      "a payload of its own",
      {
        "channel.models": "web/models",
        "payload-path.models": "/models",
        "health.models": "http:9903/",
      },
      "health.models",
    ],
  ];
  for (const [what, annotations, key] of cases)
    test(`is refused for ${what}`, () => {
      assert.match(refusal(annotations), new RegExp(`edgesync\\.dev/${key} names the port of`));
    });

  test("is another one when the annotation says so", () => {
    injected(podWith({ ...CHANNEL, "control-port": "9999", "hook.pre-swap": "http:9903/x" }));
  });
});

describe("hold", () => {
  test("that has ended already is told of, and one to come is not", () => {
    const hold = { hold: "2026-03-01T06:00:00Z" };
    const end = Date.parse("2026-03-01T06:00:00Z");
    assert.match(warned(hold, {}, end), /hold is 2026-03-01T06:00:00Z, which is past/);
    assert.doesNotMatch(warned(hold, {}, end - 1), /hold is/);
    assert.doesNotMatch(warned(hold), /hold is/);
  });
});

describe("hold-volume", () => {
  for (const kind of ["secret", "configMap", "projected", "downwardAPI", "image"])
    test(`may not be a ${kind}, to which nobody can write`, () => {
      const volumes = [{ name: "other" }, { name: "holds", [kind]: {} }];
      assert.match(
        refusal({ "hold-volume": "holds" }, { volumes }),
        new RegExp(`hold-volume is holds, and spec\\.volumes\\[1\\] is a ${kind}`),
      );
    });

  test("may be an emptyDir or a claim", () => {
    for (const source of [{ emptyDir: {} }, { persistentVolumeClaim: { claimName: "x" } }])
      injected(
        podWith(
          { ...CHANNEL, "hold-volume": "holds" },
          { volumes: [{ name: "holds", ...source }] },
        ),
      );
  });
});

describe("swap-spread", () => {
  test("is said to have no effect on a claim, whose pods take turns", () => {
    const spread = { "swap-spread": "10m" };
    assert.match(warned({ ...spread, "payload-storage": "claim/models" }), /swap-spread has no/);
    assert.doesNotMatch(warned(spread), /swap-spread/);
    assert.doesNotMatch(warned({ "payload-storage": "claim/models" }), /swap-spread/);
  });
});

describe("payload-size", () => {
  test("always has room in the pod's ephemeral-storage limits, which the sidecar's adds to", () => {
    const resources = { limits: { "ephemeral-storage": "100Mi" } };
    const { pod } = injected(
      podWith({ ...CHANNEL, "payload-size": "3Gi" }, { containers: [{ ...WEB, resources }] }),
    );
    assert.equal(sidecarOf(pod).resources?.limits?.["ephemeral-storage"], "3520Mi");
    const { ephemeralStorage } = fromEnv(envOf(sidecarOf(pod)));
    assert.equal(ephemeralStorage, (3520 + 100) * 2 ** 20);
  });
});

describe("run-as: assigned", () => {
  const assigned = { "run-as": "assigned" };

  test("leaves the user to the pod or to the platform, as OpenShift's ranges want it", () => {
    const { securityContext } = sidecarOf(injected(podWith({ ...CHANNEL, ...assigned })).pod);
    assert.ok(!Object.hasOwn(securityContext ?? {}, "runAsUser"));
    assert.ok(!Object.hasOwn(securityContext ?? {}, "runAsGroup"));
    assert.equal((securityContext as { runAsNonRoot?: boolean }).runAsNonRoot, true);
  });

  test("keeps what the platform has put there at the second call", () => {
    const { pod } = injected(podWith({ ...CHANNEL, ...assigned }));
    const initContainers = (pod.spec?.initContainers ?? []).map((one) => ({
      ...one,
      securityContext: { ...one.securityContext, runAsUser: 1_000_680_000 },
    }));
    const again = inject({ ...pod, spec: { ...pod.spec, initContainers } }, CLUSTER);
    assert.equal(again.kind === "skip" && again.reason, "already_injected");
  });

  test("is refused where the pod's own user is root", () => {
    const spec = { securityContext: { runAsUser: 0 } };
    assert.match(refusal(assigned, spec), /spec\.securityContext\.runAsUser is 0/);
    injected(podWith(CHANNEL, spec));
  });
});

describe("resources of the pod as a whole", () => {
  const whole = (cpu: string, memory: string): PodSpec => ({
    resources: { requests: { cpu, memory }, limits: { cpu: "1", memory: "1Gi" } },
    containers: [{ ...WEB, resources: { requests: { cpu: "100m", memory: "64Mi" } } }],
  });

  test("must have room for the sidecar's, or name the field that has none", () => {
    injected(podWith(CHANNEL, whole("105m", "112Mi")));
    assert.match(refusal({}, whole("104m", "112Mi")), /spec\.resources\.requests\.cpu/);
    assert.match(refusal({}, whole("105m", "111Mi")), /spec\.resources\.requests\.memory/);
    assert.match(
      refusal({}, { resources: { limits: { memory: "100Mi" } } }),
      /spec\.resources\.limits\.memory is less/,
    );
  });

  test("are raised where they are what the API server has made of the containers'", () => {
    const before = podWith(CHANNEL, whole("100m", "64Mi"));
    const { pod } = injected(before);
    assert.deepEqual(pod.spec?.resources, {
      requests: { cpu: "105m", memory: "112Mi" },
      limits: { cpu: "1", memory: "1Gi" },
    });
    const again = inject(pod, CLUSTER);
    assert.equal(again.kind === "skip" && again.reason, "already_injected");
    // Not above the limit, and not where there is none: then somebody has meant them so.
    const limited = { ...whole("100m", "64Mi").resources, limits: { cpu: "102m", memory: "1Gi" } };
    assert.match(
      refusal({}, { ...whole("100m", "64Mi"), resources: limited }),
      /spec\.resources\.requests\.cpu/,
    );
    const requests = { cpu: "100m" };
    assert.match(
      refusal({}, { ...whole("100m", "64Mi"), resources: { requests } }),
      /spec\.resources\.requests\.cpu/,
    );
  });

  test("may be limits alone, which the containers and the sidecar share", () => {
    const resources = { limits: { cpu: "1", memory: "1Gi" } };
    const { pod } = injected(podWith(CHANNEL, { resources, containers: [WEB] }));
    assert.deepEqual(pod.spec?.resources, resources);
  });

  test("do not when there are none: the pod stays Guaranteed", () => {
    const same = { cpu: "1", memory: "64Mi" };
    for (const resources of [{}, { requests: {}, limits: null }]) {
      const containers = [{ ...WEB, resources: { requests: same, limits: same } }];
      const { pod } = injected(podWith(CHANNEL, { resources, containers }));
      const { requests, limits } = sidecarOf(pod).resources ?? {};
      assert.deepEqual(requests, limits);
    }
  });

  test("decide the QoS class, so the sidecar's need not be equal", () => {
    const { pod } = injected(
      podWith(CHANNEL, {
        resources: { limits: { cpu: "1", memory: "1Gi" } },
        containers: [{ ...WEB, resources: { limits: { cpu: "500m", memory: "512Mi" } } }],
      }),
    );
    assert.equal(sidecarOf(pod).resources?.requests?.["cpu"], "5m");
  });
});

describe("secrets that are kept for a start without a link", () => {
  const kept = { "secret.db": "database/creds/web", "offline-secrets": "72h", "offline-key": "k" };

  test("come with a word of what the key protects, and of what it does not", () => {
    assert.match(warned(kept), /protects a volume that is taken alone, and not a node/);
    assert.doesNotMatch(warned({ "secret.db": "database/creds/web" }), /offline/);
  });

  test("have no use for a key once they are not kept any more", () => {
    const { "offline-secrets": _, ...rest } = kept;
    assert.match(warned(rest), /edgesync\.dev\/offline-key has no effect without/);
  });
});
