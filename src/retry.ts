/** When something that failed is tried again, so that a site neither gives up nor costs its owner a fortune. */
import { backoffMs } from "./backoff.ts";
import type { ErrorCode } from "./errors.ts";

/**
 * - `soon`: it may pass at any moment, and to try costs next to nothing: full jitter, at most five minutes and at most one look.
 * - `later`: at the next look at the channel.
 * - `rarely`: to try costs the bytes of a release, and only another release or a repaired server helps: from a minute, doubling to
 *   a day. Anything new in the channel is tried at once.
 */
export type Retry = "soon" | "later" | "rarely";

const SOON: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "ORIGIN_UNAVAILABLE",
  "AGENT_RUNNING",
  "DISK_FULL",
  "DISK_FAILED",
  "INTERNAL",
]);
const RARELY: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "DIGEST_MISMATCH",
  "RESPONSE_TOO_LARGE",
  "DELTA_INVALID",
  "RELEASE_INVALID",
  // A file that the repository does not have, or does not give in a way that can be used.
  "ORIGIN_REFUSED",
]);

/** @param building whether the error came up while a release was fetched and built */
export function retryOf(code: ErrorCode, building: boolean): Retry {
  if (SOON.has(code)) return "soon";
  return building && RARELY.has(code) ? "rarely" : "later";
}

/** Milliseconds. */
const SOON_CAP_MS = 300_000;
const RARELY_FIRST_MS = 60_000;
const RARELY_CAP_MS = 86_400_000;

/** Milliseconds until the next look. @param failures how many looks in a row have failed, this one included */
export function pauseMs(
  retry: Retry,
  failures: number,
  pollIntervalMs: number,
  random: () => number,
): number {
  if (retry === "soon")
    return backoffMs(Math.max(0, failures - 1), random, Math.min(SOON_CAP_MS, pollIntervalMs));
  return jitterMs(pollIntervalMs, random);
}

/**
 * Milliseconds until the next look when this one went well.
 *
 * @param bunched whether other sites may have looked at the same time, because power or the repository came back: the next look is then
 * at any time in the interval, or they would come together for the rest of the day
 */
export function pollMs(intervalMs: number, bunched: boolean, random: () => number): number {
  return bunched ? random() * intervalMs : jitterMs(intervalMs, random);
}

/** An interval moved by up to a tenth either way, so that sites do not come to look at the same time. */
export function jitterMs(intervalMs: number, random: () => number): number {
  return intervalMs * (0.9 + 0.2 * random());
}

/** Milliseconds. */
const SPACING_FIRST_MS = 900_000;

/** Milliseconds for which a release is left alone that `tries` times in a row did not reach the application: a trial of it costs a swap. */
export function spacingMs(tries: number, random: () => number): number {
  const ms = SPACING_FIRST_MS * 2 ** Math.min(tries - 1, 20);
  return jitterMs(Math.min(RARELY_CAP_MS, ms), random);
}

/** Milliseconds for which a release that failed `failures` times in a row is left alone. */
export function restMs(failures: number, random: () => number): number {
  const ms = RARELY_FIRST_MS * 2 ** Math.min(failures - 1, 20);
  return jitterMs(Math.min(RARELY_CAP_MS, ms), random);
}
