import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Container, KubeProbe } from "#core/inject/pod.ts";
import type { AppProbes } from "#core/probe.ts";
import { fromEnv } from "#core/settings.ts";
import { containerOf, denied, envOf, injected, podWith, sidecarOf } from "../support/inject.ts";

interface Rewritten {
  readonly startup: KubeProbe | null | undefined;
  readonly liveness: KubeProbe | null | undefined;
  readonly readiness: KubeProbe | null | undefined;
  readonly app: AppProbes | undefined;
}

function rewritten(
  container: Partial<Container>,
  annotations: Readonly<Record<string, string>> = {},
): Rewritten {
  const containers = [{ name: "web", ...container }];
  const { pod } = injected(podWith({ channel: "web/stable", ...annotations }, { containers }));
  const { startupProbe, livenessProbe, readinessProbe } = containerOf(pod, "web");
  const { app } = fromEnv(envOf(sidecarOf(pod)));
  return {
    startup: startupProbe,
    liveness: livenessProbe,
    readiness: readinessProbe,
    app: app[0],
  };
}

/** What the kubelet waits for, in seconds. */
function window(probe: KubeProbe | null | undefined): number {
  return (probe?.periodSeconds ?? 0) * (probe?.failureThreshold ?? 0);
}

const http = (extra: object = {}): KubeProbe => ({ httpGet: { port: 8080, path: "/h" }, ...extra });

describe("the restart lever", () => {
  test("puts startup and liveness probe on the sidecar's port, by number", () => {
    const { startup, liveness } = rewritten({});
    assert.deepEqual(startup?.httpGet, { path: "/app/web/startup", port: 19465, scheme: "HTTP" });
    assert.deepEqual(liveness?.httpGet, { path: "/app/web/live", port: 19465, scheme: "HTTP" });
  });

  for (const [text, period, threshold] of [
    ["2s", 1, 2],
    ["5s", 1, 5],
    ["30s", 5, 6],
    ["31s", 5, 7],
    ["10m", 100, 6],
  ] as const)
    test(`divides a window of ${text} into probes`, () => {
      const { liveness } = rewritten({}, { "restart-window": text, "trial-timeout": "20m" });
      assert.equal(liveness?.periodSeconds, period);
      assert.equal(liveness.failureThreshold, threshold);
    });

  test("waits no shorter than the application's own probes do", () => {
    const own = http({ periodSeconds: 20, failureThreshold: 10 });
    const { startup, liveness } = rewritten(
      { livenessProbe: own, startupProbe: { ...own, initialDelaySeconds: 45 } },
      { "restart-window": "2s" },
    );
    assert.ok(window(liveness) >= 200);
    assert.ok(window(startup) >= 245);
    assert.equal(startup?.initialDelaySeconds, undefined);
  });

  test("keeps to thresholds that the API server takes, however patient the application is", () => {
    const own = http({ initialDelaySeconds: 5, failureThreshold: 2_147_483_647 });
    const { startup } = rewritten({ startupProbe: own });
    assert.equal(startup?.failureThreshold, 2_147_483_647);
    const { liveness } = rewritten({ livenessProbe: http({ timeoutSeconds: 2_147_483_647 }) });
    assert.equal(liveness?.timeoutSeconds, 2_147_483_647);
  });

  test("keeps the grace period of the application's probe, and leaves time for its answer", () => {
    const { liveness } = rewritten({
      livenessProbe: http({ terminationGracePeriodSeconds: 7, timeoutSeconds: 20 }),
    });
    assert.equal(liveness?.terminationGracePeriodSeconds, 7);
    assert.equal(liveness.timeoutSeconds, 21);
  });

  test("leaves the readiness probe to the kubelet, and tells the sidecar of it", () => {
    const own = http({ periodSeconds: 3 });
    const { readiness, app } = rewritten({ readinessProbe: own });
    assert.deepEqual(readiness, own);
    assert.equal(app?.readiness?.periodMs, 3000);
  });

  test("tells the sidecar the window of the start as it is injected", () => {
    const { startup, app } = rewritten({}, { "restart-window": "17s" });
    assert.deepEqual(app?.startupWindow, { periodMs: 1000, failureThreshold: 17 });
    assert.equal(window(startup), 17);
  });

  test("is not there with on-update: none, but the sidecar knows the probes for its trials", () => {
    const own = http();
    const { startup, liveness, app } = rewritten(
      { livenessProbe: own, startupProbe: { exec: { command: ["true"] } } },
      { "on-update": "none" },
    );
    assert.deepEqual(liveness, own);
    assert.deepEqual(startup, { exec: { command: ["true"] } });
    assert.equal(app?.liveness?.handler.kind, "http");
    assert.equal(app.startup, undefined);
  });

  test("is for native sidecars with the payload too, and not for init containers that end", () => {
    const { pod } = injected(
      podWith(
        { channel: "web/stable", "payload-containers": "native,once" },
        { initContainers: [{ name: "native", restartPolicy: "Always" }, { name: "once" }] },
      ),
    );
    assert.equal(containerOf(pod, "native").livenessProbe?.httpGet?.path, "/app/native/live");
    assert.equal(containerOf(pod, "once").livenessProbe, undefined);
  });
});

describe("the application's probes, as the sidecar is told", () => {
  test("have the defaults of Kubernetes", () => {
    const { app } = rewritten({ livenessProbe: { httpGet: { port: 8080 } } });
    assert.deepEqual(app?.liveness, {
      handler: { kind: "http", scheme: "http", port: 8080, path: "/", headers: [] },
      initialDelayMs: 0,
      periodMs: 10_000,
      timeoutMs: 1_000,
      successThreshold: 1,
      failureThreshold: 3,
    });
  });

  test("have numbers for the container's own named ports", () => {
    const { app } = rewritten({
      ports: [
        { name: "web", containerPort: 1 },
        { name: "admin", containerPort: 8081 },
      ],
      livenessProbe: { tcpSocket: { port: "admin" } },
      readinessProbe: { tcpSocket: { port: "8082" } },
    });
    assert.deepEqual(app?.liveness?.handler, { kind: "tcp", port: 8081 });
    assert.deepEqual(app.readiness?.handler, { kind: "tcp", port: 8082 });
  });

  test("keep scheme, headers and a gRPC service", () => {
    const { app } = rewritten({
      livenessProbe: {
        httpGet: {
          port: 8443,
          scheme: "HTTPS",
          path: "/live?full=1",
          httpHeaders: [{ name: "Host", value: "web" }],
        },
      },
      startupProbe: { grpc: { port: 9000, service: "health" } },
    });
    assert.deepEqual(app?.liveness?.handler, {
      kind: "http",
      scheme: "https",
      port: 8443,
      path: "/live?full=1",
      headers: [["Host", "web"]],
    });
    assert.deepEqual(app.startup?.handler, { kind: "grpc", port: 9000, service: "health" });
  });
});

describe("a probe that cannot go through the sidecar is refused:", () => {
  const refused = (container: Partial<Container>): { code: string; message: string } =>
    denied(podWith({ channel: "web/stable" }, { containers: [{ name: "web", ...container }] }));

  const cases: readonly (readonly [string, Partial<Container>, string])[] = [
    [
      "exec for liveness",
      { livenessProbe: { exec: { command: ["true"] } } },
      "spec.containers[0].livenessProbe.exec",
    ],
    [
      "exec for startup",
      { startupProbe: { exec: { command: ["true"] } } },
      "spec.containers[0].startupProbe.exec",
    ],
    [
      "another host",
      { livenessProbe: { httpGet: { port: 80, host: "10.0.0.1" } } },
      "spec.containers[0].livenessProbe.httpGet.host",
    ],
    [
      "a port name that the container does not have",
      { startupProbe: { tcpSocket: { port: "nowhere" } } },
      "spec.containers[0].startupProbe.tcpSocket.port",
    ],
    // What follows the API server refuses by itself, but only in the probes that it gets to see.
    ...[0, 65_536, -1, 80.5, "99999"].map(
      (port) =>
        [
          `port ${JSON.stringify(port)}`,
          { livenessProbe: { httpGet: { port } } },
          "spec.containers[0].livenessProbe.httpGet.port is",
        ] as const,
    ),
    [
      "a gRPC port that there is not",
      { startupProbe: { grpc: { port: 0 } } },
      "spec.containers[0].startupProbe.grpc.port is 0",
    ],
    ...(
      ["initialDelaySeconds", "periodSeconds", "timeoutSeconds", "failureThreshold"] as const
    ).map(
      (field) =>
        [
          `a negative ${field}`,
          { livenessProbe: http({ [field]: -5 }) },
          `spec.containers[0].livenessProbe.${field} is -5`,
        ] as const,
    ),
    [
      "a number that is no int32",
      { startupProbe: http({ failureThreshold: 2_147_483_648 }) },
      "spec.containers[0].startupProbe.failureThreshold",
    ],
    [
      "more than one success for liveness",
      { livenessProbe: http({ successThreshold: 2 }) },
      "spec.containers[0].livenessProbe.successThreshold is 2",
    ],
    [
      "two handlers",
      { livenessProbe: http({ tcpSocket: { port: 80 } }) },
      "spec.containers[0].livenessProbe has 2 handlers",
    ],
    ["no handler", { startupProbe: {} }, "spec.containers[0].startupProbe has 0 handlers"],
    [
      "another scheme",
      { livenessProbe: { httpGet: { port: 80, scheme: "FTP" } } },
      "spec.containers[0].livenessProbe.httpGet.scheme",
    ],
    [
      "a header that is none",
      { livenessProbe: { httpGet: { port: 80, httpHeaders: [{ name: "a b", value: "c" }] } } },
      "spec.containers[0].livenessProbe.httpGet.httpHeaders[0].name",
    ],
  ];
  for (const [what, container, field] of cases)
    test(what, () => {
      const { code, message } = refused(container);
      assert.equal(code, "INJECTION_CONFLICT");
      assert.ok(message.includes(field), message);
    });

  test("but exec for readiness is the kubelet's own affair", () => {
    const own = { exec: { command: ["true"] } };
    const { readiness, app } = rewritten({ readinessProbe: own });
    assert.deepEqual(readiness, own);
    assert.equal(app?.readiness, undefined);
  });
});
