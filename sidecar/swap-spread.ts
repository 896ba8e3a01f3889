/**
 * Replicas of one site that share no volume cannot tell each other whose turn it is. With `swap-spread` each waits for a share of it that
 * follows from the name of its pod, so that they seldom swap together.
 */
import type { Clock } from "#core/clock.ts";
import { siteNumber } from "#core/rollout.ts";
import type { Settings } from "#core/settings.ts";
import type { Replica } from "./replica.ts";

/** Milliseconds; who has not asked for so long asks for another release. */
const FORGOTTEN_MS = 600_000;

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

export function spreadReplica(settings: Settings, clock: Clock): Replica {
  const waitMs = spreadMs(settings);
  /** Monotonic milliseconds of the first and the last time that it was asked for. */
  let asked: { readonly first: number; readonly last: number } | undefined;
  return {
    async take() {
      const now = clock.monotonic();
      const before = asked !== undefined && now - asked.last < FORGOTTEN_MS ? asked : undefined;
      asked = { first: before?.first ?? now, last: now };
      return now - asked.first >= waitMs ? null : "replica";
    },
    async release() {
      asked = undefined;
    },
  };
}
