/**
 * Sections whose records follow each other without a table that tells where: .eh_frame and Go's function records. They are read once
 * before the first piece is made, and for each block it is remembered where its first record begins.
 */
import { PAIR_BYTES } from "./aarch64.ts";
import type { RandomAccess } from "./decoder.ts";
import type { FieldSink, Stretch } from "./fields.ts";
import type { Region } from "./image.ts";

/** The old file is looked at in blocks of this size, at multiples of it, so that each byte's view depends on its position alone. */
export const BLOCK_BYTES = 512;
/** Old bytes behind a block that its fields may depend on. */
export const TAIL = PAIR_BYTES + 16;
/** How far before its block a first record may begin. */
export const RECORD_LEAD = 128;
const READ_BYTES = 64 * 1024;

/** For each block of a region the offset in it of the first record that matters to the block, or -1. */
export type Anchors = Int32Array;

function blocksOf({ offset, size }: Region): { readonly first: number; readonly count: number } {
  const first = Math.floor(offset / BLOCK_BYTES);
  return { first, count: Math.floor((offset + size) / BLOCK_BYTES) - first + 1 };
}

/** Takes record starts in ascending order. */
function collectAnchors(region: Region): {
  readonly anchors: Anchors;
  readonly add: (start: number) => void;
} {
  const { first, count } = blocksOf(region);
  const anchors = new Int32Array(count).fill(-1);
  return {
    anchors,
    add(start) {
      const position = region.offset + start;
      const block = Math.floor(position / BLOCK_BYTES) - first;
      if (anchors[block] === -1) anchors[block] = start;
      // The last record before the next block may reach into it.
      const next = (block + first + 1) * BLOCK_BYTES;
      if (next - position <= RECORD_LEAD && block + 1 < count) anchors[block + 1] = start;
    },
  };
}

/** Where the records of a block begin, as an offset in the region; -1 when there are none. */
export function anchorOf(anchors: Anchors, region: Region, blockStart: number): number {
  const block = Math.floor(blockStart / BLOCK_BYTES) - Math.floor(region.offset / BLOCK_BYTES);
  return anchors[block] ?? -1;
}

/** A part of a region in memory, which moves forward over it. */
interface Window {
  readonly bytes: Buffer;
  /** Of the region, where it begins and ends. */
  readonly start: number;
  readonly end: number;
  /** Moves it to an offset before the region's end. */
  move(offset: number, signal: AbortSignal): Promise<void>;
}

function openWindow(file: RandomAccess, region: Region): Window {
  const bytes = Buffer.allocUnsafeSlow(Math.min(READ_BYTES, region.size));
  const window = {
    bytes,
    start: 0,
    end: 0,
    async move(offset: number, signal: AbortSignal) {
      signal.throwIfAborted();
      window.start = offset;
      window.end = Math.min(region.size, offset + bytes.length);
      await file.readInto(bytes.subarray(0, window.end - offset), region.offset + offset);
    },
  };
  return window;
}

/** Bytes of a record that hold addresses, its length included. */
const FRAME_BYTES = 24;

export async function findFrames(
  file: RandomAccess,
  region: Region,
  signal: AbortSignal,
): Promise<Anchors> {
  const { anchors, add } = collectAnchors(region);
  const window = openWindow(file, region);
  for (let offset = 0; offset + 4 <= region.size;) {
    // Only where it must: a promise for each record costs more than all else that is done with it.
    if (offset + 4 > window.end) await window.move(offset, signal);
    const length = window.bytes.readUInt32LE(offset - window.start);
    if (length > 0) add(offset);
    // Lengths of 2^32 - 1 announce 64 bits; nobody writes them.
    if (length > 0x10_0000) break;
    offset += 4 + length;
  }
  return anchors;
}

/**
 * Linux Standard Base, 10.6.1: a record that is no CIE has the distance back to its CIE at 4, the address of its code at 8, and, when
 * its data has four bytes, that of its language's data at 17. All count from the field itself.
 *
 * @param start index of the first record
 */
export function scanFrames(
  { bytes, to, limit, address }: Stretch,
  start: number,
  flags: Uint8Array,
  sink: FieldSink,
): void {
  const known = (target: number): boolean => (flags[target >>> 12] ?? 0) !== 0;
  for (let at = start; at < to && at + FRAME_BYTES <= limit;) {
    const length = bytes.readUInt32LE(at);
    if (length > 0x10_0000) return;
    if (length >= 16) {
      const back = bytes.readInt32LE(at + 4);
      const here = address + at;
      if (back !== 0) {
        if (known(here + 4 - back)) sink.backward(at + 4, here + 4, here + 4 - back);
        const code = here + 8 + bytes.readInt32LE(at + 8);
        if (known(code)) sink.relative(at + 8, here + 8, code, 0);
        const data = bytes.readInt32LE(at + 17);
        if (bytes[at + 16] === 4 && data !== 0 && known(here + 17 + data))
          sink.relative(at + 17, here + 17, here + 17 + data, 0);
      }
    }
    at += 4 + length;
  }
}

/** Bytes of a function record without its tables: runtime/symtab.go, type _func. */
const FUNCTION_BYTES = 44;

/**
 * @param table Go's table of functions, which stands before the records and counts from their base
 * @param base offset in the old range that the table's offsets count from
 */
export async function findFunctions(
  file: RandomAccess,
  region: Region,
  signal: AbortSignal,
): Promise<Anchors> {
  const { anchors, add } = collectAnchors(region);
  const window = openWindow(file, region);
  for (let offset = 0; offset + FUNCTION_BYTES <= region.size;) {
    if (offset + FUNCTION_BYTES > window.end) await window.move(offset, signal);
    add(offset);
    offset += recordBytes(window.bytes, offset - window.start);
  }
  return anchors;
}

/** Records are aligned to 8 bytes. */
function recordBytes(bytes: Buffer, at: number): number {
  const tables = bytes.readUInt32LE(at + 28) + (bytes[at + 43] ?? 0);
  return Math.ceil((FUNCTION_BYTES + 4 * Math.min(tables, 0x1_0000)) / 8) * 8;
}

/** What the fields of Go's tables count from, old and new: code, names, pc tables, units, function data. */
export interface GoBases {
  readonly code: Base;
  readonly names: Base;
  readonly tables: Base;
  readonly units: Base;
  readonly data: Base;
}

export interface Base {
  readonly old: number;
  readonly new: number;
}

const NOTHING = 0xffff_ffff;

/** @param start index of the first record */
export function scanFunctions(
  { bytes, to, limit }: Stretch,
  start: number,
  bases: GoBases,
  sink: FieldSink,
): void {
  const field = (at: number, base: Base, scale: number = 1): void => {
    if (at + 4 > limit) return;
    const value = bytes.readUInt32LE(at);
    if (value === NOTHING) return;
    const target = base.old + value * scale;
    if (target < 2 ** 31) sink.offset(at, target, base.new, scale);
  };
  const tableField = (at: number, base: Base): void => {
    // 0 stands for no table.
    if (at + 4 <= limit && bytes.readUInt32LE(at) !== 0) field(at, base);
  };
  for (let at = start; at < to && at + FUNCTION_BYTES <= limit;) {
    field(at, bases.code);
    field(at + 4, bases.names);
    for (const table of [16, 20, 24]) tableField(at + table, bases.tables);
    field(at + 32, bases.units, 4);
    const end = at + recordBytes(bytes, at);
    let place = at + FUNCTION_BYTES;
    const tables = place + 4 * Math.min(bytes.readUInt32LE(at + 28), 0x1_0000);
    for (; place < Math.min(tables, to); place += 4) tableField(place, bases.tables);
    if (bases.data.old !== 0)
      for (place = tables; place + 4 <= end && place < to; place += 4)
        if (place < tables + 4 * (bytes[at + 43] ?? 0)) tableField(place, bases.data);
    at = end;
  }
}

/** The table of functions: pairs of an offset of code and an offset of a record. */
export function scanFunctionTable(
  { bytes, from, to, limit, origin }: Stretch,
  code: Base,
  records: Base,
  sink: FieldSink,
): void {
  const first = Math.max(origin + Math.ceil((from - 3 - origin) / 4) * 4, origin);
  for (let at = first; at < to && at + 4 <= limit; at += 4) {
    const base = (at - origin) % 8 === 0 ? code : records;
    const target = base.old + bytes.readUInt32LE(at);
    if (target < 2 ** 31) sink.offset(at, target, base.new, 1);
  }
}
