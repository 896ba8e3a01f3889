/**
 * The elements of tensors, decoded in place: the buffer holds old elements and is left with new ones. Old and new are compared as whole
 * numbers in the order of the floats (negative ones mirrored), so that a small step is a small difference, through zero as well.
 */
import { invalid } from "./invalid.ts";
import type { ByteSource } from "./source.ts";
import { openLanes } from "./tensor-lanes.ts";
import { KINDS, MAX_CLASSES, SYMBOL_STREAMS } from "./tensor-table.ts";
import type { Table } from "./tensor-table.ts";

/** A symbol that says: there is more in the stream of escapes. */
export const ESCAPE = 255;
/** Elements that are decoded without waiting for input. Each takes a gap and a value at most, of up to 24 low bits each. */
const STEP = 2048;
const STEP_SYMBOLS = 2 * STEP;
const STEP_BITS = 6 * STEP;
const STEP_ESCAPES = 10 * STEP;
/** Numbers of 5 bytes hold 35 bits. */
const ESCAPE_BYTES = 5;
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
  /** Gives the memory back. */
  close(): void;
}

/** Where the loops read. */
interface Cursor {
  readonly arena: Uint8Array;
  readonly at: Int32Array;
  /** Bits that were read and not yet used, and how many. */
  held: number;
  count: number;
}

/** A table as the loops want it: one typed array for each field. */
interface Classes {
  readonly width: 2 | 4;
  readonly map: Uint8Array;
  readonly kind: Uint8Array;
  readonly gapShift: Uint8Array;
  readonly gapStream: Uint8Array;
  readonly valueShift: Uint8Array;
  readonly valueStream: Uint8Array;
  /** Elements of the class that stay as they are before the next that does not; -1 when that is not yet read. */
  readonly left: Int32Array;
}

export function openElements(
  tables: readonly Table[],
  symbols: readonly ByteSource[],
  bits: ByteSource,
  escapes: ByteSource,
): ElementReader {
  const lanes = openLanes(
    [...symbols, bits, escapes],
    [...symbols.map(() => STEP_SYMBOLS), STEP_BITS, STEP_ESCAPES],
  );
  const cursor: Cursor = { arena: lanes.arena, at: lanes.at, held: 0, count: 0 };
  const prepared = tables.map(classesOf);
  return {
    async decode(table, { words, halves }, from, to, signal) {
      const classes = prepared[table];
      if (classes === undefined) throw invalid(`table ${table} is not there`);
      for (let start = from; start < to; start += STEP) {
        await lanes.fill(signal);
        const end = Math.min(to, start + STEP);
        if (classes.width === 4) decodeWords(cursor, classes, words, start, end);
        else decodeHalves(cursor, classes, halves, start, end);
        lanes.check();
      }
    },
    close: () => {
      lanes.close();
    },
  };
}

function classesOf({ width, map, classes }: Table): Classes {
  const column = (field: "kind" | "gapShift" | "gapStream" | "valueShift" | "valueStream") => {
    const values = new Uint8Array(MAX_CLASSES);
    for (const [index, entry] of classes.entries()) values[index] = entry[field];
    return values;
  };
  const kind = column("kind");
  return {
    width,
    map,
    kind,
    gapShift: column("gapShift"),
    gapStream: column("gapStream"),
    valueShift: column("valueShift"),
    valueStream: column("valueStream"),
    left: Int32Array.from(kind, (own) => (own === KINDS.direct ? 0 : -1)),
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
      if (cursor.count < shift) fill(cursor, shift);
      value = (value << shift) | (cursor.held & ((1 << shift) - 1));
      cursor.held >>>= shift;
      cursor.count -= shift;
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
      if (cursor.count < shift) fill(cursor, shift);
      value = (value << shift) | (cursor.held & ((1 << shift) - 1));
      cursor.held >>>= shift;
      cursor.count -= shift;
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
  if (cursor.count < shift) fill(cursor, shift);
  const low = cursor.held & ((1 << shift) - 1);
  cursor.held >>>= shift;
  cursor.count -= shift;
  return (high << shift) | low;
}

/** Holds at least `shift` bits, and at most 31. */
function fill(cursor: Cursor, shift: number): void {
  const { at, arena } = cursor;
  let position = at[BITS] ?? 0;
  while (cursor.count < shift) {
    cursor.held |= (arena[position++] ?? 0) << cursor.count;
    cursor.count += 8;
  }
  at[BITS] = position;
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
