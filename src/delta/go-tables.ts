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

/** Functions and types begin at multiples of this. */
const ALIGNMENT = 32;
const METHOD_BYTES = 16;
/** Stands for a type or an entry that the linker found unreachable. */
const UNREACHABLE = -1;

/**
 * Type data (internal/abi/type.go). Without knowing where a type begins, these are known by their looks:
 * - pointers of 64 bits; behind one may stand the offset of a name and that of a type, as the last words of a Type do;
 * - a Method: offsets of its name, of its type and of two entries, which are aligned;
 * - an Imethod: offsets of its name and of its type, which is aligned.
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
  const isName = (value: number): boolean =>
    value > 0 && value < 2 ** 28 && (flags[(types.old + value) >>> 12] ?? 0) === 1;
  const isType = (value: number): boolean => value % ALIGNMENT === 0 && isName(value);
  const offset = (at: number, value: number, base: Base): void => {
    if (value > 0) sink.offset(at, base.old + value, base.new, 1);
  };
  const lead = Math.max(from - METHOD_BYTES, origin, 0);
  let afterPointer = false;
  for (let at = origin + Math.ceil((lead - origin) / 4) * 4; at < to && at + 8 <= limit;) {
    if ((at - origin) % 8 === 0) {
      const pointer = readAddress(bytes, at, base, flags);
      if (pointer + base > 0 && pointer >= 0) {
        sink.absolute(at, pointer, true);
        at += 8;
        afterPointer = true;
        continue;
      }
    }
    const name = readWord(bytes, at);
    const type = readWord(bytes, at + 4);
    if (isName(name)) {
      const [called, direct] = [readWord(bytes, at + 8), readWord(bytes, at + 12)];
      const typed = type === UNREACHABLE || isType(type);
      if (typed && at + METHOD_BYTES <= limit && isEntry(called) && isEntry(direct)) {
        offset(at, name, types);
        offset(at + 4, type, types);
        offset(at + 8, called, code);
        offset(at + 12, direct, code);
        at += METHOD_BYTES;
        continue;
      }
      if (isType(type) || (afterPointer && type === 0)) {
        offset(at, name, types);
        offset(at + 4, type, types);
        at += 8;
        afterPointer = false;
        continue;
      }
    }
    afterPointer = false;
    at += 4;
  }
}
