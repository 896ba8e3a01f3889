/**
 * Makes deltas. The new file is cut into segments where its content asks for another codec, or where both files together would not fit
 * in memory; each segment is made with every codec that may fit, and the smallest is taken. Memory is about ten bytes for each byte
 * of the old range.
 */
import { codeOf } from "../errors.ts";
import { planSegments } from "./plan.ts";
import type { Parted, PlannedSegment, Range } from "./plan.ts";
import { openPieces } from "./pieces.ts";
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
import { placed } from "./executable.ts";
import type { Match, Search } from "./match.ts";
import type { Copies } from "./matcher.ts";
import { plain } from "./plain.ts";
import type { Coding, EncodedSegment, SegmentDecoder, StreamContent } from "./segment.ts";
import type { SharedMemory } from "./shared-memory.ts";
import { stored } from "./stored.ts";
import { encodeTensors } from "./tensor-encoder.ts";
import { copiesMayWin } from "./tensor-trial.ts";
import { tensor } from "./tensor.ts";

export type { Run } from "./container-writer.ts";

/** What an encoder works with. */
export interface Crew {
  /** Runs compression when there is a processor for it. */
  readonly run: Run;
  readonly search: Search;
  /** Not used by others meanwhile. */
  readonly memory: SharedMemory;
  /** Told how many bytes of the new file are done. */
  readonly advance: (bytes: number) => void;
}

/** Without what it was before compression, which may be as large as the segment. */
interface Candidate {
  readonly decoder: SegmentDecoder;
  readonly old: EncodedSegment["old"];
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
    const { size } = planned.target;
    const bytes = await gather(target, [planned.target], crew.memory.take("target", size));
    let told = 0;
    const match: Match = (old, target, signal) => {
      const searched = (bytes: number): void => {
        const share = Math.min(Math.floor(bytes * SEARCH_SHARE), size - told);
        told += share;
        crew.advance(share);
      };
      return crew.search(old, target, searched, signal);
    };
    yield* await makeSegment(planned, old, bytes, true, { ...crew, match }, signal);
    crew.advance(size - told);
  }
}

/** Of the work for a segment, that which a search is: an executable takes three of them. */
const SEARCH_SHARE = 0.3;

type SegmentCrew = Crew & { readonly match: Match };

/** @param executables false when they are taken for any other file */
async function makeSegment(
  planned: PlannedSegment,
  old: RandomAccess,
  target: Buffer,
  executables: boolean,
  crew: SegmentCrew,
  signal: AbortSignal,
): Promise<readonly Uint8Array[]> {
  const best = await makeBest(planned, old, target, executables, crew, signal);
  const { decoder, packed } = best;
  const { size } = planned.target;
  const segment = { codec: decoder.name, old: best.old, size };
  try {
    return await writeSegment(segment, packed, decoder, old, comparison(target), signal);
  } catch (error) {
    // An executable whose headers lead beyond the format's limits is still a file.
    if (codeOf(error) !== "DELTA_INVALID" || decoder !== placed) throw error;
    return await makeSegment(planned, old, target, false, crew, signal);
  }
}

async function makeBest(
  planned: PlannedSegment,
  old: RandomAccess,
  target: Buffer,
  executables: boolean,
  { run, match, memory }: SegmentCrew,
  signal: AbortSignal,
): Promise<Candidate> {
  let best: Candidate | undefined;
  const offer = async (
    decoder: SegmentDecoder,
    range: Range,
    streams: readonly StreamContent[],
  ): Promise<Candidate> => {
    const packed = await packStreams(streams, run);
    const bytes = packed.reduce((sum, stream) => sum + stream.bytes.length + 3, 0);
    if (best === undefined || bytes < best.bytes)
      best = { decoder, old: { offset: range.offset, size: range.size }, packed, bytes };
    return best;
  };
  const offerStored = (codings: readonly Coding[]): Promise<Candidate> =>
    offer(stored, { offset: 0, size: 0 }, [{ bytes: target, codings }]);
  if (planned.tensors !== undefined) {
    const { old: range, regions } = planned.tensors;
    const before = await gather(old, [range], memory.take("old", range.size));
    const streams = encodeTensors(before, target, regions, signal);
    if (streams !== undefined) {
      const found = await offer(tensor, range, streams);
      if (!(await copiesMayWin(before, target, regions, run, signal))) return found;
    }
  }
  const pieces = openPieces(planned.old);
  const before = await gather(old, planned.old, memory.take("old", pieces.size));
  const copies = await match(before, target, signal);
  signal.throwIfAborted();
  // Nothing of it is in the old range: then as it is, which decodes fastest.
  if (copies.length === 0) return await offerStored(codingsOf(target));
  if (executables && planned.old.length === 1) {
    const moved = await encodeExecutable(before, target, copies, match, memory, signal);
    if (moved !== undefined) await offer(placed, pieces.span, moved);
  }
  const write = (chosen: Copies): readonly StreamContent[] =>
    writeCopies(before, target, pieces.split(chosen), undefined, (position) =>
      pieces.place(position),
    );
  const offerCopies = async (chosen: readonly StreamContent[]): Promise<void> => {
    if (best === undefined || leastBytes(chosen) < best.bytes)
      await offer(plain, pieces.span, chosen);
  };
  // Also of executables: what the moves cost is more than they save when hardly anything has changed.
  await offerCopies(write(chooseCopies(before, target, copies)));
  // What copies cost and save is guessed for long deltas; a short one is soon tried.
  if (copies.length <= FEW_COPIES * 3) await offerCopies(write(copies));
  return best ?? (await offerStored([]));
}

const FEW_COPIES = 1000;

/** A guess from below: streams of copies are hardly ever compressed to a fourth. */
function leastBytes(streams: readonly StreamContent[]): number {
  return streams.reduce((sum, { bytes }) => sum + bytes.length, 0) / 4;
}

/** Ranges one behind the other. */
async function gather(file: RandomAccess, ranges: readonly Range[], into: Buffer): Promise<Buffer> {
  let at = 0;
  for (const { offset, size } of ranges) {
    if (size > 0) await file.readInto(into.subarray(at, at + size), offset);
    at += size;
  }
  return into;
}
