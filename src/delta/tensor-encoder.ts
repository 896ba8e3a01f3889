/** The tensor codec's encoder: the streams that `tensor.ts` decodes. */
import type { StreamContent } from "./segment.ts";
import { openWriter, zigzag } from "./numbers.ts";
import type { Writer } from "./numbers.ts";
import { LENGTHS, chooseClasses } from "./tensor-classes.ts";
import { WIDTHS, openDiffer } from "./tensor-differences.ts";
import type { Differ, Dtype, Region } from "./tensor-differences.ts";
import { findRuns } from "./tensor-runs.ts";
import type { Runs } from "./tensor-runs.ts";
import { ESCAPE } from "./tensor-symbols.ts";
import { KEYS, KINDS, MAX_CLASSES, SYMBOL_STREAMS, writeTable } from "./tensor-table.ts";
import type { Table } from "./tensor-table.ts";
import { RAW } from "./tensor.ts";

/** Bytes up to which a stream of symbols is worth the trial of slower compressors. */
const SMALL_STREAM = 256 * 1024;

/** The regions of one type, which share a table. */
interface Part {
  readonly table: Table;
  readonly regions: readonly Region[];
  readonly runs: Runs;
  readonly output: Output;
}

/**
 * @param regions in the order of the new file, not overlapping there; what is between them is stored raw
 * @returns undefined when there is nothing for this codec to do
 */
export function encodeTensors(
  old: Uint8Array,
  target: Uint8Array,
  regions: readonly Region[],
  signal: AbortSignal,
): readonly StreamContent[] | undefined {
  if (regions.length === 0) return undefined;
  const differ = openDiffer(old, target);
  const control = openWriter();
  const raw = openWriter();
  const output = openOutput();
  const parts = new Map<Dtype, { readonly table: number; readonly coder: Coder; next: number }>();
  const dtypes = [...new Set(regions.map(({ dtype }) => dtype))];
  control.byte(dtypes.length);
  for (const [table, dtype] of dtypes.entries()) {
    signal.throwIfAborted();
    const own = regions.filter((region) => region.dtype === dtype);
    const part = plan(differ, dtype, own, output);
    writeTable(control, part.table);
    parts.set(dtype, { table, coder: openCoder(differ, part), next: 0 });
  }
  let [position, oldPosition] = [0, 0];
  const storeUntil = (end: number): void => {
    if (end === position) return;
    control.byte(RAW);
    control.number(end - position);
    raw.bytes(target.subarray(position, end));
    position = end;
  };
  for (const region of regions) {
    signal.throwIfAborted();
    storeUntil(region.target);
    const part = parts.get(region.dtype);
    if (part === undefined) continue;
    control.byte(part.table);
    control.number(region.size);
    control.number(zigzag(region.old - oldPosition));
    part.coder(region, part.next++, control);
    position += region.size;
    oldPosition = region.old + region.size;
  }
  storeUntil(target.length);
  return [
    { bytes: control.done(), codings: ["brotli"] },
    { bytes: raw.done(), codings: raw.done().length > SMALL_STREAM ? ["zstd"] : ["brotli"] },
    ...output.contents(),
  ];
}

function plan(differ: Differ, dtype: Dtype, regions: readonly Region[], output: Output): Part {
  const runs = findRuns(differ, regions);
  const statistics = new Uint32Array(KEYS * LENGTHS);
  for (const [index, region] of regions.entries())
    forCoded(differ, region, runs, index, (values, keys, count) => {
      for (let element = 0; element < count; element++) {
        const at = (keys[element] ?? 0) * LENGTHS + 32 - Math.clz32(values[element] ?? 0);
        statistics[at] = (statistics[at] ?? 0) + 1;
      }
    });
  const table = { width: WIDTHS[dtype], unitLog: runs.unitLog, ...chooseClasses(statistics) };
  return { table, regions, runs, output };
}

/** Visits the elements that are coded, in order. */
function forCoded(
  differ: Differ,
  region: Region,
  { byRegion, unitLog }: Runs,
  index: number,
  visit: (values: Uint32Array, keys: Uint16Array, count: number) => void,
): void {
  const elements = region.size / WIDTHS[region.dtype];
  let at = 0;
  for (const [turn, units] of (byRegion[index] ?? []).entries()) {
    const end = Math.min(elements, at + units * 2 ** unitLog);
    if (turn % 2 === 1)
      differ.visit(region, at, end, ({ values, keys }, _start, count) => {
        visit(values, keys, count);
      });
    at = end;
  }
}

/** Writes the runs of a region and codes its elements; regions must come in order. */
type Coder = (region: Region, index: number, control: Writer) => void;

function openCoder(differ: Differ, { table, regions, runs, output }: Part): Coder {
  const gaps = gapsOf(differ, regions, runs, table);
  const next = new Int32Array(MAX_CLASSES);
  const left = new Int32Array(MAX_CLASSES).fill(-1);
  const { map, classes } = table;
  return (region, index, control) => {
    for (const units of runs.byRegion[index] ?? []) control.number(units);
    forCoded(differ, region, runs, index, (values, keys, count) => {
      for (let element = 0; element < count; element++) {
        const value = values[element] ?? 0;
        const number = map[keys[element] ?? 0] ?? 0;
        const own = classes[number];
        if (own === undefined || own.kind === KINDS.same) continue;
        if (own.kind === KINDS.direct) {
          output.put(value, own.valueStream, own.valueShift);
          continue;
        }
        // In the decoder's order, because all classes share the streams of bits and escapes.
        let stay = left[number] ?? 0;
        if (stay < 0) {
          const turn = next[number] ?? 0;
          next[number] = turn + 1;
          stay = gaps[number]?.get(turn) ?? 0;
          output.put(stay, own.gapStream, own.gapShift);
        }
        left[number] = stay - 1;
        if (stay === 0) output.put(value - 1, own.valueStream, own.valueShift);
      }
    });
  };
}

/** By class: how many of its elements stay before each that does not, and after the last. */
function gapsOf(
  differ: Differ,
  regions: readonly Region[],
  runs: Runs,
  { map, classes }: Table,
): readonly Numbers[] {
  const gaps = classes.map(() => openNumbers());
  const stays = new Float64Array(MAX_CLASSES);
  for (const [index, region] of regions.entries())
    forCoded(differ, region, runs, index, (values, keys, count) => {
      for (let element = 0; element < count; element++) {
        const number = map[keys[element] ?? 0] ?? 0;
        if (values[element] === 0) stays[number] = (stays[number] ?? 0) + 1;
        else if (classes[number]?.kind === KINDS.gaps) {
          gaps[number]?.push(stays[number] ?? 0);
          stays[number] = 0;
        }
      }
    });
  for (const [number, list] of gaps.entries()) list.push(stays[number] ?? 0);
  return gaps;
}

interface Numbers {
  push(value: number): void;
  get(index: number): number | undefined;
}

function openNumbers(): Numbers {
  let numbers = new Uint32Array(256);
  let count = 0;
  return {
    push(value) {
      if (count === numbers.length) {
        const larger = new Uint32Array(2 * count);
        larger.set(numbers);
        numbers = larger;
      }
      numbers[count++] = value;
    },
    get: (index) => numbers[index],
  };
}

interface Output {
  /** Writes a number below 2^32: its high part as a symbol, its low bits apart. */
  put(value: number, stream: number, shift: number): void;
  /** Bits, escapes, symbols. */
  contents(): readonly StreamContent[];
}

function openOutput(): Output {
  const symbols = Array.from({ length: SYMBOL_STREAMS }, () => openWriter());
  const bits = openWriter();
  const escapes = openWriter();
  let [held, count] = [0, 0];
  return {
    put(value, stream, shift) {
      const high = Math.floor(value / 2 ** shift);
      if (high < ESCAPE) symbols[stream]?.byte(high);
      else {
        symbols[stream]?.byte(ESCAPE);
        escapes.number(high - ESCAPE);
      }
      if (shift === 0) return;
      held |= (value & ((1 << shift) - 1)) << count;
      count += shift;
      while (count >= 8) {
        bits.byte(held & 255);
        held >>>= 8;
        count -= 8;
      }
    },
    contents() {
      if (count > 0) bits.byte(held & 255);
      return [
        { bytes: bits.done(), codings: [] },
        { bytes: escapes.done(), codings: ["huffman", "brotli"] },
        ...symbols.map((writer): StreamContent => {
          const bytes = writer.done();
          const codings = bytes.length > SMALL_STREAM ? HUFFMAN : ALL;
          return { bytes, codings };
        }),
      ];
    },
  };
}

const HUFFMAN = ["huffman"] as const;
const ALL = ["huffman", "zstd", "brotli"] as const;
