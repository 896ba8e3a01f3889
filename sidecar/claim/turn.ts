/** The turn that the payloads of a pod take in swapping; see `src/turn.ts`. */
import type { Clock } from "#core/clock.ts";
import { ask, follow, initialTurns } from "#core/turn.ts";

/** One payload's part in it. */
export interface Turn {
  /** The journal has been read, or saved; it says whether a swap is under way. Without one the turn is given back. */
  follow(swapping: boolean): void;
  /** Whether the payload may swap now. To be asked again every second or so until it may, or the place in the queue is lost. */
  ask(): boolean;
}

/** With one payload there is nobody to wait for. */
export const ALONE: Turn = {
  follow: () => undefined,
  ask: () => true,
};

/**
 * @param limitMs after which a payload loses the turn
 * @returns the turn of each payload by its name
 */
export function openTurns(
  names: readonly string[],
  limitMs: number,
  clock: Clock,
): (name: string) => Turn {
  if (names.length < 2) return () => ALONE;
  let turns = initialTurns(names, clock.monotonic(), limitMs);
  return (name) => ({
    follow(swapping) {
      turns = follow(turns, name, swapping, clock.monotonic());
    },
    ask() {
      const [after, mine] = ask(turns, name, clock.monotonic());
      turns = after;
      return mine;
    },
  });
}
