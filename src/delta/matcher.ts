/**
 * Finds copies: for each part of the new bytes a place in the old ones that is nearly the same. The rules are those of bsdiff (Colin
 * Percival, "Naive differences of executable code", 2003): follow the place of the last match as long as it explains half of the
 * bytes, and leave it when another explains enough more. Where bsdiff searches a suffix array, this looks up seeds of 10 bytes in a
 * hash table of chains, which finds the same in a fifth of the time and half of the memory.
 */

/** Bytes that must be equal for a place to be considered. */
export const SEED_BYTES = 10;
/** Places that are looked at for a seed: beyond that they are padding, or equally good. */
const CHAIN = 64;
/** So many equal bytes at the place of the last match, and no other place is looked for. */
const GOOD_BYTES = 24;
/** No match is looked at any longer: it is good enough. */
const LONG_BYTES = 4096;
/** By how many bytes another place must be better. */
const BETTER_BYTES = 8;

/** Where seeds stand in the old bytes. In shared memory when several threads use it. */
export interface SeedIndex {
  /** The last position of each hash, or -1. */
  readonly heads: Int32Array;
  /** For each position the one before it with the same hash, or -1. */
  readonly links: Int32Array;
}

/** Bytes of {@link SeedIndex.heads} and {@link SeedIndex.links} for so many old bytes: 5 to 6 for each. */
export function indexBytes(old: number): { readonly heads: number; readonly links: number } {
  const log = Math.min(26, Math.max(12, Math.floor(Math.log2(old + 1)) - 1));
  return { heads: 4 * 2 ** log, links: 4 * old };
}

export function buildIndex(old: Uint8Array, { heads, links }: SeedIndex): void {
  heads.fill(-1);
  const view = new DataView(old.buffer, old.byteOffset, old.byteLength);
  const shift = Math.clz32(heads.length) + 1;
  const last = old.length - SEED_BYTES;
  for (let position = 0; position <= last; position++) {
    const hash =
      (Math.imul(view.getUint32(position, true), 0x9e37_79b1) ^
        Math.imul(view.getUint32(position + SEED_BYTES - 4, true), 0x85eb_ca77)) >>>
      shift;
    links[position] = heads[hash] ?? -1;
    heads[hash] = position;
  }
}

/** Copies, three numbers each: where in the new bytes, where in the old ones, how many. In order, not overlapping in the new bytes. */
export type Copies = Int32Array<ArrayBuffer>;

/** Copies for the new bytes between two positions. */
export function findCopies(
  old: Uint8Array,
  target: Uint8Array,
  index: SeedIndex,
  from: number,
  to: number,
): Copies {
  const { heads, links } = index;
  const oldEnd = old.length;
  const view = new DataView(target.buffer, target.byteOffset, target.byteLength);
  const shift = Math.clz32(heads.length) + 1;
  const found: number[] = [];
  /** Set by {@link longest}. */
  let place = -1;

  /** Length of the longest match of more than `least` bytes at a position, or 0. Of equally long ones, the one nearest to `near`. */
  function longest(position: number, least: number, near: number): number {
    place = -1;
    if (position + SEED_BYTES > to) return 0;
    const hash =
      (Math.imul(view.getUint32(position, true), 0x9e37_79b1) ^
        Math.imul(view.getUint32(position + SEED_BYTES - 4, true), 0x85eb_ca77)) >>>
      shift;
    let best = least;
    let candidate = heads[hash] ?? -1;
    for (let tries = CHAIN; candidate >= 0 && tries > 0; tries--) {
      if (old[candidate + best - 1] === target[position + best - 1]) {
        const limit = Math.min(oldEnd - candidate, to - position);
        let length = 0;
        while (length < limit && old[candidate + length] === target[position + length]) length++;
        if (
          length > best ||
          (length === best && place >= 0 && Math.abs(candidate - near) < Math.abs(place - near))
        ) {
          best = length;
          place = candidate;
          if (length >= LONG_BYTES) break;
        }
      }
      candidate = links[candidate] ?? -1;
    }
    return place >= 0 ? best : 0;
  }

  let scan = from;
  let length = 0;
  let position = 0;
  // The last match: where it begins in both, and its distance.
  let lastScan = from;
  let lastPosition = 0;
  let distance = -from;
  while (scan < to) {
    let score = 0;
    scan += length;
    let scored = scan;
    for (; scan < to; scan++) {
      let here = 0;
      const continued = scan + distance;
      if (continued >= 0 && continued < oldEnd) {
        const limit = Math.min(oldEnd - continued, to - scan, 1 << 16);
        while (here < limit && old[continued + here] === target[scan + here]) here++;
      }
      length = here;
      position = continued;
      if (here < GOOD_BYTES) {
        const other = longest(scan, Math.max(here, SEED_BYTES - 1), continued);
        if (other > here) {
          length = other;
          position = place;
        }
      }
      for (; scored < scan + length; scored++) {
        const at = scored + distance;
        if (at >= 0 && at < oldEnd && old[at] === target[scored]) score++;
      }
      if ((length === score && length !== 0) || length > score + BETTER_BYTES) break;
      if (continued >= 0 && continued < oldEnd && old[continued] === target[scan]) score--;
    }
    if (length === score && scan < to) continue;
    // How far the last match explains more than half of the bytes, onwards; and the new one, backwards.
    let forward = 0;
    for (let i = 0, equal = 0, best = 0; lastScan + i < scan && lastPosition + i < oldEnd;) {
      if (old[lastPosition + i] === target[lastScan + i]) equal++;
      i++;
      if (equal * 2 - i > best) {
        best = equal * 2 - i;
        forward = i;
      }
    }
    let backward = 0;
    if (scan < to) {
      for (let i = 1, equal = 0, best = 0; scan >= lastScan + i && position >= i; i++) {
        if (old[position - i] === target[scan - i]) equal++;
        if (equal * 2 - i > best) {
          best = equal * 2 - i;
          backward = i;
        }
      }
    }
    const overlap = lastScan + forward - (scan - backward);
    if (overlap > 0) {
      let cut = 0;
      for (let i = 0, gain = 0, best = 0; i < overlap; i++) {
        const byte = target[scan - backward + i];
        if (byte === old[lastPosition + forward - overlap + i]) gain++;
        if (byte === old[position - backward + i]) gain--;
        if (gain > best) {
          best = gain;
          cut = i + 1;
        }
      }
      forward += cut - overlap;
      backward -= cut;
    }
    if (forward > 0) found.push(lastScan, lastPosition, forward);
    lastScan = scan - backward;
    lastPosition = position - backward;
    distance = position - scan;
  }
  return Int32Array.from(found);
}
