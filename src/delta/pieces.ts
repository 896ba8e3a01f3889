/** Pieces of a file that stand together in memory, one behind the other: from places there to places in the file. */
import type { Copies } from "./matcher.ts";
import type { Range } from "./plan.ts";

export interface Pieces {
  /** Bytes of all. */
  readonly size: number;
  /** From the first byte of the first piece to the last byte of the last, in the file. */
  readonly span: Range;
  /** Where a byte stands, from the start of the span. Quick for positions near each other. */
  place(position: number): number;
  /** The same copies, each from one piece: what is behind the end of a piece stands elsewhere in the file. */
  split(copies: Copies): Copies;
}

/** @param pieces in order; at least one */
export function openPieces(pieces: readonly Range[]): Pieces {
  const start = pieces[0]?.offset ?? 0;
  const last = pieces.at(-1);
  const ends: number[] = [];
  let size = 0;
  for (const piece of pieces) ends.push((size += piece.size));
  let current = 0;

  /** The number of the piece that a position is in. */
  function find(position: number): number {
    while (position >= (ends[current] ?? Number.POSITIVE_INFINITY)) current++;
    while (current > 0 && position < (ends[current - 1] ?? 0)) current--;
    return current;
  }

  return {
    size,
    span: { offset: start, size: last === undefined ? 0 : last.offset + last.size - start },
    place(position) {
      const index = find(position);
      const piece = pieces[index];
      return piece === undefined
        ? position
        : piece.offset - start + position - (ends[index] ?? 0) + piece.size;
    },
    split(copies) {
      if (pieces.length < 2) return copies;
      const parts: number[] = [];
      for (let index = 0; index < copies.length; index += 3) {
        let [at = 0, from = 0, length = 0] = copies.subarray(index, index + 3);
        while (length > 0) {
          const part = Math.min(length, (ends[find(from)] ?? from + length) - from);
          parts.push(at, from, part);
          at += part;
          from += part;
          length -= part;
        }
      }
      return Int32Array.from(parts);
    },
  };
}
