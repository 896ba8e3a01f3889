import type { Clock } from "#core/clock.ts";

/** Whether a task ended in time; if not, it was aborted. */
export async function within(
  clock: Clock,
  ms: number,
  signal: AbortSignal,
  task: (signal: AbortSignal) => Promise<void>,
): Promise<boolean> {
  const over = new AbortController();
  const bounded = AbortSignal.any([signal, over.signal]);
  const ended = task(bounded).then(() => true);
  const late = clock.sleep(ms, bounded).then(() => false);
  try {
    return await Promise.race([ended, late]);
  } finally {
    over.abort(new Error("the time is over"));
    await Promise.allSettled([ended, late]);
  }
}
