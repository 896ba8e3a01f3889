/**
 * The streams that the loops of the tensor codec read, side by side in one buffer: a loop that takes each element from another stream
 * then has one base address and an offset by stream.
 */
import { invalid } from "./invalid.ts";
import type { Memory } from "./kernel.ts";
import type { ByteSource } from "./source.ts";

export interface Lanes {
  readonly arena: Uint8Array;
  /** Where each stream goes on; the loops move it. */
  readonly at: Int32Array;
  /** Has in every lane what a step can take at most, or all that is left of its stream. */
  fill(signal: AbortSignal): Promise<void>;
  /** After a step. @throws EdgeSyncError DELTA_INVALID when it took more than there was */
  check(): void;
}

/** Bytes of the memory that lanes take. */
export function bytesOfLanes(needs: readonly number[]): readonly [arena: number, at: number] {
  // Twice the need, so that what is left is moved to the front only now and then.
  return [2 * needs.reduce((sum, need) => sum + need, 0), 4 * needs.length];
}

/** @param needs by stream, the most that a step takes */
export function openLanes(
  sources: readonly ByteSource[],
  needs: readonly number[],
  memory: Memory,
): Lanes {
  const starts: number[] = [];
  let bytes = 0;
  for (const need of needs) {
    starts.push(bytes);
    bytes += 2 * need;
  }
  const arena = memory.bytes(bytes);
  const at = memory.words(needs.length);
  at.set(starts);
  const ends = Int32Array.from(starts);
  const ended = sources.map(() => false);

  async function refill(lane: number, source: ByteSource, signal: AbortSignal): Promise<void> {
    const start = starts[lane] ?? 0;
    const limit = start + 2 * (needs[lane] ?? 0);
    const position = at[lane] ?? 0;
    let end = ends[lane] ?? 0;
    arena.copyWithin(start, position, end);
    end -= position - start;
    at[lane] = start;
    while (end < limit) {
      if (source.at === source.end) await source.ready(1, signal);
      if (source.at === source.end) {
        ended[lane] = true;
        break;
      }
      const count = Math.min(source.end - source.at, limit - end);
      source.buffer.copy(arena, end, source.at, source.at + count);
      end += count;
      source.at += count;
    }
    ends[lane] = end;
  }

  return {
    arena,
    at,
    async fill(signal) {
      // By index: an iterator would make garbage for each of thousands of steps.
      for (let lane = 0; lane < at.length; lane++) {
        if (ended[lane] === true || (ends[lane] ?? 0) - (at[lane] ?? 0) >= (needs[lane] ?? 0))
          continue;
        const source = sources[lane];
        if (source !== undefined) await refill(lane, source, signal);
      }
    },
    check() {
      for (let lane = 0; lane < at.length; lane++)
        if ((at[lane] ?? 0) > (ends[lane] ?? 0)) throw invalid("a stream ends too early");
    },
  };
}
