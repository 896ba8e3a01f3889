/**
 * The codec for executables: copies from the rebased old file. When code grows in one place, everything behind it moves, and every
 * address of it changes everywhere; the moves say so once, and the copies are then as good as if nothing had moved.
 */
import { COPY_STREAMS, decodeCopies } from "./copies.ts";
import { addressEnd, readImage } from "./image.ts";
import { invalid } from "./invalid.ts";
import { openMoves, readShifts } from "./moves.ts";
import { NUMBER_BYTES, readNumber } from "./numbers.ts";
import { openPages } from "./pages.ts";
import { openScanners, rebasedView } from "./rebase.ts";
import type { SegmentDecoder } from "./segment.ts";

const IMAGE_STREAMS = ["image", "starts", "shifts", "points", "point shifts"] as const;

export const executable: SegmentDecoder = {
  name: "executable",
  streams: [...COPY_STREAMS, ...IMAGE_STREAMS],

  async *decode({ old, size, streams }, signal) {
    const numbers = streams.slice(COPY_STREAMS.length).map((source) => async () => {
      if (source.end - source.at < NUMBER_BYTES) await source.ready(NUMBER_BYTES, signal);
      return readNumber(source);
    });
    const [image, starts, shifts, points, pointShifts] = numbers;
    if (!image || !starts || !shifts || !points || !pointShifts)
      throw invalid("a stream is missing");
    const shape = await readImage(image, old.size);
    const moves = openMoves(
      await readShifts(await image(), starts, shifts),
      await readShifts(await image(), points, pointShifts),
      addressEnd(shape),
    );
    const scanners = await openScanners(shape, old, signal);
    const view = rebasedView(openPages(old), scanners, moves, shape.newBase);
    yield* decodeCopies(
      { old: view, size, streams: streams.slice(0, COPY_STREAMS.length) },
      signal,
    );
  },
};
