/**
 * Addresses that have moved otherwise than the moves say. Every field of a copy shows, in the new file, where its target really is now;
 * when several agree on the same other place, it is worth a point of its own.
 */
import type { FieldSink } from "./fields.ts";
import type { Executables } from "./image-of-elf.ts";
import type { Copies } from "./matcher.ts";
import type { Moves, Shifts } from "./moves.ts";
import { MAX_MOVES } from "./moves.ts";
import { addresses } from "./moves-of-copies.ts";
import { scanBlocks } from "./rebase.ts";
import type { Scanner } from "./rebase.ts";

/** So many fields more than agree with the moves. */
const MAJORITY = 2;

export function findPoints(
  old: Buffer,
  target: Buffer,
  copies: Copies,
  scanners: readonly Scanner[],
  moves: Moves,
  { newLayout, image }: Executables,
): Shifts {
  /** Pairs, the real address before the meant one. */
  const wrong = openList();
  const right = openList();
  const addressOf = addresses(newLayout.mapped);
  let [first, last, distance] = [0, 0, 0];

  function vote(at: number, bytes: number, meant: number, real: (at: number) => number): void {
    if (at < first || at + bytes > last) return;
    const actual = real(at + distance);
    if (actual < 0 || actual >= 2 ** 31) return;
    if (moves.target(meant) === actual) right.add(meant);
    else {
      wrong.add(actual);
      wrong.add(meant);
    }
  }
  const here = (at: number): number => addressOf(at);
  /** What leads to the copy that it is in needs no move. */
  const leadsInside = (at: number, address: number, meant: number): boolean =>
    at + meant - address >= first && at + meant - address < last;

  const voter: FieldSink = {
    relative(at, address, meant, bias) {
      if (!leadsInside(at, address, meant))
        vote(at, 4, meant, (at) => here(at) + bias + target.readInt32LE(at));
    },
    backward(at, address, meant) {
      if (!leadsInside(at, address, meant))
        vote(at, 4, meant, (at) => here(at) - target.readInt32LE(at));
    },
    offset: (at, meant, base, scale) =>
      vote(at, 4, meant, (at) => base + target.readInt32LE(at) * scale),
    absolute: (at, meant) => vote(at, 4, meant, (at) => target.readUInt32LE(at) - image.newBase),
    branch(at, address, meant, low, bits) {
      if (leadsInside(at, address, meant)) return;
      vote(at, 4, meant, (at) => {
        const word = target.readInt32LE(at);
        return here(at) + ((word << (32 - low - bits)) >> (32 - bits)) * 4;
      });
    },
    page(at, second, _, meant, scale) {
      vote(at, second + 4 - at, meant, (at) => {
        const word = target.readInt32LE(at);
        const pages = (((((word >> 5) & 0x7_ffff) << 2) | ((word >>> 29) & 3)) << 11) >> 11;
        const rest = ((target.readInt32LE(second + distance) >>> 10) & 0xfff) << scale;
        return (here(at) & ~4095) + pages * 4096 + rest;
      });
    },
  };
  for (let index = 0; index < copies.length; index += 3) {
    const source = copies[index + 1] ?? 0;
    first = source;
    last = source + (copies[index + 2] ?? 0);
    distance = (copies[index] ?? 0) - source;
    scanBlocks(scanners, old, 0, first, last, () => voter);
  }
  sortPairs(wrong.done());
  return count(wrong.done(), right.done().sort(), moves);
}

function count(wrong: Uint32Array, right: Uint32Array, moves: Moves): Shifts {
  const found: [number, number][] = [];
  let agree = 0;
  for (let index = 0; index < wrong.length;) {
    const address = wrong[index + 1] ?? 0;
    let [best, votes] = [0, 0];
    while (wrong[index + 1] === address) {
      const actual = wrong[index] ?? 0;
      const start = index;
      while (wrong[index + 1] === address && wrong[index] === actual) index += 2;
      if ((index - start) / 2 > votes) [best, votes] = [actual, (index - start) / 2];
    }
    while (agree < right.length && (right[agree] ?? 0) < address) agree++;
    let against = 0;
    while (right[agree + against] === address) against++;
    if (votes - against >= MAJORITY && moves.target(address) !== best)
      found.push([address, best - address]);
  }
  const kept = found.slice(0, MAX_MOVES);
  return {
    addresses: Int32Array.from(kept, ([address]) => address),
    shifts: Int32Array.from(kept, ([, shift]) => shift),
  };
}

/** Numbers that grow in number. */
function openList(): { add(value: number): void; done(): Uint32Array } {
  let values = new Uint32Array(1024);
  let used = 0;
  return {
    add(value) {
      if (used === values.length) {
        const larger = new Uint32Array(2 * used);
        larger.set(values);
        values = larger;
      }
      values[used++] = value;
    },
    done: () => values.subarray(0, used),
  };
}

/** Pairs as numbers of 64 bits, the first number above: sorting them is then what typed arrays do fastest. */
function sortPairs(pairs: Uint32Array): void {
  new BigUint64Array(pairs.buffer, pairs.byteOffset, pairs.length / 2).sort();
}
