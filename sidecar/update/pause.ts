/** The waits of an agent between two looks, which a command from outside may cut short. */
import type { Clock } from "#core/clock.ts";

export interface Pause {
  /** Waits, but not when somebody has asked to go on since {@link Pause.begin}. Rejects with the signal's reason. */
  wait(ms: number, signal: AbortSignal): Promise<void>;
  /** Work that may be done meanwhile; what is left of the time is waited. */
  fill(ms: number, work: Work, signal: AbortSignal): Promise<void>;
  /** Whether somebody has asked to go on. */
  isOver(): boolean;
  /** What was asked for is being done. */
  begin(): void;
  /** Asks to go on. */
  readonly end: () => void;
}

export type Work = (forMs: number, signal: AbortSignal) => Promise<void>;

export function openPause(clock: Pick<Clock, "monotonic" | "sleep">): Pause {
  let over = new AbortController();
  const reason = new Error("the pause is over");

  /** Whatever is under way ends with the pause; only an abort from outside is passed on. */
  async function until(task: (bounded: AbortSignal) => Promise<void>, signal: AbortSignal) {
    signal.throwIfAborted();
    if (over.signal.aborted) return;
    try {
      await task(AbortSignal.any([signal, over.signal]));
    } catch (error) {
      signal.throwIfAborted();
      if (error !== reason) throw error;
    }
  }

  const wait: Pause["wait"] = (ms, signal) => until((bounded) => clock.sleep(ms, bounded), signal);
  return {
    wait,
    async fill(ms, work, signal) {
      const end = clock.monotonic() + ms;
      await until((bounded) => work(ms, bounded), signal);
      await wait(Math.max(0, end - clock.monotonic()), signal);
    },
    isOver: () => over.signal.aborted,
    begin() {
      if (over.signal.aborted) over = new AbortController();
    },
    end: () => over.abort(reason),
  };
}
