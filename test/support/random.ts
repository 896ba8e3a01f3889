/** Chance that can be had again. */

/** Numbers in [0,1), the same for the same seed (mulberry32). */
export function randomOf(seed: string): () => number {
  let state = 0;
  for (const character of seed)
    state = Math.imul(state ^ (character.codePointAt(0) ?? 0), 0x01000193);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let value = Math.imul(state ^ (state >>> 15), 1 | state);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return ((value ^ (value >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** At most `count` of them, in their order, the same for the same seed. */
export function sampleOf<T>(items: readonly T[], count: number, seed: string): readonly T[] {
  const random = randomOf(seed);
  const drawn = items.map((item, index) => ({ item, index, lot: random() }));
  return drawn
    .toSorted((a, b) => a.lot - b.lot)
    .slice(0, count)
    .toSorted((a, b) => a.index - b.index)
    .map(({ item }) => item);
}
