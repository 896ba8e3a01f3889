import type { Clock } from "#core/clock.ts";

/** A clock that moves only when told: sleepers wake in the order of their times. */
export interface ManualClock extends Clock {
  /** Moves time on by `ms`, waking each sleeper at its own time and letting it run before the next. */
  advance(ms: number): Promise<void>;
  /** Sets the wall clock without waking anybody, as a clock correction does. */
  setWall(now: number): void;
}

export function manualClock(start: number = Date.parse("2026-11-22T00:00:00Z")): ManualClock {
  let wall = start;
  let elapsed = 0;
  let sleepers: { at: number; wake: () => void }[] = [];
  const settle = async (): Promise<void> => {
    // Several turns: a woken sleeper may await some promises before it sleeps again.
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
  };
  return {
    now: () => wall,
    monotonic: () => elapsed,
    sleep(ms, signal) {
      return new Promise((resolve, reject) => {
        const abort = (): void => {
          sleepers = sleepers.filter((other) => other !== sleeper);
          reject(signal.reason as Error);
        };
        const sleeper = {
          at: elapsed + Math.max(0, ms),
          wake() {
            signal.removeEventListener("abort", abort);
            resolve();
          },
        };
        if (signal.aborted) return reject(signal.reason as Error);
        signal.addEventListener("abort", abort, { once: true });
        sleepers.push(sleeper);
      });
    },
    async advance(ms) {
      const end = elapsed + ms;
      await settle();
      for (;;) {
        const next = sleepers.filter((s) => s.at <= end).toSorted((a, b) => a.at - b.at)[0];
        if (next === undefined) break;
        sleepers = sleepers.filter((other) => other !== next);
        wall += next.at - elapsed;
        elapsed = next.at;
        next.wake();
        await settle();
      }
      wall += end - elapsed;
      elapsed = end;
    },
    setWall(now) {
      wall = now;
    },
  };
}
