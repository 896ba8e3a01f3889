/** The life of a release in a real pod: held back, let go, followed by the next one as a delta, and by a broken one. */
import { ROLLBACK_REASONS } from "#core/reasons.ts";
import { applicationPod, containerOf, isReady } from "../pods.ts";
import {
  application,
  claim,
  create,
  sidecarMetrics,
  sidecarStatus,
  untilPod,
  untilPodReady,
  untilVersion,
  updates,
  versionOf,
} from "../stage.ts";
import type { PodName, Stage } from "../stage.ts";

const FIRST = "1.0.0";
const SECOND = "1.1.0";
const BROKEN = "1.2.0";
const BYTES = 3 * 2 ** 20;

/** The pod that lives through all of this. */
export function webPod({ namespaces }: Stage): PodName {
  return { namespace: namespaces.enabled, name: "web" };
}

/** Whether the application runs in the end. */
export async function showGate(stage: Stage): Promise<boolean> {
  const { api, waits, site, vault } = stage;
  const at = webPod(stage);
  const annotations = {
    ...updates("web/stable"),
    ...vault.login,
    "secret.config": vault.config,
    "trial-duration": "5s",
    // The broken release comes right after a good one.
    "restart-spacing": "0s",
    "secrets-refresh-interval": "2s",
  };
  const closedBy = async (reason: string): Promise<void> => {
    await waits.until(`the gate is closed by ${reason}`, 120, async (seen) => {
      const { start } = await sidecarStatus(stage, at);
      seen(start.reason);
      return start.reason === reason || undefined;
    });
  };
  let held = 0;
  const isHeld = await claim(stage, "held", [at], async () => {
    await create(api, applicationPod({ ...application(stage), ...at, annotations }));
    const begin = performance.now();
    await closedBy("payload_missing");
    await site.publish("web", { version: FIRST, healthy: true, bytes: BYTES });
    await site.edgesync("channel", "set", "web/stable", FIRST);
    // The payload is there now, and nobody may log in yet.
    await closedBy("secrets_missing");
    const pod = await untilPod(stage, at, "its main container waits", 10, (now) => {
      return containerOf(now, "edgesync").running && containerOf(now, "main").reason !== "";
    });
    const main = containerOf(pod, "main");
    if (main.running || pod.status?.phase !== "Pending")
      throw new Error(`the pod is ${pod.status?.phase}, its main container ${main.reason}`);
    held = performance.now() - begin;
    return `payload_missing, then secrets_missing; main is ${main.reason} and the pod ${pod.status.phase} after ${(held / 1_000).toFixed(0)} s`;
  });
  if (!isHeld) return false;
  return await claim(stage, "released", [at], async () => {
    await vault.allow();
    const begin = performance.now();
    const pod = await untilPodReady(stage, at, 180);
    const version = await versionOf(stage, at);
    if (version !== FIRST) throw new Error(`release ${version} answers`);
    const { restarts } = containerOf(pod, "main");
    if (restarts > 0) throw new Error(`the main container has restarted ${restarts} times`);
    return `ready ${((performance.now() - begin) / 1_000).toFixed(1)} s after Vault let it in, without a restart; release ${version} answers`;
  });
}

/** The time a kubelet may take for one restart through the lever: its window, its back-off, and the start. */
const RESTART_SECONDS = 240;

export async function showUpdate(stage: Stage): Promise<void> {
  const { site, waits } = stage;
  const at = webPod(stage);
  const isUpdated = await claim(stage, "delta", [at], async () => {
    const before = await sidecarMetrics(stage, at);
    const { fullBytes, updates: offered } = await site.publish("web", {
      version: SECOND,
      healthy: true,
      bytes: BYTES,
    });
    await site.edgesync("channel", "set", "web/stable", SECOND);
    const begin = performance.now();
    await untilVersion(stage, at, SECOND, RESTART_SECONDS);
    const seconds = (performance.now() - begin) / 1_000;
    const after = await waits.until("the commit", 180, async () => {
      const now = await sidecarMetrics(stage, at);
      const commits = "edgesync_sidecar_commits_total";
      return now(commits) > before(commits) ? now : undefined;
    });
    const fetched = (kind: string): number =>
      after("edgesync_sidecar_download_bytes_total", `kind="${kind}"`) -
      before("edgesync_sidecar_download_bytes_total", `kind="${kind}"`);
    const bytes = fetched("delta") + fetched("full");
    if (fetched("delta") === 0 || bytes > fullBytes / 2)
      throw new Error(`${bytes} bytes were fetched, ${fetched("delta")} of them as deltas`);
    const pod = await untilPodReady(stage, at, 60);
    const [main, sidecar] = [containerOf(pod, "main"), containerOf(pod, "edgesync")];
    if (main.restarts !== 1 || sidecar.restarts !== 0)
      throw new Error(`restarts: main ${main.restarts}, sidecar ${sidecar.restarts}`);
    return `${bytes} of ${fullBytes} bytes fetched (${offered[0]?.bytes} announced); release ${SECOND} answers after ${seconds.toFixed(1)} s and is committed; restarts: main 1, sidecar 0`;
  });
  if (!isUpdated) return;
  await claim(stage, "rollback", [at], async () => {
    await site.publish("web", { version: BROKEN, healthy: false, bytes: BYTES });
    await site.edgesync("channel", "set", "web/stable", BROKEN);
    await untilVersion(stage, at, BROKEN, RESTART_SECONDS);
    const rolledBack = await waits.until("the rollback", 240, async () => {
      const now = await sidecarMetrics(stage, at);
      const rollbacks = "edgesync_sidecar_rollbacks_total";
      const reasons = Object.keys(ROLLBACK_REASONS);
      return reasons.find((reason) => now(rollbacks, `reason="${reason}"`) > 0);
    });
    await untilVersion(stage, at, SECOND, RESTART_SECONDS);
    await untilPod(stage, at, "is ready again", 120, isReady);
    // Several looks at the channel, which still names the broken release.
    await waits.pause(8_000);
    const version = await versionOf(stage, at);
    const metrics = await sidecarMetrics(stage, at);
    const count = metrics("edgesync_sidecar_rollbacks_total");
    if (version !== SECOND || count !== 1)
      throw new Error(`release ${version} answers after ${count} rollbacks`);
    return `${rolledBack}; release ${SECOND} is back, ready, and stays over the next looks`;
  });
}
