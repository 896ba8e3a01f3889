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
