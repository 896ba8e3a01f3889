/**
 * How many bytes a day a site may fetch. Days are those of UTC, by trusted time, and only grow: a clock that is put back does not give a
 * second budget. One that was ahead must not take it away for as long, so a day is over at the latest when as much time has passed.
 *
 * What is saved runs ahead of what is spent, so that a crash never gives anything back and not every byte costs a write to flash.
 */

export interface Usage {
  /** Days since the epoch. */
  readonly day: number;
  readonly bytes: number;
}

export const NO_USAGE: Usage = { day: 0, bytes: 0 };

export const DAY_MS = 86_400_000;

/**
 * What has been spent of the day that it is now.
 *
 * @param now milliseconds since the epoch, by trusted time
 * @param ranMs monotonic milliseconds since this process has seen the day of `usage` begin
 */
export function usageAt(usage: Usage, now: number, ranMs: number): Usage {
  const day = Math.floor(now / DAY_MS);
  if (day > usage.day) return { day, bytes: 0 };
  return ranMs >= DAY_MS ? { day: usage.day + 1, bytes: 0 } : usage;
}

/** When the next day begins, at the latest: milliseconds since the epoch. */
export function dayEnd({ day }: Usage, now: number, ranMs: number): number {
  return Math.min(Math.max(now, (day + 1) * DAY_MS), now + DAY_MS - ranMs);
}

const LEAST_STEP = 64 * 1024;
const MOST_STEP = 4 * 1024 * 1024;

/** What is to be saved for what has been spent: up to a sixty-fourth of the budget more, which is what a crash may cost of it. */
export function savedFor({ day, bytes }: Usage, budget: number): Usage {
  const step = Math.min(MOST_STEP, Math.max(LEAST_STEP, Math.floor(budget / 64)));
  return { day, bytes: Math.max(bytes, Math.min(budget, bytes + step)) };
}
