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
 */
import { invalid } from "./invalid.ts";
import { NUMBER_BYTES, readNumber, signed } from "./numbers.ts";
import type { ByteSource } from "./source.ts";

export const COPY_STREAMS = ["literals", "lengths", "sources", "gaps", "changes", "bytes"] as const;

/** Bytes of a piece of output, at most. */
export const PIECE_BYTES = 256 * 1024;
const MAX_COPIES = 8192;

/** What is copied from: the old file, or a view of it. */
export interface OldView {
  readonly size: number;
  /** Remembers a range of at most {@link PIECE_BYTES}; false when it must wait for the next load, never for the first. */
  want(from: number, to: number): boolean;
  load(signal: AbortSignal): Promise<void>;
  copy(into: Uint8Array, at: number, from: number, to: number): void;
}

export interface CopyTask {
  readonly old: OldView;
  readonly size: number;
  /** In the order of {@link COPY_STREAMS}. */
  readonly streams: readonly ByteSource[];
}

/** The new bytes in pieces; each is valid until the next is asked for. @throws EdgeSyncError DELTA_INVALID */
export async function* decodeCopies(
  { old, size, streams }: CopyTask,
  signal: AbortSignal,
): AsyncIterable<Uint8Array> {
  const [literals, lengths, sources, gaps, changes, bytes] = streams;
  if (!literals || !lengths || !sources || !gaps || !changes || !bytes)
    throw invalid("a stream is missing");
  const output = Buffer.allocUnsafeSlow(Math.min(PIECE_BYTES, size));
  // Copies of the piece: where in the output, where from, how many.
  const copies = new Float64Array(3 * MAX_COPIES);
  const gap = openGaps(gaps, changes);
  let literal = -1;
  let copy = 0;
  let source = 0;

  for (let made = 0; made < size;) {
    let end = 0;
    let count = 0;
    const room = Math.min(output.length, size - made);
    while (end < room && count < MAX_COPIES) {
      if (copy > 0) {
        const part = Math.min(copy, room - end);
        if (!old.want(source, source + part)) break;
        copies.set([end, source, part], 3 * count++);
        end += part;
        source += part;
        copy -= part;
      } else if (literal > 0) {
        const part = Math.min(literal, room - end, bytes.buffer.length);
        if (bytes.at === bytes.end) await bytes.ready(1, signal);
        const ready = Math.min(part, bytes.end - bytes.at);
        if (ready === 0) throw invalid("a stream ends too early");
        output.set(bytes.buffer.subarray(bytes.at, bytes.at + ready), end);
        bytes.at += ready;
        end += ready;
        literal -= ready;
      } else if (literal < 0) {
        literal = await numberOf(literals, signal);
        if (literal > size - made - end) throw invalid("new bytes go beyond the end");
      } else {
        copy = await numberOf(lengths, signal);
        if (copy === 0) throw invalid("an empty copy");
        if (copy > size - made - end) throw invalid("a copy goes beyond the end");
        source += signed(await numberOf(sources, signal));
        if (source < 0 || source + copy > old.size)
          throw invalid(`a copy from ${source} to ${source + copy}, the old range has ${old.size}`);
        literal = -1;
      }
    }
    await old.load(signal);
    for (let index = 0; index < 3 * count; index += 3) {
      const at = copies[index] ?? 0;
      const from = copies[index + 1] ?? 0;
      const length = copies[index + 2] ?? 0;
      old.copy(output, at, from, from + length);
      await gap.correct(output, at, at + length, signal);
    }
    made += end;
    yield output.subarray(0, end);
  }
}

async function numberOf(source: ByteSource, signal: AbortSignal): Promise<number> {
  if (source.end - source.at < NUMBER_BYTES) await source.ready(NUMBER_BYTES, signal);
  return readNumber(source);
}

interface Gaps {
  /** Corrects copied bytes of the output from `at` to `end`. */
  correct(
    output: Uint8Array,
    at: number,
    end: number,
    signal: AbortSignal,
  ): Promise<void> | undefined;
}

function openGaps(gaps: ByteSource, changes: ByteSource): Gaps {
  /** Bytes until the next wrong one; undefined before it was read. */
  let gap: number | undefined;

  /** What is ready of both streams is used without waiting. Returns where it stopped. */
  function run(output: Uint8Array, at: number, end: number): number {
    let position = at;
    for (;;) {
      if (gap === undefined) {
        if (gaps.end - gaps.at < NUMBER_BYTES) return position;
        gap = readNumber(gaps);
      }
      if (gap >= end - position) {
        gap -= end - position;
        return end;
      }
      if (changes.at === changes.end) return position;
      position += gap;
      output[position] = (output[position] ?? 0) + (changes.buffer[changes.at++] ?? 0);
      position++;
      gap = undefined;
    }
  }

  async function wait(
    output: Uint8Array,
    from: number,
    end: number,
    signal: AbortSignal,
  ): Promise<void> {
    for (let position = from; position < end; position = run(output, position, end)) {
      if (gap === undefined) {
        await gaps.ready(NUMBER_BYTES, signal);
        gap = gaps.at === gaps.end ? Number.POSITIVE_INFINITY : readNumber(gaps);
      }
      if (gap < end - position && changes.at === changes.end) {
        await changes.ready(1, signal);
        if (changes.at === changes.end) throw invalid("a stream ends too early");
      }
    }
  }

  return {
    correct(output, at, end, signal) {
      const position = run(output, at, end);
      return position < end ? wait(output, position, end, signal) : undefined;
    },
  };
}
