/** Where a new file is cut into segments, and which part of the old one each is made from. */
import type { RandomAccess } from "./decoder.ts";
import { readBytes } from "./decoder.ts";
import { planTensors } from "./tensor-plan.ts";
import type { TensorSegment } from "./tensor-plan.ts";
import { STEP, markOld } from "./window.ts";

/** Files up to this are made in one piece: both in memory, with an index of the old one. Bytes. */
const WHOLE = 320 * STEP;
/** Of larger ones, so many new bytes, from so many old ones wherever they are, at a time: about 1 GiB of memory with the index. */
const WINDOW_TARGET = 64 * STEP;
const WINDOW_OLD = 128 * STEP;

export interface Range {
  readonly offset: number;
  readonly size: number;
}

/** A file that consists of files. */
export interface Part extends Range {
  readonly name: string;
}
export type Parted = RandomAccess & { readonly parts?: readonly Part[] };

export interface PlannedSegment {
  readonly target: Range;
  /** What copies are looked for in: pieces of the old file, in its order. */
  readonly old: readonly Range[];
  /** Worth a trial as weights. */
  readonly tensors?: TensorSegment;
}

/** In order, together the whole new file. */
export async function planSegments(
  old: Parted,
  target: Parted,
  signal: AbortSignal,
): Promise<readonly PlannedSegment[]> {
  const executables = await findExecutables(old, target);
  const tensors = executables.length > 0 ? [] : await planTensors(old, target, signal);
  const marks = old.size > WHOLE ? await markOld(old, target, WINDOW_OLD, signal) : undefined;
  const segments: PlannedSegment[] = [];
  const oldFor = async (range: Range): Promise<readonly Range[]> =>
    marks === undefined ? [{ offset: 0, size: old.size }] : await marks.piecesFor(range, signal);
  const add = async (from: number, to: number): Promise<void> => {
    const step = marks === undefined ? WHOLE : WINDOW_TARGET;
    for (let offset = from; offset < to; offset += step) {
      const range = { offset, size: Math.min(step, to - offset) };
      segments.push({ target: range, old: await oldFor(range) });
    }
  };
  let end = 0;
  for (const pair of executables) {
    await add(end, pair.target.offset);
    end = pair.target.offset + pair.target.size;
    segments.push(pair);
  }
  for (const found of tensors) {
    const { offset, size } = found.target;
    await add(end, offset);
    end = offset + size;
    segments.push({ target: found.target, old: await oldFor(found.target), tensors: found });
  }
  await add(end, target.size);
  return segments;
}

/** Smaller ones are better off with their neighbours. Bytes. */
const LEAST_EXECUTABLE = 16 * 1024;

/** Executables, each with the old one of its name; a file that consists of nothing else is its own only part. */
async function findExecutables(old: Parted, target: Parted): Promise<readonly PlannedSegment[]> {
  const before = new Map(partsOf(old).map((part) => [part.name, part]));
  const found: PlannedSegment[] = [];
  for (const part of partsOf(target)) {
    const other = before.get(part.name);
    if (other === undefined || part.size < LEAST_EXECUTABLE) continue;
    if (Math.max(part.size, other.size) > WHOLE) continue;
    if ((await isElf(target, part)) && (await isElf(old, other)))
      found.push({ target: rangeOf(part), old: [rangeOf(other)] });
  }
  return found;
}

function partsOf({ size, parts }: Parted): readonly Part[] {
  return parts ?? [{ name: "", offset: 0, size }];
}

function rangeOf({ offset, size }: Range): Range {
  return { offset, size };
}

async function isElf(file: RandomAccess, { offset, size }: Range): Promise<boolean> {
  return size >= 64 && (await readBytes(file, offset, 4)).readUInt32LE(0) === 0x464c_457f;
}
