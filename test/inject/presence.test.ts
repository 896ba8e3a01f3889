import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { inject } from "#core/inject/inject.ts";
import type { Container, Pod, PodSpec } from "#core/inject/pod.ts";
import { fromEnv } from "#core/settings.ts";
import { CLUSTER, envOf, injected, podWith, sidecarOf } from "../support/inject.ts";

const SECRET = { "secret.db": "database/creds/web" };
const PORTS: Partial<Container> = {
  ports: [
    { containerPort: 8443 },
    { containerPort: 5353, protocol: "UDP" },
    { containerPort: 8080, protocol: "TCP" },
  ],
};

function told(pod: Pod) {
  const { secretsPorts, podNetwork, app } = fromEnv(envOf(sidecarOf(pod)));
  return { ports: secretsPorts, network: podNetwork, app: app.length };
}

function pod(spec: PodSpec, annotations: Readonly<Record<string, string>> = SECRET): Pod {
  return injected(podWith(annotations, spec)).pod;
}

describe("a pod with secrets and nothing else", () => {
  test("tells the sidecar the ports of its readers, so that it sees them end, and leaves their probes alone", () => {
    const livenessProbe = { httpGet: { port: 9000, path: "/" } };
    const containers = [
      { name: "web", ...PORTS, livenessProbe },
      { name: "other", ...PORTS },
    ];
    const made = pod({ containers });
    assert.deepEqual(told(made), { ports: [8080, 8443, 9000], network: "own", app: 0 });
    assert.deepEqual(made.spec?.containers?.[0]?.livenessProbe, livenessProbe);
    assert.equal(inject(made, CLUSTER).kind, "skip");
  });

  test("says so where none is stated: then only what it holds in the network can be seen", () => {
    assert.deepEqual(told(pod({ containers: [{ name: "web" }] })).ports, []);
  });

  test("keeps what it has told when a mesh has turned the probes to itself since", () => {
    const livenessProbe = { httpGet: { port: 9000, path: "/" } };
    const made = pod({ containers: [{ name: "web", livenessProbe }] });
    const turned = made.spec?.containers?.map((container) => ({
      ...container,
      livenessProbe: { httpGet: { port: 15_020, path: "/app-health/web/livez" } },
    }));
    const proxy = { name: "istio-proxy", restartPolicy: "Always" };
    const initContainers = [proxy, ...(made.spec?.initContainers ?? [])];
    const again = inject({ ...made, spec: { containers: turned ?? [], initContainers } }, CLUSTER);
    assert.ok(again.kind === "injected", JSON.stringify(again));
    assert.deepEqual(told(again.pod), { ports: [9000], network: "shared", app: 0 });
  });

  test("tells nothing where Vault is not asked", () => {
    const made = pod({ containers: [{ name: "web", ...PORTS }] }, { "secret.db": "mounted:web" });
    assert.equal(told(made).ports, undefined);
  });
});

describe("a pod's network", () => {
  const containers = [{ name: "web", ...PORTS }];
  const native = { name: "logs", restartPolicy: "Always" };

  test("is shared with what is stopped after the sidecar, and with the node", () => {
    const proxy = { name: "istio-proxy", restartPolicy: "Always" };
    assert.equal(told(pod({ containers, initContainers: [proxy] })).network, "shared");
    assert.equal(
      told(pod({ containers: [...containers, { name: "linkerd-proxy" }] })).network,
      "shared",
    );
    const port = { ...SECRET, "sidecar-port": "20000" };
    assert.equal(told(pod({ containers, hostNetwork: true }, port)).network, "shared");
  });

  test("is its own where other sidecars are stopped before it", () => {
    assert.equal(told(pod({ containers, initContainers: [native] })).network, "own");
    assert.equal(told(pod({ containers, initContainers: [{ name: "migrate" }] })).network, "own");
  });
});
