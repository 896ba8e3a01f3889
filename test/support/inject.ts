import type { ClusterOptions } from "#core/inject/cluster.ts";
import { inject } from "#core/inject/inject.ts";
import type { Injection } from "#core/inject/inject.ts";
import type { Container, Pod, PodSpec } from "#core/inject/pod.ts";

export const CLUSTER: ClusterOptions = {
  image: "registry.example/edgesync:1.0.0",
  images: ["mirror.example/*"],
  repository: "https://releases.example",
  repositories: ["https://other.example/*", "oci://registry.example/team/*"],
  repositoryMirrors: [],
  proxy: {},
  vaultAddress: "https://vault.example:8200",
  site: undefined,
  vaultAddresses: [],
  sidecarPort: 19465,
};

export type Annotations = Readonly<Record<string, string>>;

/** Adds the prefix to the keys. */
export function prefixed(annotations: Annotations): Annotations {
  return Object.fromEntries(
    Object.entries(annotations).map(([key, value]) => [`edgesync.dev/${key}`, value]),
  );
}

/** A pod with a container `web` that serves on 8080, and what is given on top. */
export function podWith(annotations: Annotations, spec: PodSpec = {}): Pod {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: "web", annotations: prefixed(annotations) },
    spec: { containers: [WEB], ...spec },
  };
}

export const WEB: Container = {
  name: "web",
  image: "web:1",
  ports: [{ name: "http", containerPort: 8080 }],
  readinessProbe: { httpGet: { path: "/ready", port: "http" } },
};

export function injected(
  pod: Pod,
  cluster: ClusterOptions = CLUSTER,
): Extract<Injection, { kind: "injected" }> {
  const result = inject(pod, cluster);
  if (result.kind !== "injected") throw new Error(`not injected: ${JSON.stringify(result)}`);
  return result;
}

export function denied(
  pod: Pod,
  cluster: ClusterOptions = CLUSTER,
): Extract<Injection, { kind: "deny" }> {
  const result = inject(pod, cluster);
  if (result.kind !== "deny") throw new Error(`not denied but ${result.kind}`);
  return result;
}

export function sidecarOf(pod: Pod): Container {
  return containerOf(pod, "edgesync");
}

export function containerOf(pod: Pod, name: string): Container {
  const all = [...(pod.spec?.initContainers ?? []), ...(pod.spec?.containers ?? [])];
  const found = all.find((container) => container.name === name);
  if (found === undefined) throw new Error(`the pod has no container ${name}`);
  return found;
}

/** The environment that the kubelet would give to the sidecar, but for what only a running pod has. */
export function envOf(container: Container): Readonly<Record<string, string>> {
  return Object.fromEntries(
    (container.env ?? []).flatMap(({ name, value }) =>
      value === undefined ? [] : [[name, value.replaceAll("$$", "$")]],
    ),
  );
}
