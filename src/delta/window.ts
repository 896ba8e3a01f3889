/**
 * Which parts of the old file help most with a segment of the new one, when they are too large to be searched as a whole. Both files are
 * read once, in order, and marked at places that their content chooses; marks that both have tell where parts of the segment were before.
 */
import type { RandomAccess } from "./decoder.ts";
import type { Range } from "./plan.ts";

/** On average a mark for each 4 KiB; for fewer when there would be more than {@link MAX_MARKS}. */
const LEAST_MARK_LOG = 12;
/** About 50 MiB in memory. */
const MAX_MARKS = 2 ** 21;
/** Bytes that decide a mark: what is older has been shifted out of the hash. */
const SPAN = 32;
const READ_BYTES = 1024 * 1024;
/** Parts of the old file are chosen in steps of this. Bytes. */
export const STEP = 1024 * 1024;
/** Steps around where a segment should have been, besides those that marks have named: for what is only similar. */
const AROUND = 16;

/** Random constants for the gear hash, made from a linear congruence (Numerical Recipes) so that every build has the same. */
const GEAR = Uint32Array.from({ length: 256 }, () => 0);
for (let index = 0, state = 1; index < 256; index++) {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
  const high = state & 0xffff_0000;
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
  GEAR[index] = (high | (state >>> 16)) >>> 0;
}

/** Calls `visit` with each mark between two positions: what stands before it, as a number of 52 bits, and where it is. */
async function forEachMark(
  file: RandomAccess,
  { offset, size }: Range,
  log: number,
  visit: (identity: number, position: number) => void,
  signal: AbortSignal,
): Promise<void> {
  const mask = 2 ** log - 1;
  // The last bytes of the piece before stand in front of each piece.
  const buffer = Buffer.alloc(SPAN + Math.min(READ_BYTES, size));
  let hash = 0;
  for (let done = 0; done < size;) {
    signal.throwIfAborted();
    const count = Math.min(READ_BYTES, size - done);
    await file.readInto(buffer.subarray(SPAN, SPAN + count), offset + done);
    for (let index = SPAN; index < SPAN + count; index++) {
      hash = ((hash << 1) + (GEAR[buffer[index] ?? 0] ?? 0)) >>> 0;
      // The high bits depend on all of the last 32 bytes.
      if (hash >>> (32 - log) === mask && done + index - SPAN >= SPAN)
        visit(identityOf(buffer, index + 1 - SPAN), offset + done + index + 1 - SPAN);
    }
    buffer.copyWithin(0, count, count + SPAN);
    done += count;
  }
}

/** The hash of a mark has too few bits left to tell millions of them apart. */
function identityOf(bytes: Buffer, from: number): number {
  let [high, low] = [1, 2];
  for (let at = from; at < from + SPAN; at += 4) {
    const word = bytes.readInt32LE(at);
    high = Math.imul(high ^ word, 0x9e37_79b1);
    high ^= high >>> 15;
    low = Math.imul(low ^ word, 0x85eb_ca77);
    low ^= low >>> 13;
  }
  return (high >>> 0) * 2 ** 20 + (low >>> 12);
}

/** The first step in which each mark was seen. */
interface Steps {
  put(identity: number, step: number): void;
  /** -1 when there is none. */
  get(identity: number): number;
}

/** A hash table in two arrays: a Map of as many numbers takes four times the memory. */
function openSteps(expected: number): Steps {
  const capacity = 2 ** Math.ceil(Math.log2(2 * expected + 1024));
  const identities = new Float64Array(capacity);
  const steps = new Int32Array(capacity).fill(-1);
  let room = Math.floor(0.75 * capacity);
  const slotOf = (identity: number): number => {
    let slot = Math.floor(identity / 64) % capacity;
    while (steps[slot] !== -1 && identities[slot] !== identity) slot = (slot + 1) % capacity;
    return slot;
  };
  return {
    put(identity, step) {
      const slot = slotOf(identity);
      if (steps[slot] !== -1 || room === 0) return;
      room--;
      identities[slot] = identity;
      steps[slot] = step;
    },
    get: (identity) => steps[slotOf(identity)] ?? -1,
  };
}

export interface Marks {
  /** Parts of the old file, in its order and apart from each other, for a part of the new one. */
  piecesFor(target: Range, signal: AbortSignal): Promise<readonly Range[]>;
}

/**
 * Reads the old file once.
 *
 * @param most bytes of all pieces for a segment, a multiple of {@link STEP}
 */
export async function markOld(
  old: RandomAccess,
  target: RandomAccess,
  most: number,
  signal: AbortSignal,
): Promise<Marks> {
  const log = Math.max(LEAST_MARK_LOG, Math.ceil(Math.log2(old.size / MAX_MARKS)));
  const steps = openSteps(Math.min(MAX_MARKS, old.size / 2 ** log));
  const put = (identity: number, position: number): void => {
    steps.put(identity, Math.floor((position - 1) / STEP));
  };
  await forEachMark(old, { offset: 0, size: old.size }, log, put, signal);
  return {
    async piecesFor(range, signal) {
      const votes = new Map<number, number>();
      const distances: number[] = [];
      const vote = (identity: number, position: number): void => {
        const step = steps.get(identity);
        if (step < 0) return;
        votes.set(step, (votes.get(step) ?? 0) + 1);
        distances.push(step - position / STEP);
      };
      await forEachMark(target, range, log, vote, signal);
      return piecesOf(choose(votes, distances, range), old.size);
    },
  };

  /** The steps with the most votes, then those around where most of the segment was. */
  function choose(
    votes: ReadonlyMap<number, number>,
    distances: number[],
    { offset, size }: Range,
  ): ReadonlySet<number> {
    const room = most / STEP;
    const ranked = [...votes].sort(([a, many], [b, more]) => more - many || a - b);
    const chosen = new Set(ranked.slice(0, room).map(([step]) => step));
    // Without any vote, the same relative place.
    const middle = (offset + size / 2) / STEP;
    const center =
      distances.length > 0
        ? middle + (distances.sort((a, b) => a - b)[distances.length >> 1] ?? 0)
        : middle * (old.size / target.size);
    const last = Math.ceil(old.size / STEP) - 1;
    const first = Math.max(0, Math.min(Math.floor(center), last));
    const reach = Math.ceil(size / STEP / 2) + AROUND;
    for (let away = 0; away <= reach; away++)
      for (const step of [first - away, first + away])
        if (step >= 0 && step <= last && chosen.size < room) chosen.add(step);
    return chosen;
  }
}

/** Steps as ranges; neighbours are one. */
function piecesOf(steps: ReadonlySet<number>, oldSize: number): readonly Range[] {
  const pieces: Range[] = [];
  for (const step of [...steps].sort((a, b) => a - b)) {
    const offset = step * STEP;
    const size = Math.min(STEP, oldSize - offset);
    const before = pieces.at(-1);
    if (before !== undefined && before.offset + before.size === offset)
      pieces[pieces.length - 1] = { offset: before.offset, size: before.size + size };
    else pieces.push({ offset, size });
  }
  return pieces;
}
