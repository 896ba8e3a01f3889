/**
 * The heart of the plain and the executable codec, after bsdiff: the new file is a row of copies from an old file, each corrected
 * where it differs, with new bytes between them. Six streams:
 *
 *     literals   lengths of the new bytes before each copy
 *     lengths    of each copy
 *     sources    where each copy begins, signed, from where the one before ended
 *     gaps       how many copied bytes are right before each that is wrong, counted over all copies; the end: no more are wrong
 *     changes    what is added to each wrong byte, modulo 256
 *     bytes      the new bytes
 *
 * bsdiff has one number for each copied byte, nearly all of them 0; gaps leave those out, for the compressor and for the decoder.
 *
 * The loops over copies and over wrong bytes call nothing that waits. They stop where a stream or the old file must be waited for, and
 * go on from there: a delta may have as many copies as it has bytes.
 */
import { openCorrections } from "./corrections.ts";
import type { QuickCorrections } from "./corrections.ts";
import { invalid } from "./invalid.ts";
import { PART_BYTES } from "./new-code.ts";
import type { Turn } from "./new-code.ts";
import { NUMBER_BYTES, isShort, readNumber, roomForNumbers, signed } from "./numbers.ts";
import type { ByteSource } from "./source.ts";

export const COPY_STREAMS = ["literals", "lengths", "sources", "gaps", "changes", "bytes"] as const;

/** Bytes of a piece of output, at most; a multiple of {@link PART_BYTES}. */
export const PIECE_BYTES = 256 * 1024;
const MAX_COPIES = 8192;

/** What is copied from: the old file, or a view of it. */
export interface OldView {
  readonly size: number;
  /** Remembers that `output[at]` and what follows is to be a copy of a range; false when it must wait for the next load, never for the first. */
  want(at: number, from: number, to: number): boolean;
  load(output: Uint8Array, signal: AbortSignal): Promise<void>;
  /** After the load, for all that was wanted, in the same order; `output[at]` will stand at `goal` in the new file. */
  copy(output: Uint8Array, at: number, from: number, to: number, goal: number): void;
}

export interface CopyTask {
  readonly old: OldView;
  readonly size: number;
  /** In the order of {@link COPY_STREAMS}. */
  readonly streams: readonly ByteSource[];
  /** Where pieces are made, {@link PIECE_BYTES} or as much as is needed. */
  readonly output: Buffer;
  /** Corrects the output, for what it can. */
  readonly quick?: QuickCorrections | undefined;
  /** Turns new bytes of the output, the first of which stands at a position of the new file, into what they should be. */
  readonly turn?: Turn;
}

/** The new bytes in pieces; each is valid until the next is asked for. @throws EdgeSyncError DELTA_INVALID */
export async function* decodeCopies(
  { old, size, streams, output, quick, turn }: CopyTask,
  signal: AbortSignal,
): AsyncIterable<Uint8Array> {
  const [literals, lengths, sources, gaps, changes, bytes] = streams;
  if (!literals || !lengths || !sources || !gaps || !changes || !bytes)
    throw invalid("a stream is missing");
  const plan = openPlan({ old, size, output, turn, literals, lengths, sources, bytes });
  const corrections = openCorrections(output, gaps, changes, quick);
  for (let made = 0; made < size;) {
    const room = Math.min(output.length, size - made);
    for (let full = false; !full;) {
      let missing = plan.run(room);
      while (missing?.ended === false) {
        await missing.ready(NUMBER_BYTES, signal);
        missing = plan.run(room);
      }
      if (missing !== undefined) throw invalid("a stream ends too early");
      full = plan.end === room;
      await old.load(output, signal);
      for (let index = 0; index < plan.count; index++) {
        const at = plan.at[index] ?? 0;
        const from = plan.from[index] ?? 0;
        const length = plan.length[index] ?? 0;
        old.copy(output, at, from, from + length, made + at);
        let position = corrections.run(at, at + length);
        while (position < at + length) {
          await corrections.ready(signal);
          position = corrections.run(position, at + length);
        }
      }
      plan.count = 0;
    }
    made += room;
    plan.begin(made);
    yield output.subarray(0, room);
  }
}

interface PlanTask extends Pick<CopyTask, "old" | "size" | "output"> {
  readonly turn: Turn | undefined;
  readonly literals: ByteSource;
  readonly lengths: ByteSource;
  readonly sources: ByteSource;
  readonly bytes: ByteSource;
}

/** The next copies, which are still to be made; new bytes are put into the output at once. */
interface Plan {
  readonly at: Int32Array;
  readonly from: Int32Array | Float64Array;
  readonly length: Int32Array;
  /** How many; whoever has made them sets it to 0. */
  count: number;
  /** Of what is planned of the piece. */
  readonly end: number;
  /**
   * Plans until the piece has `room` bytes or no more copies can be planned before those that are have been made.
   *
   * @returns a source that must be made ready first
   */
  run(room: number): ByteSource | undefined;
  /** A piece is done, and `made` bytes altogether. */
  begin(made: number): void;
}

function openPlan({ old, size, output, turn, literals, lengths, sources, bytes }: PlanTask): Plan {
  const most = Math.min(MAX_COPIES, size);
  /** New bytes that are still to come before the next copy; -1 when that is not yet read. */
  let literal = -1;
  /** Bytes of a copy that are still to come; -1 when its length is not yet read. */
  let copy = 0;
  /** In the old file. */
  let source = 0;
  let made = 0;
  /** Where new bytes begin in the output that are not turned yet. */
  let unturned = 0;
  const plan = {
    at: new Int32Array(most),
    from: roomForNumbers(old.size, most),
    length: new Int32Array(most),
    count: 0,
    end: 0,
    run(room: number): ByteSource | undefined {
      let { count, end } = plan;
      let missing: ByteSource | undefined;
      while (end < room) {
        if (copy > 0) {
          const part = Math.min(copy, room - end);
          if (count === most || !old.want(end, source, source + part)) break;
          plan.at[count] = end;
          plan.from[count] = source;
          plan.length[count++] = part;
          end += part;
          source += part;
          copy -= part;
        } else if (literal > 0) {
          const rest = turn === undefined ? room - end : PART_BYTES - (end % PART_BYTES);
          const part = Math.min(literal, room - end, rest, bytes.end - bytes.at);
          if (part === 0) {
            missing = bytes;
            break;
          }
          putBytes(output, end, bytes.buffer, bytes.at, part);
          bytes.at += part;
          end += part;
          literal -= part;
          if (turn !== undefined && (literal === 0 || end % PART_BYTES === 0)) {
            turn(output, unturned, end, made + unturned);
            unturned = end;
          }
        } else if (literal < 0) {
          if (isShort(literals)) {
            missing = literals;
            break;
          }
          literal = readNumber(literals);
          if (literal > size - made - end) throw invalid("new bytes go beyond the end");
          unturned = end;
        } else {
          if (isShort(lengths) || isShort(sources)) {
            missing = isShort(lengths) ? lengths : sources;
            break;
          }
          copy = readNumber(lengths);
          if (copy === 0) throw invalid("an empty copy");
          if (copy > size - made - end) throw invalid("a copy goes beyond the end");
          source += signed(readNumber(sources));
          if (source < 0 || source + copy > old.size)
            throw invalid(
              `a copy from ${source} to ${source + copy}, the old range has ${old.size}`,
            );
          literal = -1;
        }
      }
      plan.count = count;
      plan.end = end;
      return missing;
    },
    begin(all: number): void {
      made = all;
      plan.end = 0;
      unturned = 0;
    },
  };
  return plan;
}

/** A few bytes are quicker one by one. */
const FEW_BYTES = 32;

export function putBytes(
  into: Uint8Array,
  at: number,
  from: Buffer,
  start: number,
  count: number,
): void {
  if (count > FEW_BYTES) from.copy(into, at, start, start + count);
  else for (let index = 0; index < count; index++) into[at + index] = from[start + index] ?? 0;
}
