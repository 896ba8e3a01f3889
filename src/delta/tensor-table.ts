/**
 * What a table of the tensor codec says: how the elements of a region are coded. An element's class is known to both sides from the old
 * element, because how far a weight moves depends on how large it was: the same step is many units of the last place of a small weight
 * and none of a large one.
 *
 * In the control stream a table is: a byte, the bytes of an element (2 or 4); a byte, log2 of the elements in a unit; a byte, the number of
 * classes; for each class its kind in a byte, then for `gaps` the shift and the stream of its gaps, and for `gaps` and `direct` the shift
 * and the stream of its values, a byte each; then the classes of all {@link KEYS} keys as runs: how many keys (a number), which class (a byte).
 */
import { invalid } from "./invalid.ts";
import { NUMBER_BYTES, readNumber } from "./numbers.ts";
import type { Writer } from "./numbers.ts";
import type { ByteSource } from "./source.ts";

/** Exponent and first bits of the mantissa, without the sign: 12 bits, for each of float32, bfloat16 and float16. */
export const KEYS = 4096;
export const MAX_TABLES = 4;
export const MAX_CLASSES = 8;
export const MAX_SHIFT = 24;
/** Streams that hold symbols: a byte each, so that Huffman's tables fit their values. */
export const SYMBOL_STREAMS = 11;
const MAX_UNIT_LOG = 20;

/** `same`: never changes. `gaps`: changes now and then. `direct`: a difference for each element. */
export const KINDS = { same: 0, gaps: 1, direct: 2 } as const;
export type Kind = (typeof KINDS)[keyof typeof KINDS];

export interface Class {
  readonly kind: Kind;
  /** Low bits that stand apart, because they are noise. */
  readonly gapShift: number;
  readonly gapStream: number;
  readonly valueShift: number;
  readonly valueStream: number;
}

export interface Table {
  /** Bytes of an element. */
  readonly width: 2 | 4;
  /** Log2 of the elements in a unit, in which runs are counted. */
  readonly unitLog: number;
  readonly classes: readonly Class[];
  /** Class by key. */
  readonly map: Uint8Array;
}

/** @throws EdgeSyncError DELTA_INVALID */
export async function readTable(control: ByteSource, signal: AbortSignal): Promise<Table> {
  const byte = async (most: number): Promise<number> => {
    if (control.at === control.end) await control.ready(1, signal);
    if (control.at === control.end) throw invalid("a stream ends too early");
    const value = control.buffer[control.at++] ?? 0;
    if (value > most) throw invalid(`${value} in a table where at most ${most} is allowed`);
    return value;
  };
  const width = await byte(4);
  if (width !== 2 && width !== 4) throw invalid(`elements of ${width} bytes`);
  const unitLog = await byte(MAX_UNIT_LOG);
  const count = await byte(MAX_CLASSES);
  if (count === 0) throw invalid("a table without classes");
  const classes: Class[] = [];
  for (let index = 0; index < count; index++) {
    const kind = (await byte(KINDS.direct)) as Kind;
    const gaps = kind === KINDS.gaps;
    const values = kind !== KINDS.same;
    classes.push({
      kind,
      gapShift: gaps ? await byte(MAX_SHIFT) : 0,
      gapStream: gaps ? await byte(SYMBOL_STREAMS - 1) : 0,
      valueShift: values ? await byte(MAX_SHIFT) : 0,
      valueStream: values ? await byte(SYMBOL_STREAMS - 1) : 0,
    });
  }
  const map = new Uint8Array(KEYS);
  for (let key = 0; key < KEYS;) {
    await control.ready(NUMBER_BYTES, signal);
    const run = readNumber(control);
    if (run === 0 || run > KEYS - key) throw invalid(`a run of ${run} keys at key ${key}`);
    map.fill(await byte(count - 1), key, key + run);
    key += run;
  }
  return { width, unitLog, classes, map };
}

export function writeTable(writer: Writer, { width, unitLog, classes, map }: Table): void {
  writer.byte(width);
  writer.byte(unitLog);
  writer.byte(classes.length);
  for (const { kind, gapShift, gapStream, valueShift, valueStream } of classes) {
    writer.byte(kind);
    if (kind === KINDS.gaps) {
      writer.byte(gapShift);
      writer.byte(gapStream);
    }
    if (kind !== KINDS.same) {
      writer.byte(valueShift);
      writer.byte(valueStream);
    }
  }
  for (let key = 0; key < KEYS;) {
    let end = key + 1;
    while (end < KEYS && map[end] === map[key]) end++;
    writer.number(end - key);
    writer.byte(map[key] ?? 0);
    key = end;
  }
}
