/** Copies for a whole file: an index of the old bytes, and the new ones in parts that can be searched side by side. */
import { buildIndex, findCopies, indexBytes } from "./matcher.ts";
import type { Copies } from "./matcher.ts";

/** Finds copies between two byte strings, on as many threads as there are. */
export type Match = (old: Uint8Array, target: Uint8Array, signal: AbortSignal) => Promise<Copies>;

/** The same, and tells of the bytes of the new one that have been searched. */
export type Search = (
  old: Uint8Array,
  target: Uint8Array,
  searched: (bytes: number) => void,
  signal: AbortSignal,
) => Promise<Copies>;

/** The same whoever searches, and wherever: deltas must not depend on the number of processors. */
export const PART_BYTES = 4 * 1024 * 1024;

/** One thread: the one that asks. */
export const matchHere: Search = (old, target, searched, signal) => {
  const bytes = indexBytes(old.length);
  const index = {
    heads: new Int32Array(bytes.heads / 4),
    links: new Int32Array(bytes.links / 4),
  };
  buildIndex(old, index);
  const parts: Copies[] = [];
  for (let from = 0; from < target.length; from += PART_BYTES) {
    signal.throwIfAborted();
    const to = Math.min(target.length, from + PART_BYTES);
    parts.push(findCopies(old, target, index, from, to));
    searched(to - from);
  }
  return Promise.resolve(joinCopies(parts));
};

/** Copies of all parts; where one goes on in the next part it is one again. */
export function joinCopies(parts: readonly Copies[]): Copies {
  const joined = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let used = 0;
  for (const part of parts)
    for (let index = 0; index < part.length; index += 3) {
      const [target = 0, source = 0, length = 0] = part.subarray(index, index + 3);
      const before = used - 3;
      const ended = joined[before + 2] ?? 0;
      if (
        index === 0 &&
        used > 0 &&
        (joined[before] ?? 0) + ended === target &&
        (joined[before + 1] ?? 0) + ended === source
      )
        joined[before + 2] = ended + length;
      else {
        joined.set([target, source, length], used);
        used += 3;
      }
    }
  return joined.slice(0, used);
}
