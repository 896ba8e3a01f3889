/** The streams of copies; see copies.ts. */
import type { Copies } from "./matcher.ts";
import { openWriter, zigzag } from "./numbers.ts";
import { codingsOf } from "./container-writer.ts";
import type { StreamContent } from "./segment.ts";

/** Numbers repeat what is near or nothing: a larger window makes them no smaller. */
const NUMBERS_WINDOW = 18;

/** @param old what the decoder's view will be, byte for byte */
export function writeCopies(
  old: Uint8Array,
  target: Uint8Array,
  copies: Copies,
): readonly StreamContent[] {
  const [literals, lengths, sources] = [openWriter(), openWriter(), openWriter()];
  const [gaps, changes, bytes] = [openWriter(), openWriter(), openWriter()];
  let made = 0;
  let source = 0;
  let gap = 0;
  for (let index = 0; index < copies.length; index += 3) {
    const at = copies[index] ?? 0;
    const from = copies[index + 1] ?? 0;
    const length = copies[index + 2] ?? 0;
    literals.number(at - made);
    lengths.number(length);
    sources.number(zigzag(from - source));
    bytes.bytes(target.subarray(made, at));
    for (let i = 0; i < length; i++) {
      const change = ((target[at + i] ?? 0) - (old[from + i] ?? 0)) & 255;
      if (change === 0) gap++;
      else {
        gaps.number(gap);
        changes.byte(change);
        gap = 0;
      }
    }
    made = at + length;
    source = from + length;
  }
  if (made < target.length) {
    literals.number(target.length - made);
    bytes.bytes(target.subarray(made));
  }
  return [literals, lengths, sources, gaps, changes, bytes].map((writer) => ({
    bytes: writer.done(),
    codings: codingsOf(writer.done()),
    ...(writer !== bytes && { windowLog: NUMBERS_WINDOW }),
  }));
}
