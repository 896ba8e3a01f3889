/** Waiting until a time or a call. */
import type { Clock } from "#core/clock.ts";

export interface Alarm {
  /** Ends the wait that is on, or the next one at once. */
  ring(): void;
  /** Resolves at `at`, monotonic milliseconds, or when rung. */
  until(at: number, signal: AbortSignal): Promise<void>;
}

export function openAlarm(clock: Clock): Alarm {
  const bell = { isRung: false };
  let waiting: AbortController | undefined;
  return {
    ring() {
      bell.isRung = true;
      waiting?.abort();
    },
    async until(at, signal) {
      // One listener, taken off at the end: an agent waits for months on one signal.
      const stop = (): void => waiting?.abort();
      signal.addEventListener("abort", stop);
      try {
        for (
          let left = at - clock.monotonic();
          left > 0 && !bell.isRung;
          left = at - clock.monotonic()
        ) {
          signal.throwIfAborted();
          waiting = new AbortController();
          await clock.sleep(left, waiting.signal).catch(() => {
            // Rung, or aborted: both are looked at above and below.
          });
        }
        signal.throwIfAborted();
      } finally {
        signal.removeEventListener("abort", stop);
        waiting = undefined;
        bell.isRung = false;
      }
    },
  };
}
