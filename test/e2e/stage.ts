/** What the stories share: the cluster, what stands around the pods, and how they make and look at them. */
import type { CoreV1Event, V1Pod } from "@kubernetes/client-node";
import type { Answer, Api, KubeObject } from "./api.ts";
import { ApiError } from "./api.ts";
import type { Installation } from "./install.ts";
import type { Claim, Ledger } from "./ledger.ts";
import { describePod, isReady } from "./pods.ts";
import type { Annotations, Application } from "./pods.ts";
import { APP_PORT, SIDECAR_PORT } from "./protocol.ts";
import type { Settings } from "./settings.ts";
import type { Site } from "./site.ts";
import type { VaultSetup } from "./vault.ts";
import type { Waits } from "./wait.ts";

export interface World {
  readonly api: Api;
  readonly waits: Waits;
  readonly settings: Settings;
  readonly ledger: Ledger;
  /** Names what belongs to this run. */
  readonly run: string;
  /** Progress, which is nobody's result. */
  readonly note: (text: string) => void;
}

export interface Stage extends World {
  readonly site: Site;
  readonly vault: VaultSetup;
  readonly installation: Installation;
  readonly namespaces: {
    /** Labelled for injection. */
    readonly enabled: string;
    readonly other: string;
    readonly site: string;
  };
}

export interface PodName {
  readonly namespace: string;
  readonly name: string;
}

/** Annotations of a pod that follows a channel, and looks often. */
export function updates(channel: string): Annotations {
  return { channel, "repository-ca": "e2e-ca", "poll-interval": "2s" };
}

/** What all applications of the run have in common. */
export function application({
  settings,
  run,
  site,
}: Stage): Omit<Application, "name" | "namespace" | "annotations"> {
  return { image: settings.workloadImage, run, site: site.ears };
}

export function pathOf({ namespace, name }: PodName): string {
  return `/api/v1/namespaces/${namespace}/pods/${name}`;
}

export async function create(api: Api, pod: KubeObject, dry: boolean = false): Promise<V1Pod> {
  const path = `/api/v1/namespaces/${pod.metadata.namespace}/pods${dry ? "?dryRun=All" : ""}`;
  return await api.json<V1Pod>(path, { method: "POST", body: pod });
}

/** The API server's words for not creating a pod; `undefined` when it would. */
export async function refusal(
  api: Api,
  pod: KubeObject,
  dry: boolean = true,
): Promise<string | undefined> {
  try {
    await create(api, pod, dry);
    return undefined;
  } catch (error) {
    if (error instanceof ApiError) return error.message;
    throw error;
  }
}

/** Waits until a pod is as it should be. */
export async function untilPod(
  { api, waits }: World,
  at: PodName,
  what: string,
  seconds: number,
  holds: (pod: V1Pod) => boolean,
): Promise<V1Pod> {
  return await waits.until(`pod ${at.name}: ${what}`, seconds, async (seen) => {
    const pod = await api.json<V1Pod>(pathOf(at));
    seen(describePod(pod));
    return holds(pod) ? pod : undefined;
  });
}

export async function untilPodReady(world: World, at: PodName, seconds: number): Promise<V1Pod> {
  return await untilPod(world, at, "is ready", seconds, isReady);
}

/** Waits until a pod is no more. */
export async function untilGone(
  { api, waits }: World,
  path: string,
  seconds: number,
): Promise<void> {
  await waits.until(`${path} is gone`, seconds, async () => {
    return (await api.find(path)) === undefined || undefined;
  });
}

/** @throws Error unless it answers with 200 */
async function fetchJson<T>(answer: Promise<Answer>, what: string): Promise<T> {
  const { status, body } = await answer;
  if (status !== 200) throw new Error(`${what} answers ${status}: ${body.slice(0, 200)}`);
  return JSON.parse(body) as T;
}

/** What the application of a pod says of itself. */
export async function askApp<T>(
  { api }: World,
  { namespace, name }: PodName,
  path: string,
): Promise<T> {
  return await fetchJson<T>(
    api.pod(namespace, name, APP_PORT, path),
    `the application of ${name} at ${path}`,
  );
}

export async function versionOf(world: World, at: PodName): Promise<string> {
  return (await askApp<{ version: string }>(world, at, "/")).version;
}

/** Waits until the application answers as a version. */
export async function untilVersion(
  world: World,
  at: PodName,
  version: string,
  seconds: number,
): Promise<void> {
  await world.waits.until(`release ${version} answers`, seconds, async (seen) => {
    const now = await versionOf(world, at);
    seen(`release ${now} answers`);
    return now === version || undefined;
  });
}

/** As far as the stories look at `/status`. */
export interface SidecarStatus {
  readonly start: { readonly reason: string };
  readonly ready: { readonly reason: string };
  readonly update?: { readonly phase?: string; readonly blocked?: unknown };
}

export async function sidecarStatus({ api }: World, at: PodName): Promise<SidecarStatus> {
  return await fetchJson(
    api.pod(at.namespace, at.name, SIDECAR_PORT, "/status"),
    `the sidecar of ${at.name} at /status`,
  );
}

/** Sums of a metric over the label values that `having` is in. */
export type Metrics = (name: string, having?: string) => number;

export async function metricsOf(
  { api }: World,
  { namespace, name }: PodName,
  port: number,
): Promise<Metrics> {
  const { status, body } = await api.pod(namespace, name, port, "/metrics");
  if (status !== 200) throw new Error(`${name} answers /metrics with ${status}`);
  return readMetrics(body);
}

export async function sidecarMetrics(world: World, at: PodName): Promise<Metrics> {
  return await metricsOf(world, at, SIDECAR_PORT);
}

/** Prometheus' text format, version 0.0.4. */
export function readMetrics(text: string): Metrics {
  const samples = [...text.matchAll(/^([a-zA-Z_:][\w:]*)(\{.*\})? (\S+)$/gm)];
  return (name, having = "") =>
    samples
      .filter(([, of, labels = ""]) => of === name && labels.includes(having))
      .reduce((sum, [, , , value]) => sum + Number(value), 0);
}

/** Tries a claim, and tells what is to be seen of its pods should it not hold. */
export async function claim(
  world: World,
  id: Claim,
  pods: readonly PodName[],
  work: () => Promise<string>,
): Promise<boolean> {
  return await world.ledger.claim(id, async () => {
    world.waits.signal.throwIfAborted();
    try {
      return await work();
    } catch (error) {
      for (const at of pods) if (!world.waits.signal.aborted) world.note(await diagnose(world, at));
      throw error;
    }
  });
}

/** A pod's state, events, sidecar and last words, as far as each can be had. */
export async function diagnose({ api }: World, at: PodName): Promise<string> {
  const lines: string[] = [];
  const add = async (what: string, ask: () => Promise<string>): Promise<void> => {
    lines.push(
      `  ${what}: ${await ask().catch((error: unknown) => `not to be had: ${String(error)}`)}`,
    );
  };
  await add("pod", async () => describePod(await api.json<V1Pod>(pathOf(at))));
  await add("events", async () => {
    const query = encodeURIComponent(`involvedObject.name=${at.name}`);
    const { items } = await api.json<{ items: readonly CoreV1Event[] }>(
      `/api/v1/namespaces/${at.namespace}/events?fieldSelector=${query}`,
    );
    return items
      .slice(-8)
      .map(({ reason, message }) => `${reason}: ${message}`)
      .join(" | ");
  });
  await add("sidecar", async () => {
    const { body } = await api.pod(at.namespace, at.name, SIDECAR_PORT, "/status");
    return body.slice(0, 1_500);
  });
  for (const container of ["edgesync", "main"])
    await add(`log of ${container}`, async () => {
      const { body } = await api.call(`${pathOf(at)}/log?container=${container}&tailLines=15`);
      return `\n${body.slice(-4_000)}`;
    });
  return `what is to be seen of ${at.namespace}/${at.name}:\n${lines.join("\n")}`;
}
