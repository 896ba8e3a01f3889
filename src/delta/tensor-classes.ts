/**
 * Which keys share a class. Keys whose elements move alike are put together until there are few enough classes, and while putting two
 * together costs less than a class of its own.
 */
import { entropy } from "./tensor-runs.ts";
import { KEYS, KINDS, MAX_CLASSES, MAX_SHIFT } from "./tensor-table.ts";
import type { Class } from "./tensor-table.ts";

/** Columns of the statistics: 0 for an element that stays, else the bits of the difference. */
export const LENGTHS = 33;
/** Bits, about, that a class takes by itself: tables of its streams, its place in the map. */
const CLASS_COST = 1200;
/** A key with a smaller share of the elements is given its neighbour's class: the map would cost more than it brings. */
const RARE = 1 / 16_384;
/** Above this share of changed elements, a difference for each is cheaper than gaps. */
const DENSE = 0.35;
/** The share of elements that may be too large for one symbol. */
const OUTLIERS = 1 / 8192;

interface Group {
  readonly keys: number[];
  readonly counts: Float64Array;
  elements: number;
  cost: number;
}

export interface Classes {
  readonly classes: readonly Class[];
  readonly map: Uint8Array;
}

/** @param statistics by key and column, how many elements */
export function chooseClasses(statistics: Uint32Array): Classes {
  const groups = merged(groupsOf(statistics));
  const map = new Uint8Array(KEYS);
  const known = new Uint8Array(KEYS);
  for (const [index, { keys }] of groups.entries())
    for (const key of keys) {
      map[key] = index;
      known[key] = 1;
    }
  // A key that nobody has may have any class: the one before it makes the shortest map.
  for (let key = 1; key < KEYS; key++) if (known[key] === 0) map[key] = map[key - 1] ?? 0;
  // Rare keys went to their neighbours' classes, which must be able to code what they hold.
  const columns = groups.map(() => new Float64Array(LENGTHS));
  for (let key = 0; key < KEYS; key++) {
    const column = columns[map[key] ?? 0];
    if (column === undefined) continue;
    for (let length = 0; length < LENGTHS; length++)
      column[length] = (column[length] ?? 0) + (statistics[key * LENGTHS + length] ?? 0);
  }
  return { classes: columns.map(classOf), map };
}

function groupsOf(statistics: Uint32Array): Group[] {
  const groups: (Group & { readonly mean: number })[] = [];
  let total = 0;
  for (const count of statistics) total += count;
  for (let key = 0; key < KEYS; key++) {
    const counts = Float64Array.from(statistics.subarray(key * LENGTHS, (key + 1) * LENGTHS));
    let [elements, sum] = [0, 0];
    for (const [length, count] of counts.entries()) {
      elements += count;
      sum += count * length;
    }
    if (elements <= total * RARE) continue;
    groups.push({
      keys: [key],
      counts,
      elements,
      cost: entropy([...counts]),
      mean: sum / elements,
    });
  }
  if (groups.length === 0)
    groups.push({ keys: [0], counts: new Float64Array(LENGTHS), elements: 0, cost: 0, mean: 0 });
  return groups.sort((a, b) => a.mean - b.mean);
}

/** Neighbours in the order of how far they move are put together, the cheapest pair first. */
function merged(groups: Group[]): readonly Group[] {
  const losses = groups.map((group, index) => loss(group, groups[index + 1]));
  while (groups.length > 1) {
    let cheapest = 0;
    for (let index = 1; index + 1 < groups.length; index++)
      if ((losses[index] ?? Infinity) < (losses[cheapest] ?? Infinity)) cheapest = index;
    if (groups.length <= MAX_CLASSES && (losses[cheapest] ?? 0) > CLASS_COST) break;
    const [group, next] = [groups[cheapest], groups[cheapest + 1]];
    if (group === undefined || next === undefined) break;
    group.cost += next.cost + (losses[cheapest] ?? 0);
    group.elements += next.elements;
    for (const key of next.keys) group.keys.push(key);
    for (const [length, count] of next.counts.entries())
      group.counts[length] = (group.counts[length] ?? 0) + count;
    groups.splice(cheapest + 1, 1);
    losses.splice(cheapest + 1, 1);
    losses[cheapest] = loss(group, groups[cheapest + 1]);
    const before = groups[cheapest - 1];
    if (before !== undefined) losses[cheapest - 1] = loss(before, group);
  }
  return groups;
}

/** Bits that two groups cost more together. */
function loss(group: Group, next: Group | undefined): number {
  if (next === undefined) return Infinity;
  const sum = group.counts.map((count, length) => count + (next.counts[length] ?? 0));
  return entropy([...sum]) - group.cost - next.cost;
}

function classOf(counts: Float64Array, index: number): Class {
  let elements = 0;
  for (const count of counts) elements += count;
  const stay = counts[0] ?? 0;
  const changed = elements - stay;
  const same = { kind: KINDS.same, gapShift: 0, gapStream: 0, valueShift: 0, valueStream: 0 };
  if (changed === 0) return same;
  const bits = quantile(counts, changed * OUTLIERS);
  if (changed > elements * DENSE)
    return {
      ...same,
      kind: KINDS.direct,
      valueShift: clampShift(bits - 8),
      valueStream: index,
    };
  // Nearly all gaps are shorter than nine times the mean.
  const longest = (9 * elements) / changed;
  return {
    kind: KINDS.gaps,
    gapShift: clampShift(Math.ceil(Math.log2(longest / 255))),
    gapStream: index,
    // The lowest bit is the sign, which is noise.
    valueShift: clampShift(Math.max(1, bits - 8)),
    valueStream: MAX_CLASSES + Math.floor((index * 3) / MAX_CLASSES),
  };
}

function clampShift(shift: number): number {
  return Math.max(0, Math.min(MAX_SHIFT, shift));
}

/** The bits of a difference that only `outliers` elements exceed. */
function quantile(counts: Float64Array, outliers: number): number {
  let above = 0;
  for (let length = LENGTHS - 1; length > 0; length--) {
    above += counts[length] ?? 0;
    if (above > outliers) return length;
  }
  return 0;
}
