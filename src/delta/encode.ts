/**
 * Makes deltas. The new file is cut into segments where its content asks for another codec, or where both files together would not fit
 * in memory; each segment is made with every codec that may fit, and the smallest is taken. Memory is about ten bytes for each byte
 * of the old range.
 */
import { codeOf } from "../errors.ts";
import { planSegments } from "./plan.ts";
import type { Parted, PlannedSegment } from "./plan.ts";
import {
  codingsOf,
  comparison,
  packStreams,
  writeHeader,
  writeSegment,
} from "./container-writer.ts";
import type { Packed, Run } from "./container-writer.ts";
import { chooseCopies } from "./choose.ts";
import { writeCopies } from "./copies-writer.ts";
import type { RandomAccess } from "./decoder.ts";
import { encodeExecutable } from "./executable-encode.ts";
import { executable } from "./executable.ts";
import type { Match } from "./match.ts";
import { plain } from "./plain.ts";
import type { EncodedSegment, SegmentDecoder, StreamContent } from "./segment.ts";
import { stored } from "./stored.ts";
import { encodeTensors } from "./tensor-encoder.ts";
import { copiesMayWin } from "./tensor-trial.ts";
import { tensor } from "./tensor.ts";

export type { Run } from "./container-writer.ts";

/** What an encoder works with. */
export interface Crew {
  /** Runs compression when there is a processor for it. */
  readonly run: Run;
  readonly match: Match;
  /** Told how many bytes of the new file are done. */
  readonly advance: (bytes: number) => void;
}

interface Candidate {
  readonly decoder: SegmentDecoder;
  readonly old: EncodedSegment["old"];
  readonly streams: readonly StreamContent[];
  readonly packed: readonly Packed[];
  readonly bytes: number;
}

/**
 * A delta from `old` to `target`, in order; equal for equal arguments.
 *
 * @throws EdgeSyncError DELTA_INVALID when what was made does not decode to the target
 */
export async function* encodeDelta(
  old: Parted,
  target: Parted,
  crew: Crew,
  signal: AbortSignal,
): AsyncIterable<Uint8Array> {
  yield writeHeader(old.size, target.size);
  for (const planned of await planSegments(old, target, signal)) {
    const { offset, size } = planned.target;
    const bytes = await readShared(target, offset, size);
    yield* await makeSegment(planned, old, bytes, true, crew, signal);
    crew.advance(size);
  }
}

/** @param executables false when they are taken for any other file */
async function makeSegment(
  planned: PlannedSegment,
  old: RandomAccess,
  target: Buffer,
  executables: boolean,
  crew: Crew,
  signal: AbortSignal,
): Promise<readonly Uint8Array[]> {
  const candidates = await makeCandidates(planned, old, target, executables, crew, signal);
  const best = candidates.reduce((a, b) => (b.bytes < a.bytes ? b : a));
  const { decoder, packed } = best;
  const { size } = planned.target;
  const segment = { codec: decoder.name, old: best.old, size, streams: best.streams };
  try {
    return await writeSegment(segment, packed, decoder, old, comparison(target), signal);
  } catch (error) {
    // An executable whose headers lead beyond the format's limits is still a file.
    if (codeOf(error) !== "DELTA_INVALID" || decoder !== executable) throw error;
    return await makeSegment(planned, old, target, false, crew, signal);
  }
}

async function makeCandidates(
  planned: PlannedSegment,
  old: RandomAccess,
  target: Buffer,
  executables: boolean,
  { run, match }: Crew,
  signal: AbortSignal,
): Promise<readonly [Candidate, ...Candidate[]]> {
  const pack = async (
    decoder: SegmentDecoder,
    range: EncodedSegment["old"],
    streams: readonly StreamContent[],
  ): Promise<Candidate> => {
    const packed = await packStreams(streams, run);
    const bytes = packed.reduce((sum, stream) => sum + stream.bytes.length + 3, 0);
    return { decoder, old: range, streams, packed, bytes };
  };
  const candidates: Candidate[] = [];
  if (planned.tensors !== undefined) {
    const { old: range, regions } = planned.tensors;
    const before = await readShared(old, range.offset, range.size);
    const streams = encodeTensors(before, target, regions, signal);
    if (streams !== undefined) {
      const found = await pack(tensor, range, streams);
      if (!(await copiesMayWin(before, target, regions, run, signal))) return [found];
      candidates.push(found);
    }
  }
  const range = planned.old;
  const before = await readShared(old, range.offset, range.size);
  const copies = await match(before, target, signal);
  signal.throwIfAborted();
  const moved = executables
    ? await encodeExecutable(before, target, copies, match, signal)
    : undefined;
  if (moved !== undefined) candidates.push(await pack(executable, range, moved));
  else {
    const chosen = writeCopies(before, target, chooseCopies(before, target, copies));
    const [best] = candidates;
    if (best === undefined || leastBytes(chosen) < best.bytes)
      candidates.push(await pack(plain, range, chosen));
    // What copies cost and save is guessed for long deltas; a short one is soon tried.
    if (copies.length <= FEW_COPIES * 3)
      candidates.push(await pack(plain, range, writeCopies(before, target, copies)));
    // Nothing of it is in the old range: then as it is, which decodes fastest.
    if (copies.length === 0)
      candidates.push(
        await pack(stored, { offset: 0, size: 0 }, [{ bytes: target, codings: codingsOf(target) }]),
      );
  }
  const [first, ...others] = candidates;
  return first === undefined
    ? [await pack(stored, { offset: 0, size: 0 }, [{ bytes: target, codings: [] }])]
    : [first, ...others];
}

const FEW_COPIES = 1000;

/** A guess from below: streams of copies are hardly ever compressed to a fourth. */
function leastBytes(streams: readonly StreamContent[]): number {
  return streams.reduce((sum, { bytes }) => sum + bytes.length, 0) / 4;
}

/** A range in memory that threads share. */
async function readShared(file: RandomAccess, offset: number, size: number): Promise<Buffer> {
  const bytes = Buffer.from(new SharedArrayBuffer(size));
  if (size > 0) await file.readInto(bytes, offset);
  return bytes;
}
