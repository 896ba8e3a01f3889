/** Waits that end: by what they wait for, by their limit of time, or by the end of the run. */
import { setTimeout as delay } from "node:timers/promises";

export interface Waits {
  /**
   * Asks again and again until there is an answer that is not `undefined`. An error counts as none.
   *
   * @param seconds before the factor for slow machines
   * @param what is waited for, for the message
   * @throws Error with what was seen last
   */
  until<T>(what: string, seconds: number, ask: (seen: Seen) => Promise<T | undefined>): Promise<T>;
  /** Between two things that have a rhythm; nothing is waited for by it. */
  pause(ms: number): Promise<void>;
  /** Aborts when the run is over. */
  readonly signal: AbortSignal;
}

/** Notes what was seen, for the message should the time run out. */
export type Seen = (what: string) => void;

const PERIOD_MS = 500;

export function openWaits(factor: number, signal: AbortSignal): Waits {
  const pause = async (ms: number): Promise<void> => {
    signal.throwIfAborted();
    await delay(ms, undefined, { signal }).catch(() => signal.throwIfAborted());
  };
  return {
    signal,
    pause,
    async until(what, seconds, ask) {
      const limit = seconds * factor;
      const deadline = performance.now() + limit * 1_000;
      let seen = "";
      for (;;) {
        signal.throwIfAborted();
        try {
          const answer = await ask((note) => (seen = note));
          if (answer !== undefined) return answer;
        } catch (error) {
          if (error instanceof Hopeless) throw error;
          seen = error instanceof Error ? error.message : String(error);
        }
        if (performance.now() >= deadline)
          throw new Error(`not within ${limit} s: ${what}${seen === "" ? "" : `; last: ${seen}`}`);
        await pause(PERIOD_MS);
      }
    },
  };
}

/** Thrown while waiting for what cannot come any more. */
export class Hopeless extends Error {
  override readonly name = "Hopeless";
}
