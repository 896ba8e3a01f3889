/** Time for a site whose disk and repository are in memory: hours pass as soon as nothing happens, and not before. */
import { setImmediate as turn, setTimeout as delay } from "node:timers/promises";
import type { Clock } from "#core/clock.ts";

/** Milliseconds. Shorter sleeps belong to a step, longer ones are pauses between two. */
const LONG_MS = 1_000;
/** Real milliseconds without any activity, after which a pause is over. Something may be under way in a thread. */
const QUIET_MS = 2;
/** Rounds of the event loop in which nothing must have happened either. */
const TURNS = 8;

/** @param activity grows with whatever the site does */
export function idleClock(activity: () => number): Clock {
  const start = Date.now();
  let passed = 0;
  /** Short sleeps so far: while a step goes on no pause beside it ends. */
  let short = 0;
  const busy = (): number => activity() + short;
  return {
    now: () => start + passed,
    monotonic: () => passed,
    async sleep(ms, signal) {
      const end = passed + ms;
      if (ms < LONG_MS) {
        short += 1;
        await turn();
      } else
        for (let before = -1; before !== busy();) {
          before = busy();
          // One that is given up ends at once: who waits for that is busy.
          await delay(QUIET_MS, undefined, { signal }).catch(() => undefined);
          signal.throwIfAborted();
          // The process may have stood still for as long, and not what goes on in it.
          for (let turns = 0; turns < TURNS; turns++) await turn();
          signal.throwIfAborted();
        }
      signal.throwIfAborted();
      passed = Math.max(passed, end);
    },
  };
}
