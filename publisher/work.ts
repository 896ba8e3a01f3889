/** How much is done at a time, and telling how far it is. */
import { availableParallelism, totalmem } from "node:os";
import type { Run } from "#core/delta/encode.ts";
import { openLanes } from "#core/lanes.ts";

/** Bytes that one compression takes at most. */
const SLOT_BYTES = 160 * 1024 * 1024;

/** As many pieces of work at a time as there are processors, as far as half of the memory goes. */
export function slots(): number {
  return Math.max(1, Math.min(availableParallelism(), Math.floor(totalmem() / 2 / SLOT_BYTES)));
}

export function openSlots(): Run {
  return openLanes(slots());
}

/**
 * The size of Node's pool of threads, on which compression runs: one for each slot, and some that go on reading and writing files
 * meanwhile.
 */
export function poolSize(): number {
  return Math.min(1024, slots() + 4);
}

/** Like map with everything at once, but with at most `width` at a time. */
export async function mapWide<T, U>(
  items: readonly T[],
  width: number,
  work: (item: T) => Promise<U>,
): Promise<readonly U[]> {
  const results: U[] = [];
  let next = 0;
  let failed = false;
  async function take(): Promise<void> {
    while (next < items.length && !failed) {
      const index = next++;
      const item = items[index];
      if (item === undefined) continue;
      try {
        results[index] = await work(item);
      } catch (error) {
        // The others end with what they are at.
        failed = true;
        throw error;
      }
    }
  }
  const ended = await Promise.allSettled(Array.from({ length: width }, take));
  for (const item of ended) if (item.status === "rejected") throw item.reason;
  return results;
}

export interface Progress {
  /** Another kind of work begins, such as `compressing`. */
  begin(what: string): void;
  /** Work that has been found: bytes that will be read. */
  expect(bytes: number): void;
  /** Bytes of it that are done, and what is being done now. */
  advance(bytes: number, label: string): void;
  /** Clears what was shown. */
  end(): void;
}

export const silent: Progress = {
  begin: () => undefined,
  expect: () => undefined,
  advance: () => undefined,
  end: () => undefined,
};

/** Milliseconds over which the rate is taken. */
const RATE_MS = 20_000;

interface Meter extends Omit<Progress, "end"> {
  /** In words, without what is being done now. */
  text(): string;
  label(): string;
}

/** @param monotonic milliseconds */
function openMeter(monotonic: () => number): Meter {
  let what = "";
  let total = 0;
  let done = 0;
  let label = "";
  /** Some of the last moments, with what was done by then. */
  let marks: { readonly at: number; readonly done: number }[] = [];
  return {
    begin(next) {
      what = next;
      total = 0;
      done = 0;
      marks = [{ at: monotonic(), done: 0 }];
    },
    expect(bytes) {
      total += bytes;
    },
    advance(bytes, now) {
      done += bytes;
      label = now;
      const at = monotonic();
      const last = marks.at(-1);
      if (last !== undefined && at - last.at < 500) return;
      marks.push({ at, done });
      while (marks.length > 2 && at - (marks[0]?.at ?? at) > RATE_MS) marks.shift();
    },
    label: () => label,
    text() {
      const first = marks[0] ?? { at: monotonic(), done: 0 };
      const seconds = (monotonic() - first.at) / 1000;
      const rate = seconds > 0.5 ? (done - first.done) / seconds : 0;
      const percent = total === 0 ? 100 : Math.min(100, Math.floor((done * 100) / total));
      const left = rate > 0 && total > done ? `  ${duration((total - done) / rate)} left` : "";
      return `${what}  ${percent} %  ${mebibytes(done)} of ${mebibytes(total)} MiB  ${mebibytes(rate)} MiB/s${left}`;
    },
  };
}

/**
 * One line that is written over.
 *
 * @param monotonic milliseconds, to limit how often it is drawn
 */
export function progressLine(write: (text: string) => void, monotonic: () => number): Progress {
  const meter = openMeter(monotonic);
  let drawn = Number.NEGATIVE_INFINITY;
  return {
    ...meter,
    advance(bytes, label) {
      meter.advance(bytes, label);
      if (monotonic() - drawn < 100) return;
      drawn = monotonic();
      write(`\r\u001B[K${meter.text()}  ${tail(meter.label())}`);
    },
    end() {
      write("\r\u001B[K");
    },
  };
}

/** Milliseconds between two lines where there is no terminal: work that is over sooner says nothing. */
const LINE_MS = 15_000;

/** Plain lines for a log, now and then. */
export function progressLines(write: (text: string) => void, monotonic: () => number): Progress {
  const meter = openMeter(monotonic);
  let written = monotonic();
  return {
    ...meter,
    advance(bytes, label) {
      meter.advance(bytes, label);
      if (monotonic() - written < LINE_MS) return;
      written = monotonic();
      write(`edgesync: ${meter.text()}\n`);
    },
    end: () => undefined,
  };
}

/** The end of a path says more than its beginning. A name must not steer the terminal; paths of trees have no control characters. */
function tail(label: string): string {
  return label.length > 40 ? `…${label.slice(-39)}` : label;
}

function mebibytes(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(1);
}

function duration(seconds: number): string {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  if (seconds < 5400) return `${Math.ceil(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
