import { setTimeout as delay } from "node:timers/promises";
import type { Clock } from "#core/clock.ts";

/** The machine's own time, for tests against servers that have no other. */
export const realClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  async sleep(ms, signal) {
    try {
      await delay(Math.max(0, ms), undefined, { signal });
    } catch {
      // Node wraps the reason; the contract is the reason itself.
      signal.throwIfAborted();
    }
  },
};
