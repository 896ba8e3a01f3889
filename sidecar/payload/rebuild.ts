/**
 * Builds a committed bank anew whose folder the disk has lost: beside its name, whole and verified, from other banks, the seed, and what may
 * be fetched. Until it is there nothing else that is on the volume is touched.
 */
import type { Clock } from "#core/clock.ts";
import { EdgeSyncError, codeOf } from "#core/errors.ts";
import type { Plan } from "#core/plan.ts";
import { repairAgainMs } from "#core/scrub.ts";
import type { Settings } from "#core/settings.ts";
import type { Log, SidecarMetrics } from "#core/telemetry.ts";
import type { Bank } from "#core/update-state.ts";
import { DOUBTFUL, build } from "./install.ts";
import { bringBankManifest, openRemains } from "./repair.ts";
import type { RepairDeps, Volume } from "./repair.ts";
import type { ScrubStatus } from "./scrub.ts";

export interface Rebuild {
  /** Rejects with the signal's reason and with nothing else: what goes wrong it reports itself. Does nothing while it is too early to try again. */
  work(bank: Bank, signal: AbortSignal): Promise<void>;
  /** Milliseconds until it may be tried again. */
  againMs(): number;
  /** @param scrub what it says itself */
  status(scrub: ScrubStatus | null): ScrubStatus | null;
}

export interface RebuildDeps extends Omit<RepairDeps, "volume"> {
  readonly settings: Pick<Settings, "scrubInterval">;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly metrics: SidecarMetrics;
  readonly volume: () => Volume | undefined;
}

/** Milliseconds between two attempts at most: an application is without its files. */
const PATIENCE_MS = 3_600_000;

export function openRebuild(deps: RebuildDeps): Rebuild {
  const { clock, random, log, metrics } = deps;
  const { scrubInterval } = deps.settings;
  const mostMs = Math.min(PATIENCE_MS, scrubInterval === 0 ? PATIENCE_MS : scrubInterval);
  let failures = 0;
  /** Monotonic milliseconds. */
  let due = -Infinity;
  let error: ScrubStatus["error"] = null;
  const againMs = (): number => Math.max(0, due - clock.monotonic());

  function lost(count: 0 | 1): void {
    metrics.set("edgesync_sidecar_scrub_damaged", {}, count);
  }

  return {
    againMs,
    async work(bank, signal) {
      const volume = deps.volume();
      if (volume === undefined || againMs() > 0) return;
      lost(1);
      const labels = { version: bank.version, detail: volume.store.bankPath(bank.id) };
      try {
        await rebuild(bank, { ...deps, volume }, signal);
        lost(0);
        [failures, due, error] = [0, -Infinity, null];
        metrics.add("edgesync_sidecar_scrub_repairs_total", {});
        log.info(labels, "installed release repaired");
      } catch (cause) {
        signal.throwIfAborted();
        const code = codeOf(cause);
        if (DOUBTFUL.has(code)) volume.downloads.doubt();
        failures += 1;
        error = { code, message: cause instanceof Error ? cause.message : String(cause) };
        const delayMs = repairAgainMs(failures, mostMs, random);
        due = clock.monotonic() + delayMs;
        log.warn({ ...labels, err: cause, code, delayMs }, "installed release not repaired");
      }
    },
    status(scrub) {
      if (error === null) return scrub;
      return { lastPass: null, repaired: 0, ...scrub, damaged: 1, error };
    },
  };
}

async function rebuild(bank: Bank, deps: RepairDeps, signal: AbortSignal): Promise<void> {
  const { store, downloads } = deps.volume;
  const { id, version } = bank;
  const kept = await store.manifest(id, signal);
  const release = kept?.tree === bank.tree ? kept : await bringBankManifest(bank, deps, signal);
  const folder = store.bankPath(id);
  const none = { id, release, folder, broken: { has: () => true } };
  const here = await openRemains(none, store, deps.seed, signal);
  const manifest = { release, path: store.manifestPath(id) };
  const start = { first: false, installed: null, here, digest: "" };
  // What has its name is no folder, and so nothing that an application could use.
  if ((await store.disk.stat(folder))?.kind !== "directory") await store.disk.remove(folder);
  const planned = ({ fetches, downloadBytes }: Plan): void => {
    if (fetches.length > 0 && deps.mayFetch?.() === false)
      throw new EdgeSyncError(
        "DOWNLOAD_WAITS",
        `${version} is gone from the disk; ${downloadBytes} bytes of it are to be fetched`,
      );
  };
  await build(id, manifest, start, { ...deps, store, downloads, planned }, signal);
  deps.seed?.forget();
}
