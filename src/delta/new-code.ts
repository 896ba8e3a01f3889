/**
 * New code in a delta. Where a call counts from its own place, each call of the same function has another operand; as addresses they
 * are equal, and compress. Instructions are not decoded: whatever looks like such an operand is turned, and turned back by the same
 * rule, which no operand's value can break.
 */
import type { QuickTurn } from "./kernel.ts";
import { MACHINES } from "./places.ts";
import type { Layout, Places } from "./places.ts";
import { readWord } from "./tables.ts";

/** New bytes are turned in parts, each by itself, that end before the next copy and at multiples of this in the new file. */
export const PART_BYTES = 32 * 1024;

/** Turns a part between two indexes, whose first byte will stand at a position of the new file. */
export type Turn = (bytes: Buffer, from: number, to: number, position: number) => void;

/** To what stands in a delta. */
export function turnToAddresses(layout: Layout, places: Places): Turn {
  return turn(layout, places, true);
}

/**
 * To what stands in the file.
 *
 * @param quick does it for what it can
 */
export function turnBack(layout: Layout, places: Places, quick?: QuickTurn): Turn {
  const slow = turn(layout, places, false);
  if (quick === undefined) return slow;
  return (bytes, from, to, position) => {
    if (!quick(bytes, from, to, position)) slow(bytes, from, to, position);
  };
}

function turn({ machine, end }: Layout, places: Places, absolute: boolean): Turn {
  return (bytes, from, to, position) => {
    if (!places.isCode(position)) return;
    const address = places.address(position) - from;
    if (machine === MACHINES.x86) turnX86(bytes, from, to, address, end, absolute);
    else if (machine === MACHINES.aarch64) turnAarch64(bytes, from, to, address, absolute);
  };
}

/**
 * CALL, JMP, Jcc, and what is addressed relative to the next instruction, at the address `next`: operands from `-next` to below `end`
 * are turned to addresses from 0 to below `end`, and those that lead beyond the end to what is left.
 *
 * @param address of `bytes[0]`
 */
function turnX86(
  bytes: Buffer,
  from: number,
  to: number,
  address: number,
  end: number,
  absolute: boolean,
): void {
  for (let at = from; at + 5 <= to;) {
    const byte = bytes[at] ?? 0;
    let field = at + 1;
    if (byte === 0x0f && ((bytes[field] ?? 0) & 0xf0) === 0x80) field++;
    else if ((byte & 0xfe) !== 0xe8 && (byte & 0xc7) !== 0x05) {
      at++;
      continue;
    }
    // Also behind an operand that is not turned: were its bytes looked at again, it might not look the same on the way back.
    at = field + 4;
    if (at > to) return;
    const next = address + at;
    const value = readWord(bytes, field);
    if (value < -next || value >= end) continue;
    let turned: number;
    if (absolute) turned = value < end - next ? value + next : value - end;
    else turned = value >= 0 ? value - next : value + end;
    bytes.writeInt32LE(turned | 0, field);
  }
}

/** B and BL, in units of four bytes, and ADRP, in pages. */
function turnAarch64(
  bytes: Buffer,
  from: number,
  to: number,
  address: number,
  absolute: boolean,
): void {
  const sign = absolute ? 1 : -1;
  for (let at = from + (-(address + from) & 3); at + 4 <= to; at += 4) {
    const word = bytes.readInt32LE(at);
    if (((word >>> 24) & 0x7c) === 0x14) {
      const turned = (word + sign * Math.floor((address + at) / 4)) & 0x3ff_ffff;
      bytes.writeInt32LE((word & ~0x3ff_ffff) | turned, at);
    } else if (((word >>> 24) & 0x9f) === 0x90) {
      const pages = (((word >>> 5) & 0x7_ffff) << 2) | ((word >>> 29) & 3);
      const turned = pages + sign * Math.floor((address + at) / 4096);
      const low = (turned & 3) << 29;
      bytes.writeInt32LE((word & ~0x60ff_ffe0) | low | (((turned >> 2) & 0x7_ffff) << 5), at);
    }
  }
}
