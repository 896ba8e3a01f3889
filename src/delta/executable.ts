/**
 * The codec for executables: copies from the rebased old file. When code grows in one place, everything behind it moves, and every
 * address of it changes everywhere; the moves say so once, and the copies are then as good as if nothing had moved.
 */
import { COPY_STREAMS, PIECE_BYTES, decodeCopies } from "./copies.ts";
import { addressEnd, pageFlags, readImage } from "./image.ts";
import { invalid } from "./invalid.ts";
import { CORRECTION_BYTES, openKernel, openMemory } from "./kernel.ts";
import { openMoves, readShifts, wordsOfMoves } from "./moves.ts";
import { turnBack } from "./new-code.ts";
import { NUMBER_BYTES, isShort, readNumber } from "./numbers.ts";
import { openPlaces, readLayout } from "./places.ts";
import { openRebase, openScanners } from "./rebase.ts";
import type { Placing } from "./rebase.ts";
import { bytesOfView, openRebasedView } from "./rebased-view.ts";
import type { SegmentDecoder, SegmentTask } from "./segment.ts";

const IMAGE_STREAMS = ["image", "starts", "shifts", "points", "point shifts"] as const;

/** Copies whose fields count from where the moves say that they are, which is wrong for copies that go elsewhere. */
export const executable: SegmentDecoder = {
  name: "executable",
  streams: [...COPY_STREAMS, ...IMAGE_STREAMS],
  decode: (task, signal) => decodeExecutable(task, false, signal),
};

/** Copies whose fields count from where they really are, and new code with addresses in place of distances. */
export const placed: SegmentDecoder = {
  name: "placed",
  streams: [...COPY_STREAMS, ...IMAGE_STREAMS],
  decode: (task, signal) => decodeExecutable(task, true, signal),
};

async function* decodeExecutable(
  { old, size, streams }: SegmentTask,
  isPlaced: boolean,
  signal: AbortSignal,
): AsyncIterable<Uint8Array> {
  const [source, starts, shifts, points, pointShifts] = streams.slice(COPY_STREAMS.length);
  if (!source || !starts || !shifts || !points || !pointShifts)
    throw invalid("a stream is missing");
  const image = async (): Promise<number> => {
    if (isShort(source)) await source.ready(NUMBER_BYTES, signal);
    return readNumber(source);
  };
  const shape = await readImage(image, old.size);
  const layout = isPlaced ? await readLayout(image) : undefined;
  const end = addressEnd(shape);
  const starting = await readShifts(await image(), starts, shifts, signal);
  const single = await readShifts(await image(), points, pointShifts, signal);
  const flags = pageFlags(shape.areas);
  const piece = Math.min(PIECE_BYTES, size);
  const words = wordsOfMoves(starting, single, end).map((count) => 4 * count);
  using cleanup = new DisposableStack();
  const sizes = [...words, flags.length, piece, ...bytesOfView(old.size), ...CORRECTION_BYTES];
  const kernel = openKernel(sizes);
  const memory = kernel ?? openMemory();
  cleanup.defer(() => {
    memory.close();
  });
  const moves = openMoves(starting, single, end, memory.words);
  const known = memory.bytes(flags.length);
  known.set(flags);
  const scanners = await openScanners(shape, old, signal);
  const places = layout && openPlaces(layout);
  const placing: Placing =
    places === undefined
      ? { place: (_, address) => moves.position(address), stays: false }
      : { place: places.address, stays: true };
  const quick = kernel?.open(shape, known, moves.tables, places);
  const rebase = openRebase(scanners, moves, shape.newBase, placing, quick);
  const view = openRebasedView(old, rebase, memory.bytes);
  cleanup.defer(() => {
    view.close();
  });
  const copies = {
    old: view,
    size,
    streams: streams.slice(0, COPY_STREAMS.length),
    output: memory.bytes(piece),
    quick: kernel?.corrections(),
  };
  const turn = layout && places && { turn: turnBack(layout, places, kernel?.turn(layout, places)) };
  yield* decodeCopies({ ...copies, ...turn }, signal);
}
