/**
 * A clock for many agents of real code in one process: it stands still while any of them works, files included, and then jumps to the next
 * time that somebody waits for. So a day is over in minutes, and a busy machine changes nothing in what is measured.
 */
import process from "node:process";
import { setImmediate as turn } from "node:timers/promises";
import type { Clock } from "#core/clock.ts";

export interface VirtualClock extends Clock {
  /** Lets time pass up to `at`, monotonic milliseconds. */
  passTo(at: number): Promise<void>;
}

interface Sleeper {
  readonly at: number;
  readonly wake: () => void;
  isGone: boolean;
}

/** What is always there, or waits for a time that is not this clock's. */
const RESTING = new Set(["Immediate", "Timeout", "TTYWrap", "PipeWrap", "FileWrap", "SignalWrap"]);
/** Turns of the event loop in a row in which nothing was under way. */
const QUIET_TURNS = 3;

export function virtualClock(epoch: number): VirtualClock {
  let elapsed = 0;
  const sleepers = openQueue();
  return {
    now: () => epoch + elapsed,
    monotonic: () => elapsed,
    sleep(ms, signal) {
      return new Promise((resolve, reject) => {
        if (signal.aborted) return reject(signal.reason as Error);
        const abort = (): void => {
          sleeper.isGone = true;
          reject(signal.reason as Error);
        };
        const wake = (): void => {
          signal.removeEventListener("abort", abort);
          resolve();
        };
        const sleeper: Sleeper = { at: elapsed + Math.max(0, ms), wake, isGone: false };
        signal.addEventListener("abort", abort, { once: true });
        if (sleeper.at < Number.POSITIVE_INFINITY) sleepers.add(sleeper);
      });
    },
    async passTo(at) {
      await quiet();
      for (let next = sleepers.first(); next !== undefined && next.at <= at;) {
        elapsed = Math.max(elapsed, next.at);
        for (; next !== undefined && next.at <= elapsed; next = sleepers.first()) {
          sleepers.drop();
          next.wake();
        }
        await quiet();
        next = sleepers.first();
      }
      elapsed = at;
    },
  };
}

/** Until nobody works: a file that is read or written is seen among the resources of the process. */
async function quiet(): Promise<void> {
  for (let turns = 0; turns < QUIET_TURNS;) {
    await turn();
    const isBusy = process.getActiveResourcesInfo().some((name) => !RESTING.has(name));
    turns = isBusy ? 0 : turns + 1;
  }
}

/** A binary heap. */
function openQueue() {
  const heap: Sleeper[] = [];
  const at = (index: number): number => heap[index]?.at ?? Number.POSITIVE_INFINITY;
  const swap = (a: number, b: number): void => {
    const [one, other] = [heap[a], heap[b]];
    if (one === undefined || other === undefined) return;
    heap[a] = other;
    heap[b] = one;
  };
  const drop = (): void => {
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    heap[0] = last;
    for (let index = 0; ;) {
      const left = 2 * index + 1;
      const least = at(left + 1) < at(left) ? left + 1 : left;
      if (at(least) >= at(index)) return;
      swap(index, least);
      index = least;
    }
  };
  return {
    add(sleeper: Sleeper): void {
      heap.push(sleeper);
      for (let index = heap.length - 1; index > 0;) {
        const parent = (index - 1) >> 1;
        if (at(parent) <= at(index)) return;
        swap(index, parent);
        index = parent;
      }
    },
    drop,
    first(): Sleeper | undefined {
      while (heap[0]?.isGone === true) drop();
      return heap[0];
    },
  };
}
