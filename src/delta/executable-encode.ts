/** Makes segments of the codec for executables; executable.ts says what they are. */
import { chooseCopies } from "./choose.ts";
import { writeCopies } from "./copies-writer.ts";
import type { OldView } from "./copies.ts";
import type { RandomAccess } from "./decoder.ts";
import { AARCH64, X86_64, parseElf } from "./elf.ts";
import { addressEnd, writeImage } from "./image.ts";
import { describe } from "./image-of-elf.ts";
import type { Executables, Features } from "./image-of-elf.ts";
import type { Match } from "./match.ts";
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
  match: Match,
  signal: AbortSignal,
): Promise<readonly StreamContent[] | undefined> {
  const [oldElf, newElf] = [parseElf(old), parseElf(target)];
  if (oldElf === undefined || newElf === undefined) return undefined;
  let chosen:
    { readonly executables: Executables; readonly scanners: readonly Scanner[] } | undefined;
  let least = Number.POSITIVE_INFINITY;
  const rebased = Buffer.from(new SharedArrayBuffer(old.length));
  const prepare = async (features: Features): Promise<void> => {
    const executables = describe(old, target, oldElf, newElf, features);
    if (executables === undefined) return;
    const scanners = await openScanners(executables.image, inMemory(old), signal);
    const { moved, points } = findMoves(old, target, first, executables, scanners);
    rebase(
      rebased,
      old,
      scanners,
      openMoves(moved, points, addressEnd(executables.image)),
      executables,
    );
    const wrong = wrongBytes(rebased, target, first);
    if (wrong < least) [least, chosen] = [wrong, { executables, scanners }];
  };
  for (const features of FEATURES[oldElf.machine] ?? []) {
    signal.throwIfAborted();
    await prepare(features);
  }
  if (chosen === undefined) return undefined;
  const { executables, scanners } = chosen;
  let copies = first;
  let found = { moved: nothing, points: nothing };
  for (let round = 0; round < ROUNDS; round++) {
    signal.throwIfAborted();
    found = findMoves(old, target, copies, executables, scanners);
    rebase(
      rebased,
      old,
      scanners,
      openMoves(found.moved, found.points, addressEnd(executables.image)),
      executables,
    );
    copies = await match(rebased, target, signal);
  }
  return [
    ...writeCopies(rebased, target, chooseCopies(rebased, target, copies)),
    ...writeMoves(executables, found.moved, found.points),
  ];
}

/** What is tried for a machine: the one after which the fewest bytes are wrong is taken. */
const FEATURES: Readonly<Record<number, readonly Features[]>> = {
  [X86_64]: [
    { absolute: false, conditional: false },
    { absolute: true, conditional: false },
  ],
  [AARCH64]: [
    { absolute: false, conditional: false },
    { absolute: false, conditional: true },
  ],
};

function findMoves(
  old: Buffer,
  target: Buffer,
  copies: Copies,
  executables: Executables,
  scanners: readonly Scanner[],
): { readonly moved: Shifts; readonly points: Shifts } {
  const moved = movesOfCopies(copies, executables);
  const before = openMoves(moved, nothing, addressEnd(executables.image));
  return { moved, points: findPoints(old, target, copies, scanners, before, executables) };
}

function wrongBytes(old: Uint8Array, target: Uint8Array, copies: Copies): number {
  let wrong = 0;
  for (let index = 0; index < copies.length; index += 3) {
    const [at = 0, from = 0, length = 0] = copies.subarray(index, index + 3);
    for (let i = 0; i < length; i++) if (old[from + i] !== target[at + i]) wrong++;
  }
  return wrong;
}

const nothing: Shifts = { addresses: new Int32Array(0), shifts: new Int32Array(0) };

/** The whole rebased file, made by the code that decoders make parts of it with. */
function rebase(
  into: Buffer,
  old: Buffer,
  scanners: readonly Scanner[],
  moves: Moves,
  { image }: Executables,
): void {
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
