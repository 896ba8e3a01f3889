/** The scenes of an update: a delta that is committed, a broken release that is rolled back, and what Prometheus sees of it. */
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import type { RunningPod } from "./kubelet/kubelet.ts";
import type { DemoRelease } from "./releases.ts";
import { humanBytes } from "./screen.ts";
import { total, waitFor } from "./sidecar-view.ts";
import type { Samples, SidecarView } from "./sidecar-view.ts";
import { mainOf, rotations, round, running, setChannel } from "./stage.ts";
import type { Figures, Published, Stage } from "./stage.ts";

function runs(samples: Samples, version: string): boolean {
  return [...samples].some(
    ([key, value]) =>
      key.startsWith("edgesync_sidecar_release_info{") &&
      key.includes(`version="${version}"`) &&
      value === 1,
  );
}

/** The update: a delta is fetched, tried and committed once the program has stayed healthy. */
export async function showUpdate(
  stage: Stage,
  pod: RunningPod,
  view: SidecarView,
  { release, offer }: { readonly release: DemoRelease; readonly offer: Published },
  figures: Figures,
): Promise<void> {
  const { screen } = stage;
  const before = await view.scrape();
  await setChannel(stage, release.version);
  await screen.step(
    "the difference is fetched, a new bank built and verified, the program restarted",
    waitFor(
      `release ${release.version} answers`,
      30_000,
      async () => (await running(stage, pod)) === release.version || undefined,
    ),
  );
  const after = await screen.step(
    "on trial: the program must stay healthy for 3 s",
    view.until(
      "the commit",
      30_000,
      (now) =>
        total(now, "edgesync_sidecar_commits_total") >
        total(before, "edgesync_sidecar_commits_total"),
    ),
  );
  const payload = (samples: Samples): number =>
    total(samples, "edgesync_sidecar_download_bytes_total", 'kind="delta"') +
    total(samples, "edgesync_sidecar_download_bytes_total", 'kind="full"');
  figures.deltaBytes = payload(after) - payload(before);
  figures.fullBytes = offer.fullBytes;
  const share = ((100 * figures.deltaBytes) / figures.fullBytes).toFixed(1);
  screen.claim(
    figures.deltaBytes > 0 && figures.deltaBytes < figures.fullBytes / 2,
    `release ${release.version} is committed: ${humanBytes(figures.deltaBytes)} fetched in place of ${humanBytes(figures.fullBytes)} compressed (${share} %)`,
  );
  const promised = offer.updates[0]?.bytes ?? 0;
  screen.claim(
    figures.deltaBytes <= 1.01 * promised,
    `that is what the publisher announced for this step: ${humanBytes(promised)}`,
  );
  screen.claim(
    mainOf(pod)?.restarts === 1,
    "one restart, through the program's own liveness probe",
  );
}

/** The broken release: its health page is gone, so the trial ends by itself with the release before it. */
export async function showRollback(
  stage: Stage,
  pod: RunningPod,
  view: SidecarView,
  broken: DemoRelease,
  good: DemoRelease,
  figures: Figures,
): Promise<void> {
  const { screen } = stage;
  await setChannel(stage, broken.version);
  await screen.step(
    "the broken release is tried",
    waitFor(
      "the broken release answers",
      30_000,
      async () => (await running(stage, pod)) === broken.version || undefined,
    ),
  );
  const after = await screen.step(
    "its health check fails",
    view.until(
      "the rollback",
      30_000,
      (now) => total(now, "edgesync_sidecar_rollbacks_total") >= 1 && runs(now, good.version),
    ),
  );
  await screen.step(
    `release ${good.version} comes back`,
    waitFor(
      `release ${good.version} answers again, ready`,
      40_000,
      async () => ((await running(stage, pod)) === good.version && pod.ready()) || undefined,
    ),
  );
  const reason = [...after.keys()].find((key) =>
    key.startsWith("edgesync_sidecar_rollbacks_total{"),
  );
  figures.rolledBackTo = (await running(stage, pod)) ?? "";
  screen.claim(
    figures.rolledBackTo === good.version,
    `rolled back by itself to ${figures.rolledBackTo} (${reason})`,
  );
  await sleep(2_500);
  const later = await view.scrape();
  screen.claim(
    runs(later, good.version) && total(later, "edgesync_sidecar_rollbacks_total") === 1,
    "two polls later: the broken release is not tried again",
  );
}

export async function showMetrics(
  stage: Stage,
  pod: RunningPod,
  view: SidecarView,
  figures: Figures,
): Promise<void> {
  const { screen } = stage;
  const samples = await view.scrape();
  figures.rotations = rotations(samples);
  figures.restarts = mainOf(pod)?.restarts ?? 0;
  const pid = pod.containers().find(({ name }) => name === "edgesync")?.pid;
  const memory = await readFile(`/proc/${pid}/status`, "utf8");
  figures.sidecarRssMiB = round(Number(/^VmRSS:\s+(\d+) kB/m.exec(memory)?.[1]) / 1024);
  for (const name of [
    "polls_total",
    "download_bytes_total",
    "commits_total",
    "rollbacks_total",
    "rotations_total",
    "ready",
  ])
    for (const [key, value] of samples)
      if (key.startsWith(`edgesync_sidecar_${name}`)) screen.note(`${key} ${value}`);
  screen.claim(
    samples.size > 20,
    `${samples.size} samples scraped; the sidecar takes ${figures.sidecarRssMiB} MiB (VmRSS)`,
  );
}
