/**
 * The old file through a cache of pages. What the next piece of output needs is loaded at once, neighbours with one read and many reads
 * side by side; after that it is there without waiting. The memory is fixed, and a file that is read in order passes through it once.
 */
import { putBytes } from "./copies.ts";
import { allRead } from "./decoder.ts";
import type { RandomAccess } from "./decoder.ts";
import { roomForNumbers } from "./numbers.ts";

/** Small, because copies of new code jump about: each jump costs a page. */
const PAGE_BYTES = 4 * 1024;
const PAGES = 512;
/** Pages of one read. */
const RUN = 16;
/** Pages that nobody wants are read too when they stand between two that are wanted: a read costs more than a few of them. */
const GAP = 4;
/** Reads at a time: as many as Node's threads can have waiting. */
const READS = 4;
const BUCKETS = 1024;
const NONE = -1;

export interface Pages {
  /** Bytes of the file. */
  readonly size: number;
  /** Remembers that a range, of a few pages, will be copied; false when there is no room for it before the next {@link load}. */
  want(from: number, to: number): boolean;
  /** Reads what is wanted and missing. */
  load(signal: AbortSignal): Promise<void>;
  /** Copies a range that was wanted. */
  copy(into: Uint8Array, at: number, from: number, to: number): void;
  /** Where a range that was wanted stands in the memory in one piece; -1 when it does not. */
  locate(from: number, to: number): number;
  /** Gives what it has of memory back, not what it was given. */
  close(): void;
}

/** As a division that comes out even: V8 allocates for each number that has been a fraction or 2^31, until it has compiled what works with it. */
function pageOf(position: number): number {
  return (position - (position % PAGE_BYTES)) / PAGE_BYTES;
}

/** Bytes of the memory for a file of a size. */
export function bytesOfPages(size: number): number {
  return Math.min(PAGES, Math.ceil(size / PAGE_BYTES)) * PAGE_BYTES;
}

/** @param memory of {@link bytesOfPages} */
export function openPages(file: RandomAccess, memory: Buffer): Pages {
  const { size } = file;
  const count = memory.length / PAGE_BYTES;
  const landing = Buffer.allocUnsafeSlow(Math.min(READS * RUN, count) * PAGE_BYTES);
  const slots = openSlots(count, roomForNumbers(pageOf(size), count));
  let missing: number[] = [];
  /** The page that was wanted last. */
  let last = NONE;

  /** Reads pages that follow each other to a place in the landing, and puts those into slots that have one. */
  async function read(first: number, pages: number, place: number): Promise<void> {
    const from = first * PAGE_BYTES;
    const end = place + Math.min(pages * PAGE_BYTES, size - from);
    await file.readInto(landing.subarray(place, end), from);
    let at = place;
    for (let index = 0; index < pages;) {
      const slot = slots.find(first + index);
      // Pages that follow each other here, too, are copied together.
      let count = 1;
      if (slot !== NONE)
        while (index + count < pages && slots.find(first + index + count) === slot + count) count++;
      const until = Math.min(at + count * PAGE_BYTES, end);
      if (slot !== NONE) landing.copy(memory, slot * PAGE_BYTES, at, until);
      at = until;
      index += count;
    }
  }

  return {
    size,
    want(from, to) {
      const first = pageOf(from);
      const end = pageOf(to - 1);
      if (first === last && end === last) return true;
      if (!slots.hasRoom(end - first + 1)) return false;
      for (let page = first; page <= end; page++) if (!slots.want(page)) missing.push(page);
      last = end;
      return true;
    },
    async load(signal) {
      missing.sort((a, b) => a - b);
      let reads: Promise<void>[] = [];
      let place = 0;
      for (let index = 0; index < missing.length;) {
        const first = missing[index] ?? 0;
        let end = first + 1;
        for (index++; index < missing.length; index++) {
          const next = missing[index] ?? 0;
          if (next - end > GAP || next - first >= RUN) break;
          end = next + 1;
        }
        const pages = end - first;
        if (place + pages * PAGE_BYTES > landing.length) {
          await allRead(reads);
          signal.throwIfAborted();
          reads = [];
          place = 0;
        }
        reads.push(read(first, pages, place));
        place += pages * PAGE_BYTES;
      }
      await allRead(reads);
      missing = [];
      last = NONE;
      slots.forget();
    },
    copy(into, at, from, to) {
      for (let position = from; position < to;) {
        const page = pageOf(position);
        const slot = slots.find(page);
        if (slot === NONE) throw new RangeError(`page ${page} was not loaded`);
        const start = slot * PAGE_BYTES - page * PAGE_BYTES;
        const end = Math.min((page + 1) * PAGE_BYTES, to);
        putBytes(into, at + position - from, memory, start + position, end - position);
        position = end;
      }
    },
    locate(from, to) {
      const page = pageOf(from);
      if (to > (page + 1) * PAGE_BYTES) return -1;
      return slots.find(page) * PAGE_BYTES + from - page * PAGE_BYTES;
    },
    close() {
      if (landing.buffer instanceof ArrayBuffer) landing.buffer.transfer(0);
    },
  };
}

/** Which page stands where. Without objects for each page, because every copy asks. */
interface Slots {
  /** Whether so many more pages can be wanted. */
  hasRoom(pages: number): boolean;
  /** False when the page has just been given a slot, and is still to be read. */
  want(page: number): boolean;
  find(page: number): number;
  /** Nothing is wanted any more; what is there stays as long as its slot is not needed. */
  forget(): void;
}

/** @param pages room for the page in each slot */
function openSlots(count: number, pages: Int32Array | Float64Array): Slots {
  /** Slots of the pages that share a bucket are a list. */
  const heads = new Int16Array(BUCKETS).fill(NONE);
  const next = new Int16Array(count);
  pages.fill(NONE);
  /** The round in which a slot was wanted last. */
  const rounds = new Uint32Array(count);
  /** Wanted since the hand passed; it gets a second chance. */
  const used = new Uint8Array(count);
  let round = 1;
  let wanted = 0;
  let hand = 0;

  function find(page: number): number {
    let slot = heads[page & (BUCKETS - 1)] ?? NONE;
    while (slot !== NONE && pages[slot] !== page) slot = next[slot] ?? NONE;
    return slot;
  }

  /** A slot that nobody wants; there is one. */
  function take(): number {
    for (;;) {
      const slot = hand;
      hand = hand + 1 === count ? 0 : hand + 1;
      if (rounds[slot] === round) continue;
      if (used[slot] === 0) return slot;
      used[slot] = 0;
    }
  }

  function remove(slot: number): void {
    const page = pages[slot] ?? NONE;
    if (page === NONE) return;
    const bucket = page & (BUCKETS - 1);
    if (heads[bucket] === slot) heads[bucket] = next[slot] ?? NONE;
    else {
      let before = heads[bucket] ?? NONE;
      while (next[before] !== slot) before = next[before] ?? NONE;
      next[before] = next[slot] ?? NONE;
    }
  }

  return {
    hasRoom: (pages) => wanted + pages <= count,
    find,
    want(page) {
      const slot = find(page);
      if (slot !== NONE) {
        used[slot] = 1;
        if (rounds[slot] !== round) {
          rounds[slot] = round;
          wanted++;
        }
        return true;
      }
      const free = take();
      remove(free);
      const bucket = page & (BUCKETS - 1);
      next[free] = heads[bucket] ?? NONE;
      heads[bucket] = free;
      pages[free] = page;
      rounds[free] = round;
      wanted++;
      return false;
    },
    forget() {
      round++;
      wanted = 0;
    },
  };
}
