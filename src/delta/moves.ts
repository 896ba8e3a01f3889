/**
 * Where each address of the old file has moved to. From each start on, up to the next, addresses move by the same shift; points are
 * single addresses that move otherwise, such as a variable that was put elsewhere.
 */
import { ADDRESS_LIMIT } from "./image.ts";
import { invalid } from "./invalid.ts";
import { NUMBER_BYTES, isShort, readNumber, signed } from "./numbers.ts";
import type { ByteSource } from "./source.ts";

/** Starts, and points, that a delta may have; 4 MiB in memory. */
export const MAX_MOVES = 2 ** 18;

export interface Shifts {
  /** Ascending. */
  readonly addresses: Int32Array;
  readonly shifts: Int32Array;
}

/** What the search works on. */
export interface MoveTables {
  /** Ascending, from 0 on, and how far an address from there to the next moves. */
  readonly addresses: Int32Array;
  readonly shifts: Int32Array;
  /** For each page of addresses the last start at or before it. */
  readonly pages: Int32Array;
  /** How many starts there are. */
  readonly used: number;
}

export interface Moves {
  readonly tables: MoveTables;
  /** Where an address below {@link ADDRESS_LIMIT} has moved to. */
  target(address: number): number;
  /** The same, quick for addresses that are asked for in order. */
  position(address: number): number;
}

/** @throws EdgeSyncError DELTA_INVALID */
export async function readShifts(
  count: number,
  addressSource: ByteSource,
  shiftSource: ByteSource,
  signal: AbortSignal,
): Promise<Shifts> {
  if (count > MAX_MOVES) throw invalid(`${count} moves, at most ${MAX_MOVES} are allowed`);
  const addresses = new Int32Array(count);
  const shifts = new Int32Array(count);
  let address = 0;
  let shift = 0;
  for (let index = 0; index < count; index++) {
    // Only where it must: a promise for each number costs more than all else that is done with it.
    if (isShort(addressSource)) await addressSource.ready(NUMBER_BYTES, signal);
    if (isShort(shiftSource)) await shiftSource.ready(NUMBER_BYTES, signal);
    address += readNumber(addressSource);
    shift += signed(readNumber(shiftSource));
    if (address >= ADDRESS_LIMIT || Math.abs(shift) >= ADDRESS_LIMIT)
      throw invalid(`address ${address} moves by ${shift}`);
    addresses[index] = address;
    shifts[index] = shift;
  }
  return { addresses, shifts };
}

/** Words that {@link openMoves} takes for each of its three tables. */
export function wordsOfMoves(
  starts: Shifts,
  points: Shifts,
  end: number,
): readonly [number, number, number] {
  const count = starts.addresses.length + 2 * points.addresses.length + 1;
  return [count, count, Math.floor(end / 4096) + 2];
}

/**
 * @param end addresses are asked for below this
 * @param words makes room for a table
 */
export function openMoves(
  starts: Shifts,
  points: Shifts,
  end: number,
  words: (count: number) => Int32Array = (count) => new Int32Array(count),
): Moves {
  const [count, , pageCount] = wordsOfMoves(starts, points, end);
  const [addresses, shifts, pages] = [words(count), words(count), words(pageCount)];
  const used = merge(starts, points, addresses, shifts);
  for (let page = 0, index = 0; page < pages.length; page++) {
    while (index + 1 < used && (addresses[index + 1] ?? 0) <= page * 4096) index++;
    pages[page] = index;
  }
  // Between these all addresses move alike.
  let [from, to, same] = [0, 0, 0];

  function find(address: number): number {
    const page = address >>> 12;
    let low = pages[page] ?? 0;
    let high = pages[page + 1] ?? used - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((addresses[middle] ?? 0) <= address) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  return {
    tables: { addresses, shifts, pages, used },
    target: (address) => address + (shifts[find(address)] ?? 0),
    position(address) {
      if (address < from || address >= to) {
        const index = find(address);
        from = addresses[index] ?? 0;
        to = index + 1 < used ? (addresses[index + 1] ?? 0) : ADDRESS_LIMIT;
        same = shifts[index] ?? 0;
      }
      return address + same;
    },
  };
}

/** Both as one row of starts, the first at 0. Returns how many there are. */
function merge(starts: Shifts, points: Shifts, addresses: Int32Array, shifts: Int32Array): number {
  let used = 1;
  let current = 0;
  [addresses[0], shifts[0]] = [0, 0];
  const put = (address: number, shift: number): void => {
    if (addresses[used - 1] === address) used--;
    addresses[used] = address;
    shifts[used++] = shift;
  };
  let next = 0;
  const putStarts = (last: number): void => {
    for (; next < starts.addresses.length && (starts.addresses[next] ?? 0) <= last; next++) {
      current = starts.shifts[next] ?? 0;
      put(starts.addresses[next] ?? 0, current);
    }
  };
  for (let index = 0; index < points.addresses.length; index++) {
    const address = points.addresses[index] ?? 0;
    putStarts(address);
    put(address, points.shifts[index] ?? 0);
    put(address + 1, current);
  }
  putStarts(Number.POSITIVE_INFINITY);
  return used;
}
