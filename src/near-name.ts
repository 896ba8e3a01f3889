/** Which name may have been meant, for messages about one that is not known. */

/** The first of `known` that takes at most two changes of a letter to reach. */
export function nearName(name: string, known: readonly string[]): string | undefined {
  return known.find((one) => distance(one, name) <= 2);
}

/** Levenshtein's, for short names. */
function distance(a: string, b: string): number {
  if (Math.abs(a.length - b.length) > 2) return 3;
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substituted = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substituted, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
