/**
 * Leaves out copies that cost more than they save. Three numbers for a copy take about four bytes of the delta, a new byte less than
 * half of one, and a byte that must be corrected more than one. And each jump costs the decoder a read: so that it is never slow, jumps
 * are rationed, which only files notice that are shuffled in small pieces.
 */
import type { Copies } from "./matcher.ts";

/** Equal bytes less wrong ones that a copy needs when it jumps, and when it stays near. */
const FAR_GAIN = 22;
const NEAR_GAIN = 11;
/** A jump by less is near: its number is short, and its page is there. Bytes. */
const NEAR_BYTES = 4096;

/** Pages that a decoder is taken to remember, of so many bytes: not more than it does. */
const PAGES = 400;
const PAGE_BYTES = 4096;
/** For so many new bytes it may read one page more, and once so many pages ahead. */
const BYTES_FOR_READ = 512;
const READS_AHEAD = 4096;

/** So many more wrong bytes than equal ones in a stretch, and it is better off as new bytes; as many equal ones end it. */
const CUT_BYTES = 24;

/**
 * The same copies without the stretches in which little is right: a search that stays at its place over a part that was replaced does
 * not notice.
 */
function cutCopies(old: Uint8Array, target: Uint8Array, copies: Copies): Copies {
  const parts: number[] = [];
  for (let index = 0; index < copies.length; index += 3) {
    const at = copies[index] ?? 0;
    const from = copies[index + 1] ?? 0;
    const length = copies[index + 2] ?? 0;
    let kept = 0;
    // The stretch with the most wrong bytes that is open: where it begins, where it is worst.
    let [begin, score, most, end] = [0, 0, 0, 0];
    const cut = (): void => {
      if (most >= CUT_BYTES) {
        if (begin > kept) parts.push(at + kept, from + kept, begin - kept);
        kept = end;
      }
    };
    for (let i = 0; i < length; i++) {
      if (old[from + i] !== target[at + i]) {
        if (score === 0) begin = i;
        score++;
        if (score > most) [most, end] = [score, i + 1];
      } else if (score > 0) {
        score--;
        if (score === 0 || score <= most - CUT_BYTES) {
          cut();
          [score, most] = [0, 0];
        }
      }
    }
    cut();
    if (length > kept) parts.push(at + kept, from + kept, length - kept);
  }
  return Int32Array.from(parts);
}

export function chooseCopies(old: Uint8Array, target: Uint8Array, all: Copies): Copies {
  const copies = cutCopies(old, target, all);
  const chosen = new Int32Array(copies.length);
  let used = 0;
  let distance = 0;
  const ration = openRation();
  for (let index = 0; index < copies.length; index += 3) {
    const at = copies[index] ?? 0;
    const from = copies[index + 1] ?? 0;
    const length = copies[index + 2] ?? 0;
    const jump = Math.abs(from - at - distance);
    const needed = jump > NEAR_BYTES ? FAR_GAIN : NEAR_GAIN;
    if (jump > 0 && length < 8 * needed && gainOf(old, target, at, from, length) < needed) continue;
    if (!ration.allows(at, from, length)) continue;
    distance = from - at;
    chosen[used++] = at;
    chosen[used++] = from;
    chosen[used++] = length;
  }
  return chosen.slice(0, used);
}

/** Remembers pages as a decoder does, and how many more it may read. */
function openRation(): { allows(at: number, from: number, length: number): boolean } {
  const pages = new Set<number>();
  let spent = -READS_AHEAD;
  return {
    allows(at, from, length) {
      const first = Math.floor(from / PAGE_BYTES);
      const last = Math.floor((from + length - 1) / PAGE_BYTES);
      let reads = 0;
      // A long copy is worth its reads.
      if (last - first < 2)
        for (let page = first; page <= last; page++) if (!pages.has(page)) reads++;
      if (reads > 0 && spent + reads > at / BYTES_FOR_READ) return false;
      spent += reads;
      for (let page = Math.max(first, last - PAGES + 1); page <= last; page++) {
        pages.delete(page);
        pages.add(page);
      }
      for (const page of pages) {
        if (pages.size <= PAGES) break;
        pages.delete(page);
      }
      return true;
    },
  };
}

function gainOf(
  old: Uint8Array,
  target: Uint8Array,
  at: number,
  from: number,
  length: number,
): number {
  let gain = 0;
  for (let i = 0; i < length; i++) gain += old[from + i] === target[at + i] ? 1 : -1;
  return gain;
}
