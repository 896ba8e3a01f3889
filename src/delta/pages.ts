/**
 * The old file through a cache of pages. What the next piece of output needs is loaded at once, neighbours with one read and many reads
 * side by side; after that it is there without waiting. The memory is fixed, and a file that is read in order passes through it once.
 */
import type { RandomAccess } from "./decoder.ts";
import { invalid } from "./invalid.ts";

/** Small, because copies of new code jump about: each jump costs a page. */
const PAGE_BYTES = 4 * 1024;
const PAGES = 512;
/** Pages of one read. */
const RUN = 16;
/** Reads at a time: as many as Node's threads can have waiting. */
const READS = 8;

export interface Pages {
  /** Bytes of the file. */
  readonly size: number;
  /** Remembers that a range will be copied; false when there is no room for it before the next {@link load}. */
  want(from: number, to: number): boolean;
  /** Reads what is wanted and missing. */
  load(signal: AbortSignal): Promise<void>;
  /** Copies a range that was wanted. */
  copy(into: Uint8Array, at: number, from: number, to: number): void;
}

export function openPages(file: RandomAccess): Pages {
  const { size } = file;
  const count = Math.min(PAGES, Math.ceil(size / PAGE_BYTES));
  const memory = Buffer.allocUnsafeSlow(count * PAGE_BYTES);
  const landing = Buffer.allocUnsafeSlow(Math.min(READS * RUN, count) * PAGE_BYTES);
  /** Slot of each page that is there, the one that was used longest ago first. */
  const slots = new Map<number, number>();
  const wanted = new Set<number>();
  const missing: number[] = [];

  /** A slot for a page; only pages that nobody wants now are given up. */
  function slotFor(): number {
    if (slots.size < count) return slots.size;
    for (const [page, slot] of slots)
      if (!wanted.has(page)) {
        slots.delete(page);
        return slot;
      }
    throw invalid("a piece needs more of the old file than fits");
  }

  /** Reads pages that follow each other to a place in the landing, and puts them into slots. */
  async function read(first: number, pages: number, place: number): Promise<void> {
    const from = first * PAGE_BYTES;
    const bytes = landing.subarray(place, place + Math.min(pages * PAGE_BYTES, size - from));
    await file.readInto(bytes, from);
    for (let page = first; page < first + pages; page++) {
      const slot = slotFor();
      slots.set(page, slot);
      const at = place + (page - first) * PAGE_BYTES;
      memory.set(landing.subarray(at, at + PAGE_BYTES), slot * PAGE_BYTES);
    }
  }

  return {
    size,
    want(from, to) {
      const last = Math.floor((to - 1) / PAGE_BYTES);
      const first = Math.floor(from / PAGE_BYTES);
      if (wanted.size + last - first + 1 > count && wanted.size > 0) return false;
      for (let page = first; page <= last; page++) {
        if (wanted.has(page)) continue;
        wanted.add(page);
        const slot = slots.get(page);
        if (slot === undefined) missing.push(page);
        else {
          slots.delete(page);
          slots.set(page, slot);
        }
      }
      return true;
    },
    async load(signal) {
      missing.sort((a, b) => a - b);
      let reads: Promise<void>[] = [];
      let place = 0;
      for (let index = 0; index < missing.length;) {
        const first = missing[index] ?? 0;
        let pages = 1;
        while (pages < RUN && missing[index + pages] === first + pages) pages++;
        if (place + pages * PAGE_BYTES > landing.length) {
          signal.throwIfAborted();
          await Promise.all(reads);
          reads = [];
          place = 0;
        }
        reads.push(read(first, pages, place));
        place += pages * PAGE_BYTES;
        index += pages;
      }
      await Promise.all(reads);
      missing.length = 0;
      wanted.clear();
    },
    copy(into, at, from, to) {
      for (let position = from; position < to;) {
        const page = Math.floor(position / PAGE_BYTES);
        const slot = slots.get(page);
        if (slot === undefined) throw new RangeError(`page ${page} was not loaded`);
        const start = position - page * PAGE_BYTES;
        const end = Math.min(PAGE_BYTES, to - page * PAGE_BYTES);
        into.set(memory.subarray(slot * PAGE_BYTES + start, slot * PAGE_BYTES + end), at);
        at += end - start;
        position += end - start;
      }
    },
  };
}
