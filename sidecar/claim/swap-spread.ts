/**
 * Replicas of one site that share no volume cannot tell each other whose turn it is. With `swap-spread` each waits for a share of it that
 * follows from the name of its pod, so that they seldom swap together.
 */
import type { Clock } from "#core/clock.ts";
import { siteNumber } from "#core/rollout.ts";
import type { Settings } from "#core/settings.ts";
import type { Replica } from "./replica.ts";

/** Milliseconds; where nobody has asked for so long, something else stood in the way. */
const GAP_MS = 600_000;

/** The share of `swap-spread` that a pod waits, in milliseconds; always the same for the same pod and channel. */
export function spreadMs({
  swapSpread,
  podName,
  podUid,
  channel,
}: Pick<Settings, "swapSpread" | "podName" | "podUid" | "channel">): number {
  const site = podName ?? podUid ?? "";
  const { app = "", channel: name = "" } = channel ?? {};
  return Math.floor(swapSpread * siteNumber({ site, app, channel: name, salt: "swap-spread" }));
}

/**
 * Counted for each release over the times in which nothing else of the site stands in its way: what is left of a share when a window
 * closes is waited for in the next one, and what is over is not waited for again where the application wants the release later.
 */
export function spreadReplica(settings: Settings, clock: Clock): Replica {
  const waitMs = spreadMs(settings);
  let release: string | undefined;
  let waitedMs = 0;
  /** Monotonic milliseconds. */
  let askedAt: number | undefined;
  return {
    want({ sequence, version }) {
      const wanted = `${sequence} ${version}`;
      if (wanted === release) return;
      release = wanted;
      waitedMs = 0;
      askedAt = undefined;
    },
    async take() {
      const now = clock.monotonic();
      const sinceMs = now - (askedAt ?? now);
      if (sinceMs < GAP_MS) waitedMs += sinceMs;
      askedAt = now;
      return waitedMs >= waitMs ? null : "replica";
    },
    // There is no turn that others wait for.
    release: () => Promise.resolve(),
  };
}
