/** Time as an argument, so that tests own it. */
export interface Clock {
  /** Milliseconds since the Unix epoch; may jump when the node's clock is set. */
  now(): number;
  /** Milliseconds from an arbitrary start; never jumps. */
  monotonic(): number;
  /** Resolves after `ms` of monotonic time; rejects with `signal.reason` if aborted first. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
}
