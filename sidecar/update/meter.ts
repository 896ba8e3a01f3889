/** What comes over the network is counted, and what comes of releases is slowed down to the rate that is allowed. */
import type { Clock } from "#core/clock.ts";
import { FULL, take } from "#core/rate.ts";
import type { SidecarMetrics } from "#core/telemetry.ts";
import type { UsageBook } from "./usage.ts";

export interface Meter {
  /** Of everything that fetches: each byte is counted for the day where it is counted at all. */
  readonly metrics: SidecarMetrics;
  /** After bytes of a download have come: returns when more may. */
  readonly pass: (kind: string, bytes: number, signal: AbortSignal) => Promise<void>;
}

export interface MeterDeps {
  readonly clock: Clock;
  readonly metrics: SidecarMetrics;
  readonly usage: UsageBook;
  /** Bytes a second; undefined for as many as come. */
  readonly rate: number | undefined;
  /** Told when bytes have come. */
  readonly counted: () => void;
}

export function openMeter({ clock, metrics, usage, rate, counted }: MeterDeps): Meter {
  let bucket = FULL;
  return {
    metrics: {
      ...metrics,
      add(name, labels, value) {
        metrics.add(name, labels, value);
        if (name === "edgesync_sidecar_download_bytes_total") usage.count(value ?? 1);
      },
    },
    async pass(kind, bytes, signal) {
      await usage.save();
      counted();
      if (rate === undefined || kind === "metadata") return;
      const [after, waitMs] = take(bucket, bytes, clock.monotonic(), rate);
      bucket = after;
      // Each wait is a timer, and one of a few milliseconds says little.
      if (waitMs > 0) await clock.sleep(waitMs, signal);
    },
  };
}
