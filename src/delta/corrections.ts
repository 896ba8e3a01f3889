/** What is wrong with copied bytes, and how far apart: streams of gaps and of changes, see copies.ts. */
import { invalid } from "./invalid.ts";
import { NUMBER_BYTES, isShort, readNumber } from "./numbers.ts";
import type { ByteSource } from "./source.ts";

export interface Corrections {
  /** Corrects copied bytes of the output from `at` to `end`; returns where it must wait for {@link ready}. */
  run(at: number, end: number): number;
  ready(signal: AbortSignal): Promise<void>;
}

/** Does the same where it can read the streams, which is in rooms of its own. */
export interface QuickCorrections {
  readonly gaps: Buffer;
  readonly changes: Buffer;
  /**
   * @param gap bytes until the next wrong one, or -1 when that is not yet read
   * @returns how far it came; the sources stand behind what it has read
   */
  run(
    output: Uint8Array,
    at: number,
    end: number,
    gaps: Lodged,
    changes: Lodged,
    gap: number,
  ): number;
  /** What is left of the gap, or -1. */
  readonly gap: number;
}

/** A source of which some is ready in a room of somebody else's. */
export interface Lodged extends ByteSource {
  end: number;
}

/** A gap of more than a piece may have; what is beyond is counted here. */
const QUICK_GAP = 2 ** 30;

export function openCorrections(
  output: Uint8Array,
  gapSource: ByteSource,
  changeSource: ByteSource,
  quick?: QuickCorrections,
): Corrections {
  const gaps = lodge(gapSource, quick?.gaps);
  const changes = lodge(changeSource, quick?.changes);
  /** Bytes until the next wrong one; -1 before it was read. */
  let gap = -1;
  return {
    run(at, end) {
      let position = at;
      if (quick !== undefined && gap < QUICK_GAP) {
        position = quick.run(output, at, end, gaps, changes, gap);
        ({ gap } = quick);
        if (position === end) return end;
      }
      for (;;) {
        if (gap < 0) {
          if (isShort(gaps)) return position;
          gap = gaps.at === gaps.end ? Number.POSITIVE_INFINITY : readNumber(gaps);
        }
        if (gap >= end - position) {
          gap -= end - position;
          return end;
        }
        if (changes.at === changes.end) return position;
        position += gap;
        output[position] = (output[position] ?? 0) + (changes.buffer[changes.at++] ?? 0);
        position++;
        gap = -1;
      }
    },
    async ready(signal) {
      if (gap < 0) await gaps.ready(NUMBER_BYTES, signal);
      else {
        await changes.ready(1, signal);
        if (changes.at === changes.end) throw invalid("a stream ends too early");
      }
    },
  };
}

/** The same source, in a room where it has one. */
function lodge(source: ByteSource, room: Buffer | undefined): Lodged {
  if (room === undefined) return source;
  const lodged = {
    buffer: room,
    at: 0,
    end: 0,
    ended: false,
    async ready(count: number, signal: AbortSignal) {
      room.copyWithin(0, lodged.at, lodged.end);
      lodged.end -= lodged.at;
      lodged.at = 0;
      const missing = count - lodged.end;
      if (source.end - source.at < missing) await source.ready(missing, signal);
      const more = Math.min(source.end - source.at, room.length - lodged.end);
      source.buffer.copy(room, lodged.end, source.at, source.at + more);
      source.at += more;
      lodged.end += more;
      lodged.ended = source.ended && source.at === source.end;
    },
    close: () => undefined,
  };
  return lodged;
}
