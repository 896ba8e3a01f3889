/**
 * What becomes of a release after it was swapped in: it is given to the application, and that goes on beside other steps where they do not
 * wait for it, as in a rollback that the application does not take.
 */
import type { Workload } from "../application/workload.ts";
import type { Pause } from "./pause.ts";

export interface Delivery {
  /** Begins to give the application a bank, the one that `current` names; goes on where that is under way, or is done. */
  begin(bank: string, signal: AbortSignal): void;
  /** Whether the application has it. @throws what has ended it before, once */
  done(): boolean;
  /** Resolves when it has. Rejects with the signal's reason, after which it goes on all the same, or with what has ended it. */
  wait(signal: AbortSignal): Promise<void>;
  /** The same, for a time, and not longer than nobody has asked to go on. @returns whether the application has it */
  waitFor(ms: number, signal: AbortSignal): Promise<boolean>;
  /** What `current` names now: whatever else is being given to the application is given up. Without one, all is. */
  leave(bank?: string): Promise<void>;
  /** The starts of the application when it had it. */
  starts(): number;
}

interface Task {
  readonly bank: string;
  readonly over: AbortController;
  /** Never rejects. */
  readonly ended: Promise<void>;
  state: "under way" | "done" | { readonly error: unknown };
  starts: number;
}

export function openDelivery(workload: Workload, pause: Pause): Delivery {
  let task: Task | undefined;
  let waiting = 0;

  async function carryOut(started: Task, signal: AbortSignal): Promise<void> {
    try {
      signal.throwIfAborted();
      await workload.restart(signal);
      started.state = "done";
      started.starts = workload.starts();
    } catch (error) {
      started.state = { error };
    }
    // Nobody may look for long.
    if (waiting === 0 && !signal.aborted) pause.end();
  }

  function done(): boolean {
    if (task === undefined || task.state === "under way") return false;
    if (task.state === "done") return true;
    const { error } = task.state;
    task = undefined;
    throw error;
  }

  async function wait(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { promise, reject } = Promise.withResolvers<never>();
    const abort = (): void => reject(signal.reason as Error);
    signal.addEventListener("abort", abort, { once: true });
    waiting += 1;
    try {
      await Promise.race([task?.ended, promise]);
    } finally {
      waiting -= 1;
      signal.removeEventListener("abort", abort);
    }
    done();
  }

  return {
    begin(bank, signal) {
      if (task?.bank === bank) return;
      const over = new AbortController();
      const { promise, resolve } = Promise.withResolvers<void>();
      const started: Task = { bank, over, ended: promise, state: "under way", starts: 0 };
      task = started;
      void carryOut(started, AbortSignal.any([signal, over.signal])).then(resolve);
    },
    done,
    wait,
    async waitFor(ms, signal) {
      const late = new AbortController();
      const bounded = AbortSignal.any([signal, late.signal]);
      const reason = new Error("no longer waited for");
      const limit = pause.wait(ms, bounded).then(
        () => late.abort(reason),
        () => undefined,
      );
      try {
        await wait(bounded);
      } catch (error) {
        signal.throwIfAborted();
        if (error !== reason) throw error;
      } finally {
        late.abort(reason);
        await limit;
      }
      return done();
    },
    async leave(bank) {
      if (task === undefined || task.bank === bank) return;
      const { over, ended } = task;
      task = undefined;
      over.abort(new Error("the application gets another release"));
      await ended;
    },
    starts: () => task?.starts ?? workload.starts(),
  };
}
