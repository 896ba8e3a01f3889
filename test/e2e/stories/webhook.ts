/** The webhook itself: its certificate is replaced under load, it is away and comes back, and it is uninstalled. */
import { X509Certificate } from "node:crypto";
import type { V1MutatingWebhookConfiguration, V1Pod, V1Secret } from "@kubernetes/client-node";
import {
  CONFIGURATION,
  DEPLOYMENT,
  leftovers,
  NAMESPACE,
  SECRET,
  untilReady,
  WEBHOOK_PODS,
} from "../install.ts";
import { messageOf } from "../ledger.ts";
import { applicationPod, containerOf, describePod, isInjected } from "../pods.ts";
import {
  application,
  claim,
  create,
  metricsOf,
  pathOf,
  refusal,
  untilGone,
  untilPod,
  updates,
  versionOf,
} from "../stage.ts";
import type { PodName, Stage } from "../stage.ts";
import type { KubeObject } from "../api.ts";

const METRICS_PORT = 9464;
const WORKERS = 4;
/** Between two admissions of a worker. */
const PAUSE_MS = 100;

function askingPod(stage: Stage, name: string, asks: boolean = true): KubeObject {
  return applicationPod({
    ...application(stage),
    name,
    namespace: stage.namespaces.enabled,
    annotations: asks ? updates("web/stable") : {},
  });
}

interface Load {
  /** Milliseconds of each admission. */
  readonly durations: number[];
  readonly failures: string[];
}

/** Dry-run creations, which the webhook answers like others, until `done`. */
async function load(stage: Stage, done: AbortSignal): Promise<Load> {
  const { api, waits } = stage;
  const result: Load = { durations: [], failures: [] };
  const worker = async (index: number): Promise<void> => {
    const pod = askingPod(stage, `load-${index}`);
    while (!done.aborted && !waits.signal.aborted) {
      const begin = performance.now();
      try {
        const admitted = await create(api, pod, true);
        if (!isInjected(admitted)) result.failures.push("admitted without a sidecar");
      } catch (error) {
        result.failures.push(messageOf(error));
      }
      result.durations.push(performance.now() - begin);
      // Whoever stops the run hears of it elsewhere.
      await waits.pause(PAUSE_MS).catch(() => {});
    }
  };
  await Promise.all(Array.from({ length: WORKERS }, (_, index) => worker(index)));
  return result;
}

/** Seconds that a new authority is trusted before its certificate is served, at least: API servers must have heard of it. */
const LEAST_SETTLED = 10;

export async function showCertificate(stage: Stage): Promise<void> {
  const { api } = stage;
  await claim(stage, "certificate", [], async () => {
    const before = await leafOf(stage);
    const done = new AbortController();
    const loading = load(stage, done.signal);
    try {
      await api.json(SECRET, {
        method: "PATCH",
        type: "application/merge-patch+json",
        body: { metadata: { annotations: { "edgesync.dev/rotate": "now" } } },
      });
      const times = await followRotation(stage, before);
      await stage.waits.pause(5_000);
      done.abort();
      const { durations, failures } = await loading;
      if (failures.length > 0)
        throw new Error(`${failures.length} of ${durations.length} failed: ${failures[0]}`);
      // An API server keeps connections, so that a wrong order may go unnoticed by the load.
      if (times.trusted < LEAST_SETTLED)
        throw new Error(`the new authority was trusted ${times.trusted} s before its certificate`);
      const sorted = durations.toSorted((a, b) => a - b);
      const p99 = sorted[Math.floor(sorted.length * 0.99)] ?? 0;
      return `${durations.length} admissions, 0 failed, p99 ${p99.toFixed(0)} ms with the API server; served by both replicas after ${times.served.toFixed(0)} s, its authority trusted ${times.trusted.toFixed(0)} s before`;
    } finally {
      done.abort();
      await loading;
    }
  });
}

async function leafOf({ api }: Stage): Promise<X509Certificate> {
  const { data = {} } = await api.json<V1Secret>(SECRET);
  return new X509Certificate(Buffer.from(data["tls.crt"] ?? "", "base64"));
}

/** Certificates in each caBundle. */
async function authorities({ api }: Stage): Promise<readonly number[]> {
  const { webhooks = [] } = await api.json<V1MutatingWebhookConfiguration>(CONFIGURATION);
  return webhooks.map(({ clientConfig: { caBundle = "" } }) => {
    const pem = Buffer.from(caBundle, "base64").toString();
    return pem.split("-----BEGIN CERTIFICATE-----").length - 1;
  });
}

/** Waits until every replica serves another certificate. In seconds: after how long, and for how long its authority had been trusted when it was kept. */
async function followRotation(
  stage: Stage,
  before: X509Certificate,
): Promise<{ readonly served: number; readonly trusted: number }> {
  const { api, waits } = stage;
  const begin = performance.now();
  const had = await authorities(stage);
  let trustedAt: number | undefined;
  let keptAt: number | undefined;
  await waits.until("every replica serves a new certificate", 300, async (seen) => {
    const bundles = await authorities(stage);
    const leaf = await leafOf(stage);
    const isNew = leaf.serialNumber !== before.serialNumber;
    seen(isNew ? "a new one is made" : `authorities in each caBundle: ${bundles.join(" ")}`);
    if (!isNew) {
      if (bundles.every((count, index) => count > (had[index] ?? 0)))
        trustedAt ??= performance.now();
      return undefined;
    }
    keptAt ??= performance.now();
    const { items } = await api.json<{ items: readonly V1Pod[] }>(WEBHOOK_PODS);
    for (const { metadata } of items) {
      const at = { namespace: NAMESPACE, name: metadata?.name ?? "" };
      const metrics = await metricsOf(stage, at, METRICS_PORT);
      const expiry = metrics("edgesync_webhook_certificate_expiry_timestamp_seconds");
      if (Math.abs(expiry * 1_000 - Date.parse(leaf.validTo)) > 1_500) return undefined;
    }
    return true;
  });
  const trusted = keptAt === undefined || trustedAt === undefined ? 0 : keptAt - trustedAt;
  return { served: (performance.now() - begin) / 1_000, trusted: trusted / 1_000 };
}

async function scale({ api }: Stage, replicas: number): Promise<void> {
  await api.json(DEPLOYMENT, {
    method: "PATCH",
    type: "application/merge-patch+json",
    body: { spec: { replicas } },
  });
}

export async function showOutage(stage: Stage): Promise<void> {
  const { api, waits, namespaces } = stage;
  const at = { namespace: namespaces.enabled, name: "late" };
  const isDown = await claim(stage, "down", [], async () => {
    await scale(stage, 0);
    await waits.until("no replica runs", 180, async (seen) => {
      const { items } = await api.json<{ items: readonly V1Pod[] }>(WEBHOOK_PODS);
      seen(items.map(describePod).join("; "));
      return items.length === 0 || undefined;
    });
    const said = await refusal(api, askingPod(stage, at.name), false);
    if (said === undefined) throw new Error("a pod that asks was created without the webhook");
    if ((await api.find(pathOf(at))) !== undefined) throw new Error("the refused pod is there");
    const plain = await refusal(api, askingPod(stage, "plain", false));
    if (plain !== undefined) throw new Error(`a pod that asks for nothing is refused: ${plain}`);
    return said;
  });
  if (!isDown) {
    await scale(stage, 2);
    return;
  }
  await claim(stage, "recovery", [at], async () => {
    const begin = performance.now();
    await scale(stage, 2);
    const pod = await waits.until("a pod that asks is created", 240, () =>
      create(api, askingPod(stage, at.name)),
    );
    if (!isInjected(pod)) throw new Error("it was created without a sidecar");
    const seconds = ((performance.now() - begin) / 1_000).toFixed(1);
    await untilReady(api, waits, 180);
    await api.remove(pathOf(at));
    return `a pod is admitted and injected ${seconds} s after the replicas are wanted again`;
  });
}

/** @param survivor a pod that was injected and runs */
export async function showUninstall(stage: Stage, survivor: PodName): Promise<void> {
  const { api, waits, installation } = stage;
  const before = await api.find<V1Pod>(pathOf(survivor));
  await claim(stage, "uninstall", [], async () => {
    await installation.delete();
    for (const object of installation.objects)
      await untilGone(stage, await api.pathOf(object), 180);
    const left = await leftovers(api);
    if (left.length > 0) throw new Error(`left: ${left.join(", ")}`);
    const kinds = (await api.kinds()).length;
    return `${installation.objects.length} objects deleted, none found among ${kinds} kinds`;
  });
  await claim(stage, "after", [survivor], async () => {
    if (before === undefined) throw new Error("there is no injected pod");
    await waits.pause(10_000);
    const now = await untilPod(
      stage,
      survivor,
      "is there and runs",
      30,
      (pod) => containerOf(pod, "main").running,
    );
    const restarts = (pod: V1Pod): string =>
      ["edgesync", "main"].map((name) => containerOf(pod, name).restarts).join();
    if (now.metadata?.uid !== before.metadata?.uid || restarts(now) !== restarts(before))
      throw new Error(`it was another pod, or restarted: ${describePod(now)}`);
    const version = await versionOf(stage, survivor);
    const plain = await create(api, askingPod(stage, "unmanaged"), true);
    if (isInjected(plain)) throw new Error("a new pod is still injected");
    await api.remove(pathOf(survivor));
    await untilGone(stage, pathOf(survivor), 120);
    return `release ${version} answers, no restart; new pods are created without a sidecar; deleted, it goes`;
  });
}
