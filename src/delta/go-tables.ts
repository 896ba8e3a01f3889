/** Go's tables of offsets, which stand in its sections with nothing but their place to tell what they count from. */
import type { FieldSink, Stretch } from "./fields.ts";
import type { Base } from "./records.ts";
import { readAddress, readWord } from "./tables.ts";

/** Words that count from `base`; all bits set stand for nothing. */
export function scanOffsets(
  { bytes, from, to, limit, origin }: Stretch,
  base: Base,
  sink: FieldSink,
): void {
  const first = Math.max(origin + Math.ceil((from - 3 - origin) / 4) * 4, origin);
  for (let at = first; at < to && at + 4 <= limit; at += 4) {
    const value = readWord(bytes, at);
    if (value > 0 && base.old + value < 2 ** 31) sink.offset(at, base.old + value, base.new, 1);
  }
}

/** Functions begin at multiples of this. */
const ALIGNMENT = 32;
/** internal/abi/type.go, type Method: name, type, and the code of two entries, each by its offset. */
export const METHOD_BYTES = 16;
const UNREACHABLE = -1;

/**
 * Type data: pointers of 64 bits, and methods. A method is known by the code of its entries, which is aligned, or by both being
 * unreachable, with offsets of types before them.
 */
export function scanGoTypes(
  { bytes, from, to, limit, origin }: Stretch,
  code: Base,
  types: Base,
  base: number,
  flags: Uint8Array,
  sink: FieldSink,
): void {
  const isEntry = (value: number): boolean =>
    value === UNREACHABLE ||
    (value > 0 && value % ALIGNMENT === 0 && ((flags[(code.old + value) >>> 12] ?? 0) & 2) !== 0);
  const isType = (value: number): boolean =>
    value > 0 && value < 2 ** 28 && (flags[(types.old + value) >>> 12] ?? 0) === 1;
  const lead = Math.max(from - METHOD_BYTES, origin, 0);
  const first = origin + Math.ceil((lead - origin) / 4) * 4;
  for (let at = first; at < to && at + 8 <= limit;) {
    if ((at - origin) % 8 === 0) {
      const pointer = readAddress(bytes, at, base, flags);
      if (pointer + base > 0 && pointer >= 0) {
        sink.absolute(at, pointer, true);
        at += 8;
        continue;
      }
    }
    if (at + METHOD_BYTES <= limit) {
      const name = readWord(bytes, at);
      const type = readWord(bytes, at + 4);
      const [called, direct] = [readWord(bytes, at + 8), readWord(bytes, at + 12)];
      if (isType(name) && (isType(type) || type === 0) && isEntry(called) && isEntry(direct)) {
        sink.offset(at, types.old + name, types.new, 1);
        if (type > 0) sink.offset(at + 4, types.old + type, types.new, 1);
        if (called > 0) sink.offset(at + 8, code.old + called, code.new, 1);
        if (direct > 0) sink.offset(at + 12, code.old + direct, code.new, 1);
        at += METHOD_BYTES;
        continue;
      }
    }
    at += 4;
  }
}
