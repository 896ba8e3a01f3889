/** Milliseconds. */
const FIRST_MS = 1_000;
const CAP_MS = 300_000;

/**
 * Pause before attempt `attempt` (0 is the first retry), in milliseconds: full jitter, after the AWS Architecture Blog's
 * "Exponential Backoff and Jitter".
 *
 * @param random a number in [0,1)
 */
export function backoffMs(attempt: number, random: () => number, capMs: number = CAP_MS): number {
  // Above 2^30 the shift is past any cap; the bound keeps the power finite.
  return random() * Math.min(capMs, FIRST_MS * 2 ** Math.min(attempt, 30));
}

/** Milliseconds: an answer that asks for more is a mistake that must not cost a credential. */
const RETRY_AFTER_LIMIT_MS = 600_000;

/**
 * Pause for which a server asks with Retry-After, in milliseconds, and at random up to as much again, within five minutes: a server in
 * maintenance tells a whole fleet the same time, and must not be asked by all of it in that second. What ends in `leftMs` does not wait
 * longer than half of what is then left.
 *
 * @param random a number in [0,1)
 */
export function retryAfterPauseMs(
  askedMs: number,
  leftMs: number | undefined,
  random: number,
): number {
  const ms = Math.min(Math.max(0, askedMs), RETRY_AFTER_LIMIT_MS);
  return (
    ms + random * inTimeMs(Math.min(ms, CAP_MS), leftMs === undefined ? undefined : leftMs - ms)
  );
}

/** Milliseconds that the longest pause has at least, however little is left. */
const LEAST_CAP_MS = 30_000;

/**
 * A pause in milliseconds, made shorter for what ends in `leftMs`: at random up to half of what is left, so that another try is still in
 * time. What has ended already, or has no end, waits as all the others do.
 *
 * @param random a number in [0,1)
 */
export function urgentPauseMs(pauseMs: number, leftMs: number | undefined, random: number): number {
  if (leftMs === undefined || leftMs <= 0) return pauseMs;
  return Math.min(pauseMs, random * Math.max(LEAST_CAP_MS, leftMs / 2));
}

/** A spread in milliseconds, but no more than half of what is left of what has not yet ended. */
export function inTimeMs(spreadMs: number, leftMs: number | undefined): number {
  return leftMs === undefined || leftMs <= 0 ? spreadMs : Math.min(spreadMs, leftMs / 2);
}
