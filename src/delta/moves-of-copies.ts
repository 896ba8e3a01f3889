/** From copies to moves: a copy that begins at one old address and at another new one says how far everything in it has moved. */
import type { Executables, Mapped } from "./image-of-elf.ts";
import type { Copies } from "./matcher.ts";
import { MAX_MOVES } from "./moves.ts";
import type { Shifts } from "./moves.ts";
import { zigzag } from "./numbers.ts";
import type { Writer } from "./numbers.ts";

/** Copies shorter than this say nothing about moves. */
const LEAST_BYTES = 32;

interface Move {
  /** Old addresses. */
  from: number;
  end: number;
  readonly shift: number;
}

export function movesOfCopies(copies: Copies, executables: Executables): Shifts {
  const moves = disjoint(movesBetween(copies, executables));
  const { addresses, shifts } = executables.sections;
  const starts: [number, number][] = [];
  let next = 0;
  let current = 0;
  const put = (address: number, shift: number): void => {
    if (shift === current) return;
    starts.push([address, shift]);
    current = shift;
  };
  let covered = 0;
  const putSections = (before: number): void => {
    for (; next < addresses.length && (addresses[next] ?? 0) < before; next++)
      // The start of a section says where it went, unless a copy does.
      if ((addresses[next] ?? 0) >= covered) put(addresses[next] ?? 0, shifts[next] ?? 0);
  };
  for (const { from, end, shift } of moves) {
    putSections(from);
    put(from, shift);
    covered = end;
  }
  putSections(Number.POSITIVE_INFINITY);
  const kept = starts.slice(0, MAX_MOVES);
  return {
    addresses: Int32Array.from(kept, ([address]) => address),
    shifts: Int32Array.from(kept, ([, shift]) => shift),
  };
}

/** Copies as moves of addresses; one that crosses segments makes several. */
function movesBetween(copies: Copies, { oldLayout, newLayout }: Executables): Move[] {
  const moves: Move[] = [];
  for (let index = 0; index < copies.length; index += 3) {
    const target = copies[index] ?? 0;
    const source = copies[index + 1] ?? 0;
    const length = copies[index + 2] ?? 0;
    if (length < LEAST_BYTES) continue;
    for (const old of oldLayout.mapped)
      for (const now of newLayout.mapped) {
        const distance = target - source;
        const from = Math.max(source, old.offset, now.offset - distance);
        const end = Math.min(
          source + length,
          old.offset + old.size,
          now.offset + now.size - distance,
        );
        if (from >= end) continue;
        const address = from - old.offset + old.address;
        const shift = from + distance - now.offset + now.address - address;
        moves.push({ from: address, end: address + end - from, shift });
      }
  }
  return moves;
}

/** Where two say something about the same address, the longer one is right. */
function disjoint(moves: Move[]): readonly Move[] {
  moves.sort((a, b) => a.from - b.from);
  const result: Move[] = [];
  for (const move of moves) {
    const last = result.at(-1);
    if (last !== undefined && move.from < last.end) {
      if (move.end - move.from > last.end - last.from) last.end = move.from;
      else move.from = last.end;
      if (last.from >= last.end) result.pop();
    }
    if (move.from < move.end) result.push(move);
  }
  return result;
}

/** The address of a file's byte; -1 when it has none. Quick for positions near each other. */
export function addresses(mapped: readonly Mapped[]): (offset: number) => number {
  let current: Mapped | undefined;
  return (offset) => {
    if (current === undefined || offset < current.offset || offset >= current.offset + current.size)
      current = mapped.find((part) => offset >= part.offset && offset < part.offset + part.size);
    return current === undefined ? -1 : offset - current.offset + current.address;
  };
}

export function writeShifts({ addresses, shifts }: Shifts, at: Writer, by: Writer): void {
  let address = 0;
  let shift = 0;
  for (let index = 0; index < addresses.length; index++) {
    at.number((addresses[index] ?? 0) - address);
    by.number(zigzag((shifts[index] ?? 0) - shift));
    address = addresses[index] ?? 0;
    shift = shifts[index] ?? 0;
  }
}
