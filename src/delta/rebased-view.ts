/**
 * Copies from the rebased old file, which is made where somebody looks: from bytes that are read for a long copy, or from where they
 * stand in the cache of pages.
 */
import { PIECE_BYTES } from "./copies.ts";
import type { OldView } from "./copies.ts";
import { allRead } from "./decoder.ts";
import type { RandomAccess } from "./decoder.ts";
import { bytesOfPages, openPages } from "./pages.ts";
import { before, behind } from "./rebase.ts";
import type { Rebase } from "./rebase.ts";

/** Copies of so many bytes are read past the cache. */
const DIRECT_BYTES = 16 * 1024;
/** What a copy depends on beyond itself, at most. */
const AROUND_BYTES = 2048;

/** Bytes of its buffers: for long copies, for a shorter one, for pages. */
export function bytesOfView(size: number): readonly [number, number, number] {
  const long = Math.min(PIECE_BYTES + (PIECE_BYTES / DIRECT_BYTES) * AROUND_BYTES, size);
  return [long, DIRECT_BYTES + AROUND_BYTES, bytesOfPages(size)];
}

/** @param bytes makes room for a buffer */
export function openRebasedView(
  file: RandomAccess,
  rebase: Rebase,
  bytes: (count: number) => Buffer,
): OldView & { readonly close: () => void } {
  const { size } = file;
  /** Old bytes of long copies in the order in which they were wanted; of one that is in more than a page; and pages. */
  const [long, short, cached] = bytesOfView(size);
  const [landing, scratch, memory] = [bytes(long), bytes(short), bytes(cached)];
  const pages = openPages(file, memory);
  let direct: { readonly start: number; readonly end: number; readonly place: number }[] = [];
  let landed = 0;
  let used = 0;
  return {
    size,
    want(_at, from, to) {
      const start = before(from);
      const end = behind(to, size);
      if (to - from < DIRECT_BYTES) return pages.want(start, end);
      if (used + end - start > landing.length) return false;
      direct.push({ start, end, place: used });
      used += end - start;
      return true;
    },
    async load(_output, signal) {
      const reads = direct.map(({ start, end, place }) =>
        file.readInto(landing.subarray(place, place + end - start), start),
      );
      [landed, used] = [0, 0];
      await allRead([pages.load(signal), ...reads]);
    },
    copy(output, at, from, to, goal) {
      if (to - from >= DIRECT_BYTES) {
        const read = direct[landed++];
        if (read === undefined) throw new RangeError(`bytes at ${from} were not read`);
        rebase(landing, read.start - read.place, from, to, output, at, goal);
        if (landed === direct.length) direct = [];
        return;
      }
      const start = before(from);
      const end = behind(to, size);
      const place = pages.locate(start, end);
      if (place >= 0) rebase(memory, start - place, from, to, output, at, goal);
      else {
        pages.copy(scratch, 0, start, end);
        rebase(scratch, start, from, to, output, at, goal);
      }
    },
    close: () => {
      pages.close();
    },
  };
}
