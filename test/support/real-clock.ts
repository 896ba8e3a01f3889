import { setTimeout as delay } from "node:timers/promises";
import { sleepBy } from "#core/clock.ts";
import type { Clock } from "#core/clock.ts";

/** The machine's own time, for tests against servers that have no other. */
export const realClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep: sleepBy(delay),
};
