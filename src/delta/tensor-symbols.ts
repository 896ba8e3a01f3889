/**
 * The elements of tensors, decoded in place: the buffer holds old elements and is left with new ones. Old and new are compared as whole
 * numbers in the order of the floats (negative ones mirrored), so that a small step is a small difference, through zero as well.
 */
import { invalid } from "./invalid.ts";
import type { Memory, QuickElements } from "./kernel.ts";
import type { ByteSource } from "./source.ts";
import { bytesOfLanes, openLanes } from "./tensor-lanes.ts";
import { KEYS, KINDS, MAX_CLASSES, MAX_TABLES, SYMBOL_STREAMS } from "./tensor-table.ts";
import type { Class, Table } from "./tensor-table.ts";

/** A symbol that says: there is more in the stream of escapes. */
export const ESCAPE = 255;
/** Elements that are decoded without waiting for input. Each takes a gap and a value at most, of up to 24 low bits each. */
const STEP = 2048;
const STEP_SYMBOLS = 2 * STEP;
const STEP_BITS = 6 * STEP;
const STEP_ESCAPES = 10 * STEP;
/** Numbers of 5 bytes hold 35 bits. */
const ESCAPE_BYTES = 5;
const NEEDS = [
  ...Array.from({ length: SYMBOL_STREAMS }, () => STEP_SYMBOLS),
  STEP_BITS,
  STEP_ESCAPES,
];
const BITS = SYMBOL_STREAMS;
const ESCAPES = SYMBOL_STREAMS + 1;
/** The most that a class can have left; one that never changes is given it again and again. */
const ALWAYS = 0x7fff_ffff;

export interface Elements {
  readonly words: Int32Array;
  readonly halves: Uint16Array;
}

export interface ElementReader {
  /** Decodes the elements from `from` to `to`. @throws EdgeSyncError DELTA_INVALID */
  decode(
    table: number,
    elements: Elements,
    from: number,
    to: number,
    signal: AbortSignal,
  ): Promise<void>;
}

/** Where the loops read. */
export interface Cursor {
  readonly arena: Uint8Array;
  readonly at: Int32Array;
  /** Bits that were read and not yet used, and how many: see {@link HELD} and {@link COUNT}. */
  readonly bits: Int32Array;
}

const HELD = 0;
const COUNT = 1;

/** A table as the loops want it: one typed array for each field. They stand one behind the other, as the kernel expects. */
export interface Classes {
  readonly width: 2 | 4;
  readonly block: Uint8Array;
  readonly map: Uint8Array;
  readonly kind: Uint8Array;
  readonly gapShift: Uint8Array;
  readonly gapStream: Uint8Array;
  readonly valueShift: Uint8Array;
  readonly valueStream: Uint8Array;
  /** Elements of the class that stay as they are before the next that does not; -1 when that is not yet read. */
  readonly left: Int32Array;
}

/** Where the columns of a table stand: six of {@link MAX_CLASSES}, the last of 32 bits each, then the map. */
const LEFT_AT = 5 * MAX_CLASSES;
const MAP_AT = LEFT_AT + 4 * MAX_CLASSES;

/** Bytes of each buffer that {@link openElements} asks for, at most. */
export const ELEMENT_BYTES: readonly number[] = [
  ...bytesOfLanes(NEEDS),
  8,
  ...Array.from({ length: MAX_TABLES }, () => MAP_AT + KEYS),
];

/**
 * @param streams of symbols, of low bits, of escapes
 * @param memory where all but the elements stands
 * @param quick does it for those that nothing is rare about, if there is somebody
 */
export function openElements(
  tables: readonly Table[],
  streams: readonly ByteSource[],
  memory: Memory,
  quick?: QuickElements,
): ElementReader {
  const lanes = openLanes(streams, NEEDS, memory);
  const cursor: Cursor = { arena: lanes.arena, at: lanes.at, bits: memory.words(2) };
  cursor.bits.fill(0);
  const prepared = tables.map((table) => classesOf(table, memory));
  return {
    async decode(table, { words, halves }, from, to, signal) {
      const classes = prepared[table];
      if (classes === undefined) throw invalid(`table ${table} is not there`);
      for (let start = from; start < to; start += STEP) {
        await lanes.fill(signal);
        const end = Math.min(to, start + STEP);
        const { width } = classes;
        for (let at = start; at < end;) {
          const rare = quick?.(width === 4 ? words : halves, at, end, classes.block, cursor) ?? at;
          const until = quick === undefined ? end : Math.min(rare + 1, end);
          if (width === 4) decodeWords(cursor, classes, words, rare, until);
          else decodeHalves(cursor, classes, halves, rare, until);
          at = until;
        }
        lanes.check();
      }
    },
  };
}

function classesOf({ width, map, classes }: Table, memory: Memory): Classes {
  const block = memory.bytes(MAP_AT + KEYS);
  block.fill(0);
  const column = (field: keyof Class, index: number): Uint8Array => {
    const values = block.subarray(index * MAX_CLASSES, (index + 1) * MAX_CLASSES);
    for (const [own, entry] of classes.entries()) values[own] = entry[field];
    return values;
  };
  const kind = column("kind", 0);
  const left = new Int32Array(block.buffer, block.byteOffset + LEFT_AT, MAX_CLASSES);
  left.set(Array.from(kind, (own) => (own === KINDS.direct ? 0 : -1)));
  block.set(map, MAP_AT);
  return {
    width,
    block,
    map: block.subarray(MAP_AT),
    kind,
    gapShift: column("gapShift", 1),
    gapStream: column("gapStream", 2),
    valueShift: column("valueShift", 3),
    valueStream: column("valueStream", 4),
    left,
  };
}

/**
 * This loop and the next do the same, for elements of 4 and of 2 bytes. They are where the time goes: the common cases (an element stays, or
 * has a value without an escape) call nothing.
 */
function decodeWords(
  cursor: Cursor,
  classes: Classes,
  words: Int32Array,
  from: number,
  to: number,
): void {
  const { arena, at } = cursor;
  const { map, kind, valueShift, valueStream, left } = classes;
  for (let index = from; index < to; index++) {
    const word = words[index] ?? 0;
    const own = map[(word >>> 19) & 0xfff] ?? 0;
    const stay = left[own] ?? 0;
    if (stay > 0) {
      left[own] = stay - 1;
      continue;
    }
    const base = kind[own] === KINDS.direct ? 0 : 1;
    if (base === 1 && stays(cursor, classes, own)) continue;
    const stream = valueStream[own] ?? 0;
    const position = at[stream] ?? 0;
    at[stream] = position + 1;
    let value = arena[position] ?? 0;
    if (value === ESCAPE) value += escape(cursor);
    const shift = valueShift[own] ?? 0;
    if (shift > 0) {
      value = (value << shift) | lowBits(cursor, shift);
    }
    value = (value + base) | 0;
    const moved = ((word ^ ((word >> 31) >>> 1)) + ((value >>> 1) ^ -(value & 1))) | 0;
    words[index] = moved ^ ((moved >> 31) >>> 1);
  }
}

function decodeHalves(
  cursor: Cursor,
  classes: Classes,
  halves: Uint16Array,
  from: number,
  to: number,
): void {
  const { arena, at } = cursor;
  const { map, kind, valueShift, valueStream, left } = classes;
  for (let index = from; index < to; index++) {
    const half = halves[index] ?? 0;
    const own = map[(half >>> 3) & 0xfff] ?? 0;
    const stay = left[own] ?? 0;
    if (stay > 0) {
      left[own] = stay - 1;
      continue;
    }
    const base = kind[own] === KINDS.direct ? 0 : 1;
    if (base === 1 && stays(cursor, classes, own)) continue;
    const stream = valueStream[own] ?? 0;
    const position = at[stream] ?? 0;
    at[stream] = position + 1;
    let value = arena[position] ?? 0;
    if (value === ESCAPE) value += escape(cursor);
    const shift = valueShift[own] ?? 0;
    if (shift > 0) {
      value = (value << shift) | lowBits(cursor, shift);
    }
    value = (value + base) | 0;
    const wide = (half << 16) >> 16;
    const ordered = wide ^ ((wide >> 15) & 0x7fff);
    const moved = ((ordered + ((value >>> 1) ^ -(value & 1))) << 16) >> 16;
    halves[index] = moved ^ ((moved >> 15) & 0x7fff);
  }
}

/** Whether an element of a class with gaps stays; reads the next gap when its turn has come. @throws EdgeSyncError DELTA_INVALID */
function stays(cursor: Cursor, { kind, left, gapStream, gapShift }: Classes, own: number): boolean {
  if (kind[own] === KINDS.same) {
    left[own] = ALWAYS;
    return true;
  }
  if (left[own] === 0) {
    left[own] = -1;
    return false;
  }
  const gap = readGap(cursor, gapStream[own] ?? 0, gapShift[own] ?? 0);
  left[own] = gap - 1;
  return gap > 0;
}

function readGap(cursor: Cursor, stream: number, shift: number): number {
  const { at, arena } = cursor;
  const position = at[stream] ?? 0;
  at[stream] = position + 1;
  let high = arena[position] ?? 0;
  if (high === ESCAPE) high += escape(cursor);
  if (high > ALWAYS >>> shift) throw invalid(`${high} times 2^${shift} elements that stay`);
  if (shift === 0) return high;
  return (high << shift) | lowBits(cursor, shift);
}

/** Never holds more than 31 bits. */
function lowBits({ at, arena, bits }: Cursor, shift: number): number {
  let held = bits[HELD] ?? 0;
  let count = bits[COUNT] ?? 0;
  while (count < shift) {
    const position = at[BITS] ?? 0;
    at[BITS] = position + 1;
    held |= (arena[position] ?? 0) << count;
    count += 8;
  }
  bits[HELD] = held >>> shift;
  bits[COUNT] = count - shift;
  return held & ((1 << shift) - 1);
}

function escape({ at, arena }: Cursor): number {
  let position = at[ESCAPES] ?? 0;
  let value = 0;
  for (let read = 0, scale = 1; read < ESCAPE_BYTES; read++, scale *= 128) {
    const part = arena[position++] ?? 0;
    value += (part & 127) * scale;
    if (part < 128) {
      at[ESCAPES] = position;
      return value;
    }
  }
  throw invalid("a number does not end");
}
