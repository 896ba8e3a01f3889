/** The trusted time of a sidecar: what is known of it from look to look, and what is told of it. */
import type { Clock } from "#core/clock.ts";
import type { ClockSkew } from "#core/clock-skew.ts";
import { CLOCK_REASONS } from "#core/reasons.ts";
import type { ClockReason } from "#core/reasons.ts";
import type { Log, SidecarMetrics } from "#core/telemetry.ts";
import { judgeTime } from "#core/trust/time.ts";
import type { TimeMemory, Timing, TrustedSet } from "#core/trust/refresh.ts";

/** The part of `/status` that concerns the time and the expiry of metadata. Times are in ISO 8601. */
export interface TimeStatus {
  /** What expiry was judged by at the last look. */
  readonly now: string | null;
  /** Signed statements say that it cannot be before. */
  readonly floor: string | null;
  /** Why the node's clock is suspected; null when it is plausible, or nothing is known yet. */
  readonly clockSuspect: ClockReason | null;
  /** When the metadata of each role expires, as it was last verified. */
  readonly expires: Readonly<Record<string, string>>;
  /** Roles whose metadata has expired, beyond the allowance for skew: nothing new is adopted, what runs goes on. */
  readonly expired: readonly string[];
}

export interface TrustTime {
  /** For one look at the repository. */
  timing(): Timing;
  /** Tells what a look has shown. @param set what it led to; undefined when it failed */
  looked(set: TrustedSet | undefined): void;
  /** Whole milliseconds since the epoch, as far as they can be trusted now. */
  readonly now: () => number;
  status(): TimeStatus;
}

interface TimeDeps {
  readonly settings: { readonly clockSkew: ClockSkew };
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: SidecarMetrics;
}

const REASONS = Object.keys(CLOCK_REASONS) as ClockReason[];

export function openTrustTime({ settings, clock, log, metrics }: TimeDeps): TrustTime {
  const skew = settings.clockSkew;
  const memory: TimeMemory = { expiries: new Map() };
  let told: ClockReason | null = null;
  return {
    timing: () => ({ skew, monotonic: clock.monotonic(), memory }),
    looked(set) {
      const { judged, expiries } = memory;
      // Roles that the repository does not have any more are of no concern; after a failure what was known before still is.
      if (set !== undefined)
        for (const role of expiries.keys())
          if (!set.expiries().has(role) && !set.snapshot.meta.has(`${role}.json`))
            expiries.delete(role);
      metrics.clear("edgesync_sidecar_metadata_expiry_timestamp_seconds");
      for (const [role, expires] of expiries)
        metrics.set("edgesync_sidecar_metadata_expiry_timestamp_seconds", { role }, expires / 1000);
      if (judged === undefined) return;
      const { floor, suspect, now, wall } = judged;
      for (const reason of REASONS)
        metrics.set("edgesync_sidecar_clock_suspect", { reason }, Number(suspect === reason));
      metrics.clear("edgesync_sidecar_time_floor_timestamp_seconds");
      if (floor !== undefined)
        metrics.set("edgesync_sidecar_time_floor_timestamp_seconds", {}, floor / 1000);
      if (suspect === told) return;
      told = suspect;
      if (suspect === null) log.info({}, "the clock is plausible again");
      else
        log.warn(
          { reason: suspect, detail: `the clock says ${isoOf(wall)}, taken is ${isoOf(now)}` },
          "the clock is suspected",
        );
    },
    now: () => Math.floor(judgeTime(clock.now(), memory.anchor, clock.monotonic(), skew).now),
    status() {
      const { judged, expiries } = memory;
      const expired = (role: string, expires: number): boolean =>
        judged !== undefined && judged.now >= expires + skew[kindOf(role)];
      return {
        now: judged === undefined ? null : isoOf(judged.now),
        floor: judged?.floor === undefined ? null : isoOf(judged.floor),
        clockSuspect: judged?.suspect ?? null,
        expires: Object.fromEntries(expiries.entries().map(([role, ms]) => [role, isoOf(ms)])),
        expired: [...expiries.entries()]
          .filter(([role, expires]) => expired(role, expires))
          .map(([role]) => role),
      };
    },
  };
}

function kindOf(role: string): keyof ClockSkew {
  return role === "root" || role === "timestamp" || role === "snapshot" ? role : "targets";
}

function isoOf(ms: number): string {
  return new Date(ms).toISOString();
}
