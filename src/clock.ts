/** Time as an argument, so that tests own it. */
export interface Clock {
  /** Milliseconds since the Unix epoch; may jump when the node's clock is set. */
  now(): number;
  /** Milliseconds from an arbitrary start; never jumps. */
  monotonic(): number;
  /** Resolves after `ms` of monotonic time; rejects with `signal.reason` if aborted first. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
}

/** `setTimeout` of node:timers/promises, which rejects with an error of its own when it is aborted. */
export type Timer = (
  ms: number,
  value: undefined,
  options: { readonly signal: AbortSignal },
) => Promise<unknown>;

/** Milliseconds. Set for longer, a timer of Node's ends at once. */
export const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** Sleeps for as long as is wanted, with as many timers as that takes. */
export function sleepBy(timer: Timer): Clock["sleep"] {
  return async (ms, signal) => {
    try {
      let left = Math.max(0, ms);
      do {
        await timer(Math.min(left, LONGEST_TIMER_MS), undefined, { signal });
        left -= LONGEST_TIMER_MS;
      } while (left > 0);
    } catch {
      // Node wraps the reason of an abort, and there is no other way to get here.
      throw signal.reason;
    }
  };
}
