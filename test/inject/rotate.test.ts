import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { inject } from "#core/inject/inject.ts";
import { fromEnv } from "#core/settings.ts";
import {
  CLUSTER,
  containerOf,
  denied,
  envOf,
  injected,
  podWith,
  sidecarOf,
} from "../support/inject.ts";

const SECRET = { "secret.db": "database/creds/web", "on-rotate": "restart" };

describe("on-rotate: restart", () => {
  test("puts the probes of the containers with the secrets on the sidecar, and a second call changes nothing", () => {
    const { pod } = injected(podWith(SECRET));
    const { app, rotateContainers } = fromEnv(envOf(sidecarOf(pod)));
    const names = app.map(({ container }) => container);
    assert.equal(names.length, 1);
    assert.deepEqual(rotateContainers, names);
    const { livenessProbe } = containerOf(pod, names[0] ?? "");
    assert.equal(livenessProbe?.httpGet?.port, 19465);
    assert.equal(inject(pod, CLUSTER).kind, "skip");
  });

  test("leaves a payload's own containers apart", () => {
    const containers = [{ name: "web" }, { name: "worker" }];
    const own = { channel: "web/stable", "payload-containers": "web" };
    const annotations = { ...SECRET, ...own, "secrets-containers": "worker" };
    const { pod } = injected(podWith(annotations, { containers }));
    const { workloadContainers, rotateContainers } = fromEnv(envOf(sidecarOf(pod)));
    assert.deepEqual(workloadContainers, ["web"]);
    assert.deepEqual(rotateContainers, ["worker"]);
  });

  test("is refused where nothing would start again", () => {
    const { code, message } = denied(podWith(SECRET, { restartPolicy: "Never" }));
    assert.equal(code, "ANNOTATION_INVALID");
    assert.match(message, /on-rotate/);
  });
});

describe("on-rotate: signal", () => {
  test("is refused where the sidecar cannot see or signal the application", () => {
    const { code, message } = denied(podWith({ ...SECRET, "on-rotate": "signal:HUP:web" }));
    assert.equal(code, "ANNOTATION_INVALID");
    assert.match(message, /spec\.shareProcessNamespace/);
  });

  test("is admitted with a warning that says what it costs", () => {
    const spec = { shareProcessNamespace: true, securityContext: { runAsUser: 10_001 } };
    const annotations = { ...SECRET, "on-rotate": "signal:HUP:web", "run-as": "10001" };
    const { warnings } = injected(podWith(annotations, spec));
    assert.match(warnings.join("\n"), /on-rotate is signal: .*token/);
    const asked = injected(podWith({ ...annotations, "on-rotate": "http:8080/reload" }, spec));
    assert.doesNotMatch(asked.warnings.join("\n"), /is signal/);
  });
});
