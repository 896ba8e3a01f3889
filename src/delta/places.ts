/**
 * Where the new file's bytes are loaded. What counts from its own place, such as the operand of a call, is right wherever a copy of it
 * goes, when it is known where that is.
 */
import { ADDRESS_LIMIT } from "./image.ts";
import { invalid } from "./invalid.ts";
import type { Writer } from "./numbers.ts";

/** Instructions that new bytes may hold; their numbers are part of the format. */
export const MACHINES = { none: 0, x86: 1, aarch64: 2 } as const;

/** From an offset of the new file on, up to the next part. */
export interface PlacedPart {
  readonly offset: number;
  readonly address: number;
  readonly executable: boolean;
}

export interface Layout {
  readonly machine: number;
  /** No address of the new file is as high. */
  readonly end: number;
  /** In the order of their offsets. */
  readonly parts: readonly PlacedPart[];
}

export interface Places {
  /** The address of a byte of the new file; quick for positions near each other. */
  readonly address: (position: number) => number;
  readonly isCode: (position: number) => boolean;
  /** Address minus position, when it is the same for all positions of a range. */
  readonly distance: (from: number, to: number) => number | undefined;
}

export const MAX_PARTS = 256;

export function writeLayout({ machine, end, parts }: Layout, writer: Writer): void {
  writer.number(machine);
  writer.number(end);
  writer.number(parts.length);
  let last = 0;
  for (const { offset, address, executable } of parts) {
    writer.number(offset - last);
    writer.number(address * 2 + (executable ? 1 : 0));
    last = offset;
  }
}

/** @throws EdgeSyncError DELTA_INVALID */
export async function readLayout(number: () => Promise<number>): Promise<Layout> {
  const machine = await number();
  if (machine > MACHINES.aarch64) throw invalid(`a machine of kind ${machine}`);
  const end = await number();
  if (end > ADDRESS_LIMIT) throw invalid(`addresses up to ${end}`);
  const count = await number();
  if (count > MAX_PARTS) throw invalid(`${count} parts, at most ${MAX_PARTS} are allowed`);
  const parts: PlacedPart[] = [];
  let offset = 0;
  while (parts.length < count) {
    offset += await number();
    const value = await number();
    const address = Math.floor(value / 2);
    if (offset >= 2 ** 48 || address >= ADDRESS_LIMIT)
      throw invalid(`a part at ${offset} with the address ${address}`);
    parts.push({ offset, address, executable: value % 2 === 1 });
  }
  return { machine, end, parts };
}

/** Before the first part an address is the position. */
export function openPlaces({ parts }: Layout): Places {
  // The part that was found last: these positions are in it.
  let [from, to, distance, code] = [0, -1, 0, false];

  function find(position: number): void {
    let index = parts.length;
    while (index > 0 && (parts[index - 1]?.offset ?? 0) > position) index--;
    const part = parts[index - 1];
    from = part?.offset ?? 0;
    to = parts[index]?.offset ?? Number.POSITIVE_INFINITY;
    distance = part === undefined ? 0 : part.address - part.offset;
    code = part?.executable ?? false;
  }

  return {
    address(position) {
      if (position < from || position >= to) find(position);
      return position + distance;
    },
    isCode(position) {
      if (position < from || position >= to) find(position);
      return code;
    },
    distance(start, end) {
      if (start < from || start >= to) find(start);
      // Before the first part, also those that are none.
      return end <= to && (start >= from || from === 0) ? distance : undefined;
    },
  };
}
