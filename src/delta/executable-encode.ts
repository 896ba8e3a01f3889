/** Makes segments of the codec for executables; executable.ts says what they are. */
import { chooseCopies } from "./choose.ts";
import { PIECE_BYTES } from "./copies.ts";
import { writeCopies } from "./copies-writer.ts";
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
import { turnToAddresses } from "./new-code.ts";
import { openWriter } from "./numbers.ts";
import { writeLayout } from "./places.ts";
import { openRebase, openScanners } from "./rebase.ts";
import type { Scanner } from "./rebase.ts";
import type { StreamContent } from "./segment.ts";
import type { SharedMemory } from "./shared-memory.ts";
import { findPoints } from "./votes.ts";

/** More rounds find more: the copies from a rebased file say better what has moved. */
const ROUNDS = 2;

/** The old file as it is understood. */
interface Known {
  readonly executables: Executables;
  readonly scanners: readonly Scanner[];
  readonly features: Features;
}

interface Found {
  readonly moved: Shifts;
  readonly points: Shifts;
  readonly moves: Moves;
}

/**
 * The streams of a segment; undefined when the two are not executables that are understood.
 *
 * Copies are looked for between the files as they would be if nothing in them counted from its own place: the old one with its addresses
 * moved, and the new one. Then also a piece of code that has come from elsewhere has its calls in common with what it is like.
 *
 * @param first copies from the old bytes as they are
 */
export async function encodeExecutable(
  old: Buffer,
  target: Buffer,
  first: Copies,
  match: Match,
  memory: SharedMemory,
  signal: AbortSignal,
): Promise<readonly StreamContent[] | undefined> {
  const made = memory.take("made", target.length);
  const known = await understand(old, target, first, made, signal);
  if (known === undefined) return undefined;
  const { executables, scanners } = known;
  const flatTarget = made;
  if (!(await flattenTarget(flatTarget, target, known.features, signal))) return undefined;
  const flat = memory.take("flat", old.length);
  let copies = first;
  let found: Found = { moved: nothing, points: nothing, moves: openMoves(nothing, nothing, 0) };
  for (let round = 0; round < ROUNDS; round++) {
    signal.throwIfAborted();
    found = findMoves(old, target, copies, known);
    flatten(flat, old, scanners, found.moves, executables);
    copies = await match(flat, flatTarget, signal);
  }
  const chosen = chooseCopies(flat, flatTarget, copies);
  makeCopies(made, old, chosen, found.moves, known);
  const { layout, places } = executables;
  return [
    ...writeCopies(old, target, chosen, { made, turn: turnToAddresses(layout, places) }),
    ...writeMoves(executables, found),
  ];
}

/**
 * Where there are absolute operands a good part of the wrong bytes goes with them. Where there are none, what is taken for one may
 * happen to be right a little more often than not; and decoders look at three times as many.
 */
const ABSOLUTE_WORTH = 0.05;

/** What is tried for a machine, one after the other: the one after which the fewest bytes are wrong is taken. */
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

/** @param made room for the new file */
async function understand(
  old: Buffer,
  target: Buffer,
  copies: Copies,
  made: Buffer,
  signal: AbortSignal,
): Promise<Known | undefined> {
  const [oldElf, newElf] = [parseElf(old), parseElf(target)];
  if (oldElf === undefined || newElf === undefined) return undefined;
  let best: Known | undefined;
  let least = Number.POSITIVE_INFINITY;
  for (const features of FEATURES[oldElf.machine] ?? []) {
    signal.throwIfAborted();
    const executables = describe(old, target, oldElf, newElf, features);
    if (executables === undefined) continue;
    const scanners = await openScanners(executables.image, inMemory(old), signal);
    const known: Known = { executables, scanners, features };
    makeCopies(made, old, copies, findMoves(old, target, copies, known).moves, known);
    const wrong = wrongBytes(made, target, copies);
    const worth = features.absolute ? ABSOLUTE_WORTH : 0;
    if (wrong < (1 - worth) * least) [least, best] = [wrong, known];
  }
  return best;
}

function findMoves(
  old: Buffer,
  target: Buffer,
  copies: Copies,
  { executables, scanners }: Known,
): Found {
  const moved = movesOfCopies(copies, executables);
  const end = addressEnd(executables.image);
  const before = openMoves(moved, nothing, end);
  const points = findPoints(old, target, copies, scanners, before, executables);
  return { moved, points, moves: openMoves(moved, points, end) };
}

function wrongBytes(made: Uint8Array, target: Uint8Array, copies: Copies): number {
  let wrong = 0;
  for (let index = 0; index < copies.length; index += 3) {
    const [at = 0, , length = 0] = copies.subarray(index, index + 3);
    for (let i = at; i < at + length; i++) if (made[i] !== target[i]) wrong++;
  }
  return wrong;
}

const nothing: Shifts = { addresses: new Int32Array(0), shifts: new Int32Array(0) };

/** What the copies are before they are corrected, at their places in the new file, by the code that decoders make it with. */
function makeCopies(
  into: Buffer,
  old: Buffer,
  copies: Copies,
  moves: Moves,
  { executables: { image, places }, scanners }: Known,
): void {
  const placing = { place: places.address, stays: true };
  const copy = openRebase(scanners, moves, image.newBase, placing);
  for (let index = 0; index < copies.length; index += 3) {
    const [at = 0, source = 0, length = 0] = copies.subarray(index, index + 3);
    // In parts, as decoders make them.
    for (let done = 0; done < length;) {
      const goal = at + done;
      const part = Math.min(length - done, PIECE_BYTES - (goal % PIECE_BYTES));
      copy(old, 0, source + done, source + done + part, into, goal, goal);
      done += part;
    }
  }
}

/** A whole file with its addresses moved, and none that counts from where it stands. */
function flatten(
  into: Buffer,
  bytes: Buffer,
  scanners: readonly Scanner[],
  moves: Moves,
  { image }: Executables,
): void {
  const copy = openRebase(scanners, moves, image.newBase, { place: () => 0, stays: false });
  copy(bytes, 0, 0, bytes.length, into, 0, 0);
}

/** The same for the new file, in which nothing moves any more. False when it is not understood. */
async function flattenTarget(
  into: Buffer,
  target: Buffer,
  features: Features,
  signal: AbortSignal,
): Promise<boolean> {
  const elf = parseElf(target);
  const own = elf && describe(target, target, elf, elf, features);
  if (own === undefined) return false;
  const scanners = await openScanners(own.image, inMemory(target), signal);
  flatten(into, target, scanners, openMoves(nothing, nothing, addressEnd(own.image)), own);
  return true;
}

function writeMoves(
  { image, layout }: Executables,
  { moved, points }: Found,
): readonly StreamContent[] {
  const writers = [openWriter(), openWriter(), openWriter(), openWriter(), openWriter()] as const;
  const [shape, starts, shifts, pointStarts, pointShifts] = writers;
  shape.bytes(writeImage(image));
  writeLayout(layout, shape);
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
