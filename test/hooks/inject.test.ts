import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { PodSpec } from "#core/inject/pod.ts";
import { fromEnv } from "#core/settings.ts";
import {
  WEB,
  containerOf,
  denied,
  envOf,
  injected,
  podWith,
  sidecarOf,
} from "../support/inject.ts";
import type { Annotations } from "../support/inject.ts";

const CHANNEL = { channel: "web/stable" };

function refused(named: readonly string[], annotations: Annotations, spec: PodSpec = {}): void {
  const { message } = denied(podWith({ ...CHANNEL, ...annotations }, spec));
  for (const text of named) assert.ok(message.includes(text), message);
}

describe("on-update: signal in a pod", () => {
  const signal = { "on-update": "signal:HUP:web" };
  const shared = { shareProcessNamespace: true };
  const withUid = (runAsUser: number) => ({
    containers: [{ ...WEB, securityContext: { runAsUser } }],
  });

  test("needs a common process namespace and user, and says how to get them", () => {
    refused(["spec.shareProcessNamespace", "spec.containers[0].securityContext.runAsUser"], signal);
    refused(["runAsUser is not set", "edgesync.dev/run-as"], signal, shared);
    refused(["runAsUser is 1000", "edgesync.dev/run-as to 1000"], signal, {
      ...shared,
      ...withUid(1000),
    });
    refused(["runAsUser is 0", "http:"], signal, { ...shared, ...withUid(0) });
    refused(
      ["spec.shareProcessNamespace"],
      { ...signal, "run-as": "1000" },
      { securityContext: { runAsUser: 1000 } },
    );
  });

  test("is admitted with a warning that says what it costs, and leaves the probes alone", () => {
    const annotations = { ...CHANNEL, ...signal, "run-as": "1000" };
    const livenessProbe = { httpGet: { path: "/live", port: 8080 } };
    const spec = { ...shared, containers: [{ ...WEB, livenessProbe }] };
    const { pod, warnings } = injected(
      podWith(annotations, { ...spec, securityContext: { runAsUser: 1000 } }),
    );
    assert.ok(warnings.some((text) => text.includes("see and signal every process")));
    assert.deepEqual(containerOf(pod, "web").livenessProbe, livenessProbe);
    const settings = fromEnv(envOf(sidecarOf(pod)));
    assert.deepEqual(settings.onUpdate, { kind: "signal", signal: "HUP", process: "web" });
  });
});

describe("on-update: http in a pod", () => {
  test("leaves the probes alone and needs nothing, also where containers are not restarted", () => {
    const annotations = { ...CHANNEL, "on-update": "http:8080/reload" };
    const { pod } = injected(podWith(annotations, { restartPolicy: "Never" }));
    assert.equal(containerOf(pod, "web").livenessProbe, undefined);
    const settings = fromEnv(envOf(sidecarOf(pod)));
    assert.deepEqual(settings.onUpdate, { kind: "http", port: 8080, path: "/reload" });
  });
});

describe("a program in a pod", () => {
  test("is run by no annotation", () => {
    refused(["edgesync.dev/hook.pre-swap"], { "hook.pre-swap": "exec:/payload/current/hook" });
    refused(["edgesync.dev/on-update"], { "on-update": "command:systemctl restart web" });
  });
});

describe("the hold volume", () => {
  test("is a volume of the pod, which the sidecar mounts read-only", () => {
    const volumes = [{ name: "holds", emptyDir: {} }];
    const { pod } = injected(podWith({ ...CHANNEL, "hold-volume": "holds" }, { volumes }));
    const sidecar = sidecarOf(pod);
    assert.deepEqual(
      sidecar.volumeMounts?.find(({ name }) => name === "holds"),
      { name: "holds", mountPath: "/edgesync/hold", readOnly: true },
    );
    assert.equal(fromEnv(envOf(sidecar)).holdDir, "/edgesync/hold");
    assert.equal(
      containerOf(pod, "web").volumeMounts?.some(({ name }) => name === "holds"),
      false,
    );
  });

  test("is refused where the pod has none of that name", () => {
    refused(["edgesync.dev/hold-volume is holds"], { "hold-volume": "holds" });
    refused(["edgesync.dev/hold-volume"], { "hold-volume": "edgesync-payload" });
  });
});

describe("the control port", () => {
  test("is no port of another container, nor that of the sidecar's probes", () => {
    const ports = [{ containerPort: 9903 }];
    const { message } = denied(
      podWith(CHANNEL, { containers: [{ ...WEB, ports, readinessProbe: null }] }),
    );
    assert.match(message, /spec\.containers\[0\]\.ports\[0\]\.containerPort 9903/);
    refused(["edgesync.dev/control-port"], { "control-port": "19465" });
    injected(
      podWith(
        { ...CHANNEL, "control-port": "9904" },
        { containers: [{ ...WEB, ports, readinessProbe: null }] },
      ),
    );
  });

  test("takes none from a pod without updates", () => {
    const ports = [{ containerPort: 9903 }];
    injected(
      podWith({ "secret.db": "kv/db" }, { containers: [{ ...WEB, ports, readinessProbe: null }] }),
    );
  });

  test("may be another one", () => {
    const { pod } = injected(podWith({ ...CHANNEL, "control-port": "9904" }));
    assert.equal(fromEnv(envOf(sidecarOf(pod))).controlPort, 9904);
  });
});
