/** Installing the manifests as their users do, with the image and the addresses of this run; and taking them away. */
import { execFile } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { join, relative, resolve } from "node:path";
import { promisify } from "node:util";
import type {
  V1Deployment,
  V1EndpointSlice,
  V1MutatingWebhookConfiguration,
  V1Pod,
} from "@kubernetes/client-node";
import { build } from "../support/kustomize.ts";
import { temporaryFolder } from "../support/temporary.ts";
import type { Api, KubeObject } from "./api.ts";
import { describePod, isReady } from "./pods.ts";
import type { Site } from "./site.ts";
import type { Waits } from "./wait.ts";

const run = promisify(execFile);
const BASE = resolve(import.meta.dirname, "../../manifests/base");

/** As the base names things. */
export const NAMESPACE = "edgesync";
export const CONFIGURATION =
  "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/edgesync";
export const DEPLOYMENT = `/apis/apps/v1/namespaces/${NAMESPACE}/deployments/edgesync-webhook`;
export const SECRET = `/api/v1/namespaces/${NAMESPACE}/secrets/edgesync-webhook-tls`;
const LABEL = "app.kubernetes.io/name=edgesync";
export const WEBHOOK_PODS = `/api/v1/namespaces/${NAMESPACE}/pods?labelSelector=${encodeURIComponent(LABEL)}`;

/** What the base is patched with, as an operator's overlay does. */
export interface Overlay {
  readonly image: string;
  readonly settings: Readonly<Record<string, string>>;
  /** Of an API server that pods reach, where they do not reach its Service. */
  readonly apiServer: { readonly host: string; readonly port: number } | undefined;
}

/** The kustomization of an overlay, with the base at a relative path. */
export function kustomization(base: string, { image, settings, apiServer }: Overlay): string {
  const entries = Object.entries({ EDGESYNC_IMAGE: image, ...settings });
  const config = entries.map(([key, value]) => ({ op: "add", path: `/data/${key}`, value }));
  const container = "/spec/template/spec/containers/0";
  const variables = Object.entries({
    KUBERNETES_SERVICE_HOST: apiServer?.host,
    KUBERNETES_SERVICE_PORT: apiServer?.port.toString(),
  });
  const deployment = [
    { op: "replace", path: `${container}/image`, value: image },
    ...variables
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => ({ op: "add", path: `${container}/env/-`, value: { name, value } })),
  ];
  const patch = (kind: string, operations: object): object => ({
    target: { kind, name: "edgesync-webhook" },
    patch: JSON.stringify(operations),
  });
  return JSON.stringify({
    apiVersion: "kustomize.config.k8s.io/v1beta1",
    kind: "Kustomization",
    resources: [base],
    patches: [patch("ConfigMap", config), patch("Deployment", deployment)],
  });
}

/** Whether something of edgesync is in the cluster already. */
export async function installed(api: Api): Promise<string | undefined> {
  for (const path of [CONFIGURATION, `/api/v1/namespaces/${NAMESPACE}`])
    if ((await api.find(path)) !== undefined) return path;
  return undefined;
}

/**
 * An API server's address that pods reach, where they do not reach the one of its Service: without kube-proxy only the endpoints are there.
 */
export async function reachableApiServer(api: Api, site: Site): Promise<Overlay["apiServer"]> {
  const service = await api.json<{ spec: { clusterIP: string; ports: { port: number }[] } }>(
    "/api/v1/namespaces/default/services/kubernetes",
  );
  const own = { host: service.spec.clusterIP, port: service.spec.ports[0]?.port ?? 443 };
  const urlOf = ({ host, port }: { host: string; port: number }): string =>
    `https://${host.includes(":") ? `[${host}]` : host}:${port}/version`;
  const answer = await site.reach(urlOf(own));
  if (answer.status > 0) return undefined;
  const slices = await api.json<{ items: readonly V1EndpointSlice[] }>(
    "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dkubernetes",
  );
  const candidates = slices.items.flatMap(({ endpoints, ports }) =>
    (endpoints ?? []).flatMap(({ addresses }) =>
      addresses.map((host) => ({ host, port: ports?.[0]?.port ?? 6443 })),
    ),
  );
  for (const candidate of candidates)
    if ((await site.reach(urlOf(candidate))).status > 0) return candidate;
  throw new Error(
    `pods reach no API server: ${urlOf(own)} (${answer.error}), ${candidates.map(urlOf).join(", ")}`,
  );
}

export interface Installation {
  readonly objects: readonly KubeObject[];
  /** Resolves with how it was done. */
  apply(): Promise<string>;
  /** Begins to delete all of it, also what was applied in part. */
  delete(): Promise<void>;
}

/** With kubectl where there is one, else as it does. */
export async function openInstallation(api: Api, overlay: Overlay): Promise<Installation> {
  const objects: readonly KubeObject[] = await inOverlay(overlay, build);
  const hasKubectl = await run("kubectl", ["version", "--client"]).then(
    () => true,
    () => false,
  );
  return {
    objects,
    async apply() {
      if (hasKubectl) {
        await inOverlay(overlay, (folder) => run("kubectl", ["apply", "-k", folder]));
        return "kubectl apply -k";
      }
      for (const object of objects) await api.apply(object);
      return "server-side apply";
    },
    async delete() {
      if (hasKubectl) {
        const how = ["--wait=false", "--ignore-not-found"];
        await inOverlay(overlay, (folder) => run("kubectl", ["delete", "-k", folder, ...how]));
      } else for (const object of objects.toReversed()) await api.remove(await api.pathOf(object));
    },
  };
}

/** Makes the overlay's folder and hands it over. */
async function inOverlay<T>(overlay: Overlay, use: (folder: string) => Promise<T>): Promise<T> {
  await using parent = await temporaryFolder();
  const folder = join(parent.path, "overlay");
  await mkdir(folder);
  const text = kustomization(relative(folder, BASE), overlay);
  await writeFile(join(folder, "kustomization.yaml"), text);
  return await use(folder);
}

/** Two ready replicas and a caBundle in every entry. */
export async function untilReady(api: Api, waits: Waits, seconds: number): Promise<void> {
  await waits.until("both replicas of the webhook are ready", seconds, async (seen) => {
    const { items } = await api.json<{ items: readonly V1Pod[] }>(WEBHOOK_PODS);
    seen(items.map(describePod).join("; ") || "no pods yet");
    const { spec, status } = await api.json<V1Deployment>(DEPLOYMENT);
    const live = items.filter(({ metadata }) => metadata?.deletionTimestamp === undefined);
    return (
      (status?.readyReplicas === spec?.replicas && live.every(isReady) && live.length === 2) ||
      undefined
    );
  });
  await waits.until("every caBundle is filled", 60, async () => {
    const { webhooks = [] } = await api.json<V1MutatingWebhookConfiguration>(CONFIGURATION);
    const filled = webhooks.filter(({ clientConfig }) => (clientConfig.caBundle ?? "") !== "");
    return (webhooks.length > 0 && filled.length === webhooks.length) || undefined;
  });
}

/** Objects that are still there: with edgesync's label, or, of those that have no namespace, with its name. */
export async function leftovers(api: Api): Promise<readonly string[]> {
  const found: string[] = [];
  for (const { kind, namespaced, path } of await api.kinds()) {
    const query = namespaced ? `?labelSelector=${encodeURIComponent(LABEL)}` : "";
    // Kinds that cannot be listed, such as those of an API server that is down, are not ours.
    const { status, body } = await api.call(`${path}${query}`);
    if (status !== 200) continue;
    const { items } = JSON.parse(body) as { items?: readonly KubeObject[] };
    for (const { metadata } of items ?? [])
      if (namespaced || isOurs(metadata))
        found.push(`${kind} ${metadata.namespace ?? ""}/${metadata.name}`);
  }
  return found;
}

function isOurs({ name, labels }: KubeObject["metadata"]): boolean {
  return (
    labels?.["app.kubernetes.io/name"] === "edgesync" ||
    name === "edgesync" ||
    name?.startsWith("edgesync-webhook") === true ||
    name?.endsWith(".edgesync.dev") === true
  );
}
