/**
 * Which part of the old file helps most with a segment of the new one. Both files are read once, in order, and marked at places that
 * their content chooses; marks that both have tell how far the segment has moved.
 */
import { readBytes } from "./decoder.ts";
import type { RandomAccess } from "./decoder.ts";

/** On average a mark for each 4 KiB. */
const MARK_MASK = 0xfff;
/** Bytes that decide a mark: what is older has been shifted out of the hash. */
const SPAN = 32;
const READ_BYTES = 1024 * 1024;
/** Windows begin at multiples of this, so that neighbours share one when they can. */
export const STEP = 1024 * 1024;

/** Random constants for the gear hash, made from a linear congruence (Numerical Recipes) so that every build has the same. */
const GEAR = Uint32Array.from({ length: 256 }, () => 0);
for (let index = 0, state = 1; index < 256; index++) {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
  const high = state & 0xffff_0000;
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
  GEAR[index] = (high | (state >>> 16)) >>> 0;
}

/** Calls `visit` with each mark between two positions: the hash of the bytes before it, and where it is. */
async function forEachMark(
  file: RandomAccess,
  from: number,
  to: number,
  visit: (hash: number, position: number) => void,
  signal: AbortSignal,
): Promise<void> {
  let hash = 0;
  for (let start = from; start < to; start += READ_BYTES) {
    signal.throwIfAborted();
    const bytes = await readBytes(file, start, Math.min(READ_BYTES, to - start));
    for (let index = 0; index < bytes.length; index++) {
      hash = ((hash << 1) + (GEAR[bytes[index] ?? 0] ?? 0)) >>> 0;
      // The high bits depend on all of the last 32 bytes.
      if (hash >>> 20 === MARK_MASK && start + index - from >= SPAN) visit(hash, start + index);
    }
  }
}

export interface Marks {
  /** Where the window for the new file's bytes from `start` to `end` begins. */
  windowFor(start: number, end: number, signal: AbortSignal): Promise<number>;
}

/**
 * Reads the old file once.
 *
 * @param length bytes of a window, a multiple of {@link STEP}; the old file is longer
 */
export async function markOld(
  old: RandomAccess,
  target: RandomAccess,
  length: number,
  signal: AbortSignal,
): Promise<Marks> {
  const positions = new Map<number, number>();
  await forEachMark(
    old,
    0,
    old.size,
    (hash, position) => {
      // A mark that is met often, such as in padding, says nothing about the place.
      positions.set(hash, positions.has(hash) ? -1 : position);
    },
    signal,
  );
  return {
    async windowFor(start, end, signal) {
      const votes = new Map<number, number>();
      await forEachMark(
        target,
        start,
        end,
        (hash) => {
          const position = positions.get(hash) ?? -1;
          if (position < 0) return;
          const step = Math.floor(position / STEP);
          votes.set(step, (votes.get(step) ?? 0) + 1);
        },
        signal,
      );
      return best(votes, start, end);
    },
  };

  function best(votes: ReadonlyMap<number, number>, start: number, end: number): number {
    const steps = length / STEP;
    const last = old.size - length;
    // Without any vote, the same relative place: the middle of the segment in the middle of the window.
    const middle = ((start + end) / 2) * (old.size / target.size);
    let chosen = Math.ceil(clamp(middle - length / 2, last) / STEP);
    let most = sum(votes, chosen, steps);
    for (let step = 0; step * STEP < last + STEP; step++) {
      const count = sum(votes, step, steps);
      if (count > most) {
        most = count;
        chosen = step;
      }
    }
    return clamp(chosen * STEP, last);
  }
}

function clamp(value: number, last: number): number {
  return Math.max(0, Math.min(Math.floor(value), last));
}

function sum(votes: ReadonlyMap<number, number>, step: number, count: number): number {
  let total = 0;
  for (let index = step; index < step + count; index++) total += votes.get(index) ?? 0;
  return total;
}
