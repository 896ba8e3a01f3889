/** The streams of copies; see copies.ts. */
import type { Copies } from "./matcher.ts";
import { PART_BYTES } from "./new-code.ts";
import type { Turn } from "./new-code.ts";
import { openWriter, zigzag } from "./numbers.ts";
import { codingsOf } from "./container-writer.ts";
import type { StreamContent } from "./segment.ts";

/** Numbers repeat what is near or nothing: a larger window makes them no smaller. */
const NUMBERS_WINDOW = 18;

/** What a decoder does besides copying. */
export interface Changed {
  /** The copies before they are corrected, at their places in the new file. */
  readonly made: Uint8Array;
  /** Makes of new bytes what stands in the delta. */
  readonly turn: Turn;
}

/**
 * @param changed when the decoder's copies are not just what stands in the old bytes
 * @param place where a byte of `old` stands in what the decoder has, when `old` is only parts of that
 */
export function writeCopies(
  old: Uint8Array,
  target: Uint8Array,
  copies: Copies,
  changed?: Changed,
  place: (position: number) => number = (position) => position,
): readonly StreamContent[] {
  const [literals, lengths, sources] = [openWriter(), openWriter(), openWriter()];
  const [gaps, changes] = [openWriter(), openWriter()];
  // Made as large as it will be: growing would take three times as much.
  const bytes = openWriter(target.length - copiedBytes(copies));
  const right = changed?.made ?? old;
  const putNew = (from: number, to: number): void => {
    literals.number(to - from);
    for (let at = from; at < to; at += PART_BYTES - (at % PART_BYTES)) {
      const part = target.subarray(at, Math.min(to, at + PART_BYTES - (at % PART_BYTES)));
      if (changed === undefined) bytes.bytes(part);
      else {
        const turned = Buffer.from(part);
        changed.turn(turned, 0, turned.length, at);
        bytes.bytes(turned);
      }
    }
  };
  let made = 0;
  let source = 0;
  let gap = 0;
  for (let index = 0; index < copies.length; index += 3) {
    const at = copies[index] ?? 0;
    const from = copies[index + 1] ?? 0;
    const length = copies[index + 2] ?? 0;
    putNew(made, at);
    lengths.number(length);
    const begin = place(from);
    sources.number(zigzag(begin - source));
    const start = changed === undefined ? from : at;
    for (let i = 0; i < length; i++) {
      const change = ((target[at + i] ?? 0) - (right[start + i] ?? 0)) & 255;
      if (change === 0) gap++;
      else {
        gaps.number(gap);
        changes.byte(change);
        gap = 0;
      }
    }
    made = at + length;
    source = begin + length;
  }
  if (made < target.length) putNew(made, target.length);
  return [literals, lengths, sources, gaps, changes, bytes].map((writer) => ({
    bytes: writer.done(),
    codings: codingsOf(writer.done()),
    ...(writer !== bytes && { windowLog: NUMBERS_WINDOW }),
  }));
}

function copiedBytes(copies: Copies): number {
  let sum = 0;
  for (let index = 2; index < copies.length; index += 3) sum += copies[index] ?? 0;
  return sum;
}
