import type { Clock } from "#core/clock.ts";

/** Milliseconds between two looks at time that does not count. */
const EXTRA_PERIOD_MS = 1_000;

/**
 * Whether a task ended in time; if not, it was aborted.
 *
 * @param extraMs that the task may take besides; it may grow meanwhile
 */
export async function within(
  clock: Clock,
  ms: number,
  signal: AbortSignal,
  task: (signal: AbortSignal) => Promise<void>,
  extraMs: () => number = () => 0,
): Promise<boolean> {
  const over = new AbortController();
  const bounded = AbortSignal.any([signal, over.signal]);
  const begun = clock.monotonic();
  const lateness = async (): Promise<false> => {
    for (let left = ms; left > 0;) {
      await clock.sleep(left, bounded);
      const extra = extraMs();
      left = begun + ms + extra - clock.monotonic();
      if (left > 0 && extra > 0) left = Math.max(left, EXTRA_PERIOD_MS);
    }
    return false;
  };
  const ended = task(bounded).then(() => true);
  const late = lateness();
  try {
    return await Promise.race([ended, late]);
  } finally {
    over.abort(new Error("the time is over"));
    await Promise.allSettled([ended, late]);
  }
}
