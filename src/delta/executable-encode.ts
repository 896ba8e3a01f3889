/** Makes segments of the codec for executables; executable.ts says what they are. */
import { writeCopies } from "./copies-writer.ts";
import type { OldView } from "./copies.ts";
import type { RandomAccess } from "./decoder.ts";
import { parseElf } from "./elf.ts";
import { ADDRESS_LIMIT, writeImage } from "./image.ts";
import { describe } from "./image-of-elf.ts";
import type { Executables, Features } from "./image-of-elf.ts";
import type { Copies } from "./matcher.ts";
import { openMoves } from "./moves.ts";
import type { Moves, Shifts } from "./moves.ts";
import { movesOfCopies, writeShifts } from "./moves-of-copies.ts";
import { openWriter } from "./numbers.ts";
import type { Pages } from "./pages.ts";
import { openScanners, rebasedView } from "./rebase.ts";
import type { Scanner } from "./rebase.ts";
import type { StreamContent } from "./segment.ts";
import { findPoints } from "./votes.ts";

/** Finds copies between two byte strings, on as many threads as there are. */
export type Match = (old: Uint8Array, target: Uint8Array, signal: AbortSignal) => Promise<Copies>;

/** More rounds find more: the copies from a rebased file say better what has moved. */
const ROUNDS = 2;
const STEP_BYTES = 1024 * 1024;

/**
 * The streams of a segment; undefined when the two are not executables that are understood.
 *
 * @param first copies from the old bytes as they are
 */
export async function encodeExecutable(
  old: Buffer,
  target: Buffer,
  first: Copies,
  features: Features,
  match: Match,
  signal: AbortSignal,
): Promise<readonly StreamContent[] | undefined> {
  const [oldElf, newElf] = [parseElf(old), parseElf(target)];
  if (oldElf === undefined || newElf === undefined) return undefined;
  const executables = describe(old, target, oldElf, newElf, features);
  if (executables === undefined) return undefined;
  const { image } = executables;
  const scanners = await openScanners(image, inMemory(old), signal);
  const rebased = Buffer.from(new SharedArrayBuffer(old.length));
  let copies = first;
  let moved = nothing;
  let points = nothing;
  for (let round = 0; round < ROUNDS; round++) {
    signal.throwIfAborted();
    moved = movesOfCopies(copies, executables);
    const before = openMoves(moved, nothing, ADDRESS_LIMIT);
    points = findPoints(old, target, copies, scanners, before, executables);
    await rebase(rebased, old, scanners, openMoves(moved, points, ADDRESS_LIMIT), executables);
    copies = await match(rebased, target, signal);
  }
  return [...writeCopies(rebased, target, copies), ...writeMoves(executables, moved, points)];
}

const nothing: Shifts = { addresses: new Int32Array(0), shifts: new Int32Array(0) };

/** The whole rebased file, made by the code that decoders make parts of it with. */
async function rebase(
  into: Buffer,
  old: Buffer,
  scanners: readonly Scanner[],
  moves: Moves,
  { image }: Executables,
): Promise<void> {
  const view: OldView = rebasedView(pagesInMemory(old), scanners, moves, image.newBase);
  for (let from = 0; from < old.length; from += STEP_BYTES)
    view.copy(into, from, from, Math.min(old.length, from + STEP_BYTES));
}

function writeMoves(
  { image }: Executables,
  moved: Shifts,
  points: Shifts,
): readonly StreamContent[] {
  const writers = [openWriter(), openWriter(), openWriter(), openWriter(), openWriter()] as const;
  const [shape, starts, shifts, pointStarts, pointShifts] = writers;
  shape.bytes(writeImage(image));
  shape.number(moved.addresses.length);
  shape.number(points.addresses.length);
  writeShifts(moved, starts, shifts);
  writeShifts(points, pointStarts, pointShifts);
  return writers.map((writer) => ({ bytes: writer.done(), codings: ["brotli"] }));
}

export function inMemory(bytes: Buffer): RandomAccess {
  return {
    size: bytes.length,
    readInto(into, position) {
      into.set(bytes.subarray(position, position + into.length));
      return Promise.resolve();
    },
  };
}

function pagesInMemory(bytes: Buffer): Pages {
  return {
    size: bytes.length,
    want: () => true,
    load: () => Promise.resolve(),
    copy: (into, at, from, to) => into.set(bytes.subarray(from, to), at),
  };
}
