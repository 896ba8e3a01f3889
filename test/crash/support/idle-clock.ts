/** Time for a site whose disk and repository are in memory: hours pass as soon as nothing happens, and not before. */
import { setImmediate as turn, setTimeout as delay } from "node:timers/promises";
import type { Clock } from "#core/clock.ts";

/** Milliseconds. Shorter sleeps belong to a step, longer ones are pauses between two. */
const LONG_MS = 1_000;
/** Real milliseconds without any activity, after which a pause is over. Something may be under way in a thread. */
const QUIET_MS = 2;

/** @param activity grows with whatever the site does */
export function idleClock(activity: () => number): Clock {
  const start = Date.now();
  let passed = 0;
  return {
    now: () => start + passed,
    monotonic: () => passed,
    async sleep(ms, signal) {
      const end = passed + ms;
      if (ms < LONG_MS) await turn();
      else
        for (let before = -1; before !== activity();) {
          before = activity();
          await delay(QUIET_MS);
          signal.throwIfAborted();
        }
      signal.throwIfAborted();
      passed = Math.max(passed, end);
    },
  };
}
