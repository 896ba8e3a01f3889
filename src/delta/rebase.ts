/**
 * The rebased old file: what the old file would be if everything in it had moved as the moves say, and nothing else had changed. It
 * exists only as far as somebody looks: each byte depends on its position, on the few hundred old bytes around it, and on the moves.
 */
import { PAIR_BYTES, scanAarch64 } from "./aarch64.ts";
import type { OldView } from "./copies.ts";
import type { RandomAccess } from "./decoder.ts";
import { unreachable } from "../errors.ts";
import type { FieldSink, Stretch } from "./fields.ts";
import { scanGoTypes, scanOffsets } from "./go-tables.ts";
import { pageFlags } from "./image.ts";
import type { Image, Region } from "./image.ts";
import type { Moves } from "./moves.ts";
import type { Pages } from "./pages.ts";
import {
  BLOCK_BYTES,
  RECORD_LEAD,
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

/** Old bytes before and behind a block that its fields may depend on. */
const LEAD = RECORD_LEAD;
const TAIL = PAIR_BYTES + 16;

/** Looks for the fields of a block, `bytes[0]` being the file's byte at `position`. */
export interface Scanner {
  readonly region: Region;
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
    const fields = await fieldsOf(region, image.oldBase, flags, file, signal);
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

async function fieldsOf(
  region: Region,
  base: number,
  flags: Uint8Array,
  file: RandomAccess,
  signal: AbortSignal,
): Promise<Fields> {
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
    case "frames": {
      const anchors = await findFrames(file, region, signal);
      return (stretch, sink) => {
        const start = firstRecord(anchors, region, stretch);
        if (start !== undefined) scanFrames(stretch, start, flags, sink);
      };
    }
    case "goTable":
      return (stretch, sink) => scanFunctionTable(stretch, pair(0), pair(2), sink);
    case "goRecords": {
      const anchors = await findFunctions(file, region, signal);
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
  anchors: Anchors,
  region: Region,
  { from, origin }: Stretch,
): number | undefined {
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
  for (const scanner of scanners) {
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
}

/** Where the bytes begin, and end, that the view between two positions depends on. */
export function before(from: number): number {
  return Math.max(0, from - (from % BLOCK_BYTES) - LEAD);
}

export function behind(to: number, size: number): number {
  return Math.min(size, to - (to % BLOCK_BYTES) + BLOCK_BYTES + TAIL);
}

export function rebasedView(
  pages: Pages,
  scanners: readonly Scanner[],
  moves: Moves,
  newBase: number,
): OldView {
  const { size } = pages;
  let scratch = Buffer.alloc(0);
  const mover = openMover(moves, newBase);
  return {
    size,
    want: (from, to) => pages.want(before(from), behind(to, size)),
    load: (signal) => pages.load(signal),
    copy(into, at, from, to) {
      const start = before(from);
      const end = behind(to, size);
      if (scratch.length < end - start) scratch = Buffer.allocUnsafeSlow(2 * (end - start));
      pages.copy(scratch, 0, start, end);
      into.set(scratch.subarray(from - start, to - start), at);
      scanBlocks(scanners, scratch, start, from, to, (blockFrom, blockTo) =>
        mover.to(scratch, into, at + start - from, blockFrom - start, blockTo - start),
      );
    },
  };
}

interface Mover extends FieldSink {
  /** Sets where fields go: byte `i` to `into[i + skew]`, for i from `from` to `to`. */
  to(bytes: Buffer, into: Uint8Array, skew: number, from: number, to: number): FieldSink;
}

/** Writes each field as it is after the move. */
function openMover(moves: Moves, newBase: number): Mover {
  let source: Buffer = Buffer.alloc(0);
  let out: Uint8Array = source;
  let [shift, first, last] = [0, 0, 0];

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

  const mover: Mover = {
    to(bytes, into, skew, from, to) {
      source = bytes;
      out = into;
      shift = skew;
      first = from;
      last = to;
      return mover;
    },
    relative(at, address, target, bias) {
      write(at, (moves.target(target) - moves.position(address) - bias) | 0);
    },
    backward(at, address, target) {
      write(at, (moves.position(address) - moves.target(target)) | 0);
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
      const mask = ((1 << bits) - 1) << low;
      const distance = (moves.target(target) - moves.position(address)) >> 2;
      write(at, (source.readInt32LE(at) & ~mask) | ((distance << low) & mask));
    },
    page(at, second, address, target, scale) {
      const moved = moves.target(target);
      const pages = (moved >> 12) - (moves.position(address) >> 12);
      const high = source.readInt32LE(at) & 0x9f00_001f;
      write(at, high | ((pages & 3) << 29) | (((pages >> 2) & 0x7_ffff) << 5));
      const rest = (((moved & 4095) >> scale) & 0xfff) << 10;
      write(second, (source.readInt32LE(second) & ~(0xfff << 10)) | rest);
    },
  };
  return mover;
}
