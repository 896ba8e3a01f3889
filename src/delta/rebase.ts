/**
 * The rebased old file: what the old file would be if everything in it had moved as the moves say, and nothing else had changed. It
 * exists only as far as somebody looks: each byte depends on its position, on the few hundred old bytes around it, and on the moves.
 */
import { PAIR_BYTES, scanAarch64 } from "./aarch64.ts";
import { putBytes } from "./copies.ts";
import type { RandomAccess } from "./decoder.ts";
import { unreachable } from "../errors.ts";
import type { Copied, FieldSink, Stretch } from "./fields.ts";
import { scanGoTypes, scanOffsets } from "./go-tables.ts";
import { pageFlags } from "./image.ts";
import type { Image, Region } from "./image.ts";
import type { QuickRebase } from "./kernel.ts";
import type { Moves } from "./moves.ts";
import {
  BLOCK_BYTES,
  RECORD_LEAD,
  TAIL,
  anchorOf,
  findFrames,
  findFunctions,
  scanFrames,
  scanFunctionTable,
  scanFunctions,
} from "./records.ts";
import type { Anchors } from "./records.ts";
import { scanFrameIndex, scanPointers, scanRelocations, scanSymbols } from "./tables.ts";
import { X86_LEAD, scanX86 } from "./x86.ts";

/** Old bytes before a block that its fields may depend on; behind it there are {@link TAIL}. */
const LEAD = RECORD_LEAD;

/** Looks for the fields of a block, `bytes[0]` being the file's byte at `position`. */
export interface Scanner {
  readonly region: Region;
  /** Where its records begin, when it has some. */
  readonly anchors?: Anchors;
  scan(bytes: Buffer, position: number, from: number, to: number, sink: FieldSink): void;
}

/** @throws EdgeSyncError of the file */
export async function openScanners(
  image: Image,
  file: RandomAccess,
  signal: AbortSignal,
): Promise<readonly Scanner[]> {
  const flags = pageFlags(image.areas);
  const scanners: Scanner[] = [];
  for (const region of image.regions) {
    const { offset, size, address } = region;
    const anchors = await anchorsOf(region, file, signal);
    const fields = fieldsOf(region, image.oldBase, flags, anchors);
    const stretch: Stretch = {
      bytes: Buffer.alloc(0),
      from: 0,
      to: 0,
      limit: 0,
      origin: 0,
      address: 0,
    };
    scanners.push({
      region,
      ...(anchors !== undefined && { anchors }),
      scan(bytes, position, from, to, sink) {
        const end = offset + size;
        stretch.bytes = bytes;
        stretch.from = Math.max(from, offset) - position;
        stretch.to = Math.min(to, end) - position;
        // Never what happens to be there behind the region or the block.
        stretch.limit = Math.min(to + TAIL, end) - position;
        stretch.origin = offset - position;
        stretch.address = address - stretch.origin;
        fields(stretch, sink);
      },
    });
  }
  return scanners;
}

type Fields = (stretch: Stretch, sink: FieldSink) => void;

async function anchorsOf(
  region: Region,
  file: RandomAccess,
  signal: AbortSignal,
): Promise<Anchors | undefined> {
  if (region.name === "frames") return await findFrames(file, region, signal);
  if (region.name === "goRecords") return await findFunctions(file, region, signal);
  return undefined;
}

function fieldsOf(
  region: Region,
  base: number,
  flags: Uint8Array,
  anchors: Anchors | undefined,
): Fields {
  const { name, parameters } = region;
  const parameter = (index: number): number => parameters[index] ?? 0;
  const pair = (index: number) => ({ old: parameter(index), new: parameter(index + 1) });
  switch (name) {
    case "x86": {
      const operands = parameter(0) === 1 ? base : undefined;
      return (stretch, sink) => scanX86(earlier(stretch, X86_LEAD), flags, operands, sink);
    }
    case "aarch64":
      return (stretch, sink) =>
        scanAarch64(earlier(stretch, PAIR_BYTES), flags, parameter(0) === 1, sink);
    case "relocations":
      return (stretch, sink) => scanRelocations(stretch, parameter(0), base, flags, sink);
    case "symbols":
      return (stretch, sink) => scanSymbols(stretch, pair(0), base, flags, sink);
    case "pointers":
      return (stretch, sink) => scanPointers(stretch, base, flags, sink);
    case "frameIndex":
      return (stretch, sink) => scanFrameIndex(stretch, parameter(0), flags, sink);
    case "frames":
      return (stretch, sink) => {
        const start = firstRecord(anchors, region, stretch);
        if (start !== undefined) scanFrames(stretch, start, flags, sink);
      };
    case "goTable":
      return (stretch, sink) => scanFunctionTable(stretch, pair(0), pair(2), sink);
    case "goRecords": {
      const bases = {
        code: pair(0),
        names: pair(2),
        tables: pair(4),
        units: pair(6),
        data: pair(8),
      };
      return (stretch, sink) => {
        const start = firstRecord(anchors, region, stretch);
        if (start !== undefined) scanFunctions(stretch, start, bases, sink);
      };
    }
    case "offsets":
      return (stretch, sink) => scanOffsets(stretch, pair(0), sink);
    case "goTypes":
      return (stretch, sink) => scanGoTypes(stretch, pair(0), pair(2), base, flags, sink);
    default:
      return unreachable(name);
  }
}

function earlier(stretch: Stretch, lead: number): Stretch {
  stretch.from = Math.max(stretch.from - lead, stretch.origin, 0);
  return stretch;
}

function firstRecord(
  anchors: Anchors | undefined,
  region: Region,
  { from, origin }: Stretch,
): number | undefined {
  if (anchors === undefined) return undefined;
  const anchor = anchorOf(anchors, region, region.offset + from - origin);
  return anchor < 0 ? undefined : origin + anchor;
}

/**
 * Calls `scan` for each block between two positions.
 *
 * @param bytes the old file from `position` on; from {@link before} `from` to {@link behind} `to`
 */
export function scanBlocks(
  scanners: readonly Scanner[],
  bytes: Buffer,
  position: number,
  from: number,
  to: number,
  sink: (blockFrom: number, blockTo: number) => FieldSink,
): void {
  for (let index = firstBehind(scanners, from); index < scanners.length; index++) {
    const scanner = scanners[index];
    if (scanner === undefined || scanner.region.offset >= to) return;
    scanRegion(scanner, bytes, position, from, to, sink);
  }
}

function scanRegion(
  scanner: Scanner,
  bytes: Buffer,
  position: number,
  from: number,
  to: number,
  sink: (blockFrom: number, blockTo: number) => FieldSink,
): void {
  const { offset, size } = scanner.region;
  const end = Math.min(to, offset + size);
  let start = Math.max(from, offset);
  while (start < end) {
    const block = start - (start % BLOCK_BYTES);
    const blockEnd = block + BLOCK_BYTES;
    scanner.scan(bytes, position, block, blockEnd, sink(start, Math.min(blockEnd, end)));
    start = blockEnd;
  }
}

/** The first whose region ends behind a position; regions are in the order of their offsets. */
function firstBehind(scanners: readonly Scanner[], position: number): number {
  let low = 0;
  let high = scanners.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    const region = scanners[middle]?.region;
    if (region !== undefined && region.offset + region.size <= position) low = middle + 1;
    else high = middle;
  }
  return low;
}

function endOf(scanner: Scanner | undefined): number | undefined {
  return scanner && scanner.region.offset + scanner.region.size;
}

/** Where the bytes begin, and end, that the view between two positions depends on. */
export function before(from: number): number {
  return Math.max(0, from - (from % BLOCK_BYTES) - LEAD);
}

export function behind(to: number, size: number): number {
  return Math.min(size, to - (to % BLOCK_BYTES) + BLOCK_BYTES + TAIL);
}

/** Makes a copy and moves what is in it; the old bytes are there from {@link before} `from` to {@link behind} `to`. */
export type Rebase = (...copy: Copied) => void;

/** What the fields of copies count from. */
export interface Placing {
  /** The address of a field at a position of the new file; `address` is where it stood before. */
  readonly place: (position: number, address: number) => number;
  /** Whether what leads to the copy that it is in still does so in the new file, whatever the moves say. */
  readonly stays: boolean;
}

/** @param quick does it for what it can */
export function openRebase(
  scanners: readonly Scanner[],
  moves: Moves,
  newBase: number,
  placing: Placing,
  quick: QuickRebase = JAVASCRIPT,
): Rebase {
  const mover = openMover(moves, newBase, placing);
  // Where a copy begins, the next one mostly does too: between the end of the region before it, and its own.
  let [first, start, end] = [0, 0, 0];
  return (bytes, position, from, to, into, at, goal) => {
    if (!quick.copy(bytes, position, from, to, into, at, goal))
      putBytes(into, at, bytes, from - position, to - from);
    if (from < start || from >= end) {
      first = firstBehind(scanners, from);
      start = endOf(scanners[first - 1]) ?? 0;
      end = endOf(scanners[first]) ?? Number.MAX_SAFE_INTEGER;
    }
    for (let index = first; index < scanners.length; index++) {
      const scanner = scanners[index];
      if (scanner === undefined || scanner.region.offset >= to) return;
      if (quick.move(scanner, bytes, position, from, to, into, at, goal)) continue;
      mover.copy(bytes, position, from, to, into, at, goal);
      scanRegion(scanner, bytes, position, from, to, mover.to);
    }
  };
}

const JAVASCRIPT: QuickRebase = { copy: () => false, move: () => false };

interface Mover extends FieldSink {
  /** Sets what is copied where, */
  copy(...copy: Copied): void;
  /** and which of these bytes are written, between two positions of the old file. */
  readonly to: (from: number, to: number) => FieldSink;
}

/** Writes each field as it is after the move. */
function openMover(moves: Moves, newBase: number, { place, stays }: Placing): Mover {
  let source: Buffer = Buffer.alloc(0);
  let out: Uint8Array = source;
  let [base, shift, goal, first, last] = [0, 0, 0, 0, 0];
  // What is copied, when what leads to it stays.
  let [start, end] = [0, 0];

  /** Little-endian. */
  function write(at: number, value: number): void {
    const place = at + shift;
    if (at >= first && at + 4 <= last) {
      out[place] = value;
      out[place + 1] = value >>> 8;
      out[place + 2] = value >>> 16;
      out[place + 3] = value >>> 24;
    } else {
      for (let index = 0; index < 4; index++)
        if (at + index >= first && at + index < last) out[place + index] = value >>> (8 * index);
    }
  }

  function leadsInside(at: number, address: number, target: number): boolean {
    const index = at + target - address;
    return index >= start && index < end;
  }

  const mover: Mover = {
    copy(bytes, position, from, to, into, at, place) {
      source = bytes;
      out = into;
      base = position;
      shift = at + position - from;
      goal = place + position - from;
      if (stays) [start, end] = [from - position, to - position];
    },
    to(from, to) {
      first = from - base;
      last = to - base;
      return mover;
    },
    relative(at, address, target, bias) {
      if (leadsInside(at, address, target)) return;
      write(at, (moves.target(target) - place(at + goal, address) - bias) | 0);
    },
    backward(at, address, target) {
      if (leadsInside(at, address, target)) return;
      write(at, (place(at + goal, address) - moves.target(target)) | 0);
    },
    offset(at, target, base, scale) {
      write(at, Math.floor((moves.target(target) - base) / scale) | 0);
    },
    absolute(at, target, wide) {
      const value = moves.target(target) + newBase;
      write(at, value | 0);
      if (wide) write(at + 4, Math.floor(value / 2 ** 32) | 0);
    },
    branch(at, address, target, low, bits) {
      if (leadsInside(at, address, target)) return;
      const mask = ((1 << bits) - 1) << low;
      const distance = (moves.target(target) - place(at + goal, address)) >> 2;
      write(at, (source.readInt32LE(at) & ~mask) | ((distance << low) & mask));
    },
    page(at, second, address, target, scale) {
      const moved = moves.target(target);
      const pages = (moved >> 12) - (place(at + goal, address) >> 12);
      const high = source.readInt32LE(at) & 0x9f00_001f;
      write(at, high | ((pages & 3) << 29) | (((pages >> 2) & 0x7_ffff) << 5));
      const rest = (((moved & 4095) >> scale) & 0xfff) << 10;
      write(second, (source.readInt32LE(second) & ~(0xfff << 10)) | rest);
    },
  };
  return mover;
}
