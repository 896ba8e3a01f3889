/**
 * Which parts of a new file the tensor codec should try, and against what of the old one. Tensors that both headers name are compared
 * with each other wherever they stand. Without a header, as in ONNX files, each window is tried as each type and at each alignment, at the same
 * place from the file's start and from its end.
 */
import { readBytes } from "./decoder.ts";
import type { RandomAccess } from "./decoder.ts";
import { WIDTHS, openDiffer } from "./tensor-differences.ts";
import type { Dtype, Region } from "./tensor-differences.ts";
import { tensorsOf } from "./tensor-layout.ts";
import { entropy } from "./tensor-runs.ts";

/** The most that a segment makes: what the encoder holds twice. Bytes. */
const SEGMENT_BYTES = 64 * 2 ** 20;
/** Between two regions of a segment: padding, small tensors of other types. More is another codec's work. */
const MAX_BETWEEN = 4096;
/** Bytes of which one choice is made. */
const WINDOW = 256 * 1024;
/** Of a window, that many bytes are looked at. A divisor of it. */
const SAMPLE = 16 * 1024;
/** A window is only worth the trial when the differences of elements take no more than this share of the changed elements. */
const PROMISING = 0.85;

/** Bytes at the start and at the end of a file that are no reason for a segment of their own. */
const SLOP = 64;
/** A file without a header is only taken for weights when at least this share of it looks like them, and of what has changed in it. */
const LEAST_SHARE = 0.5;

/** One segment for {@link encodeTensors}; the regions are relative to the two ranges. */
export interface TensorSegment {
  readonly old: { readonly offset: number; readonly size: number };
  readonly target: { readonly offset: number; readonly size: number };
  readonly regions: readonly Region[];
}

/** In the order of the new file, not overlapping; between them is what other codecs are for. */
export async function planTensors(
  old: RandomAccess,
  target: RandomAccess,
  signal: AbortSignal,
): Promise<readonly TensorSegment[]> {
  const named = await namedRegions(old, target);
  const regions = named.length > 0 ? named : await guessedRegions(old, target, signal);
  return segmentsOf(regions, target.size);
}

async function namedRegions(old: RandomAccess, target: RandomAccess): Promise<readonly Region[]> {
  const tensors = await tensorsOf(target);
  if (tensors.length === 0) return [];
  const before = new Map((await tensorsOf(old)).map((tensor) => [tensor.name, tensor]));
  const regions: Region[] = [];
  let end = 0;
  for (const { name, dtype, offset, size } of tensors) {
    const other = before.get(name);
    // A hostile or odd header may let tensors overlap.
    if (other?.dtype !== dtype || other.size !== size || offset < end) continue;
    end = offset + size;
    append(regions, { old: other.offset, target: offset, size, dtype });
  }
  return regions;
}

/** Adds a region, to the last one when it goes on where that ends in both files. */
function append(regions: Region[], region: Region): void {
  const last = regions.at(-1);
  if (
    last?.dtype === region.dtype &&
    last.old + last.size === region.old &&
    last.target + last.size === region.target
  )
    regions[regions.length - 1] = { ...last, size: last.size + region.size };
  else regions.push(region);
}

interface Choice {
  readonly dtype: Dtype;
  /** Old position minus new position. */
  readonly shift: number;
  /** Where elements begin, modulo their width. */
  readonly phase: number;
}

async function guessedRegions(
  old: RandomAccess,
  target: RandomAccess,
  signal: AbortSignal,
): Promise<readonly Region[]> {
  const choices = [...new Set([0, old.size - target.size])].flatMap((shift): Choice[] => [
    ...[0, 1].map((phase) => ({ dtype: "bf16" as const, shift, phase })),
    ...[0, 1, 2, 3].map((phase) => ({ dtype: "f32" as const, shift, phase })),
  ]);
  const windows: Window[] = [];
  for (let start = 0; start < target.size; start += WINDOW) {
    signal.throwIfAborted();
    windows.push(await choose(choices, old, target, start));
  }
  const changed = windows.filter((window) => "choice" in window);
  if (changed.filter(isChosen).length < changed.length * LEAST_SHARE) return [];
  // A window that says nothing belongs to what came before it, or, at the start, behind it.
  let choice = windows.find(isChosen)?.choice;
  const regions: Region[] = [];
  for (const [index, window] of windows.entries()) {
    if (isChosen(window)) choice = window.choice;
    // One with few changes only looks unpromising when what follows goes on as what was before.
    else if ("choice" in window && choice !== undefined && choice !== following(windows, index))
      choice = undefined;
    if (choice === undefined) continue;
    const { dtype, phase } = choice;
    const shift = "unchanged" in window ? window.unchanged : choice.shift;
    const width = WIDTHS[dtype];
    // As far as the old file goes.
    const first = Math.max(index * WINDOW, -shift);
    const from = first + modulo(phase - first, width);
    const room = Math.min((index + 1) * WINDOW, target.size, old.size - shift) - from;
    const size = Math.floor(room / width) * width;
    if (size > 0) append(regions, { old: from + shift, target: from, size, dtype });
  }
  const covered = regions.reduce((sum, { size }) => sum + size, 0);
  // Here and there, other things look like weights; to cut a file there would cost more than it brings.
  return covered < target.size * LEAST_SHARE ? [] : regions;
}

/** The same as in the old file at some shift, or changed, and then perhaps best seen as weights. */
type Window = { readonly unchanged: number } | { readonly choice: Choice | undefined };

function isChosen(window: Window): window is { readonly choice: Choice } {
  return "choice" in window && window.choice !== undefined;
}

function following(windows: readonly Window[], index: number): Choice | undefined {
  return windows.slice(index).find(isChosen)?.choice;
}

/** The cheapest choice for a window, if one is promising. */
async function choose(
  choices: readonly Choice[],
  old: RandomAccess,
  target: RandomAccess,
  start: number,
): Promise<Window> {
  const size = Math.min(WINDOW, target.size - start);
  const after = await readBytes(target, start, size);
  const before = new Map<number, Buffer>();
  for (const { shift } of choices) {
    const first = Math.max(0, -shift - start);
    const end = Math.min(size, old.size - shift - start);
    if (before.has(shift) || end - first < size / 2) continue;
    // What is outside of the old file counts as equal.
    const bytes = Buffer.from(after);
    await old.readInto(bytes.subarray(first, end), start + shift + first);
    if (bytes.equals(after)) return { unchanged: shift };
    before.set(shift, bytes);
  }
  let best: (Cost & { readonly choice: Choice }) | undefined;
  for (const choice of choices) {
    const bytes = before.get(choice.shift);
    if (bytes === undefined) continue;
    const width = WIDTHS[choice.dtype];
    const from = firstChange(bytes, after);
    const skip = from + modulo(choice.phase - start - from, width);
    const cost = costOf(
      bytes.subarray(skip, from + SAMPLE),
      after.subarray(skip, from + SAMPLE),
      choice.dtype,
    );
    if (best === undefined || cost.bits < best.bits) best = { choice, ...cost };
  }
  return { choice: best !== undefined && best.share < PROMISING ? best.choice : undefined };
}

/** Where the part of a window that is looked at begins: the first that differs. */
function firstChange(before: Buffer, after: Buffer): number {
  let from = 0;
  while (before.subarray(from, from + SAMPLE).equals(after.subarray(from, from + SAMPLE)))
    from += SAMPLE;
  return from;
}

function modulo(value: number, width: number): number {
  return ((value % width) + width) % width;
}

interface Cost {
  /** That the differences of a sample take, about, with their places. */
  readonly bits: number;
  /** The same as a share of the bits of the changed elements. */
  readonly share: number;
}

function costOf(before: Uint8Array, after: Uint8Array, dtype: Dtype): Cost {
  const size = Math.floor(after.length / WIDTHS[dtype]);
  const region = { old: 0, target: 0, size: size * WIDTHS[dtype], dtype };
  const lengths = Array.from({ length: 33 }, () => 0);
  openDiffer(before, after, size).visit(region, 0, size, ({ values }, _start, count) => {
    for (let index = 0; index < count; index++) {
      const length = 32 - Math.clz32(values[index] ?? 0);
      lengths[length] = (lengths[length] ?? 0) + 1;
    }
  });
  const bits = lengths.reduce(
    (sum, count, length) => sum + count * Math.max(0, length - 1),
    entropy(lengths),
  );
  const changed = size - (lengths[0] ?? 0);
  return { bits, share: changed === 0 ? Infinity : bits / (8 * WIDTHS[dtype] * changed) };
}

/** Regions in order, cut and put together to segments that an encoder can hold. */
function segmentsOf(regions: readonly Region[], size: number): readonly TensorSegment[] {
  const segments: TensorSegment[] = [];
  let open: Region[] = [];
  const close = (): void => {
    const [first, last] = [open[0], open.at(-1)];
    if (first === undefined || last === undefined) return;
    const oldStart = Math.min(...open.map((region) => region.old));
    const oldEnd = Math.max(...open.map((region) => region.old + region.size));
    const start = first.target <= SLOP ? 0 : first.target;
    const end = last.target + last.size;
    segments.push({
      old: { offset: oldStart, size: oldEnd - oldStart },
      target: { offset: start, size: (size - end <= SLOP ? size : end) - start },
      regions: open.map((region) => ({
        ...region,
        old: region.old - oldStart,
        target: region.target - start,
      })),
    });
    open = [];
  };
  for (const region of regions)
    for (let done = 0; done < region.size;) {
      const [first, last] = [open[0], open.at(-1)];
      const part = { ...region, old: region.old + done, target: region.target + done };
      const room = first === undefined ? SEGMENT_BYTES : first.target + SEGMENT_BYTES - part.target;
      const width = WIDTHS[region.dtype];
      const size = Math.min(region.size - done, Math.floor(room / width) * width);
      const far =
        last !== undefined &&
        (part.target - last.target - last.size > MAX_BETWEEN ||
          Math.abs(part.old - (first?.old ?? 0)) + size > 2 * SEGMENT_BYTES);
      if (size <= 0 || far) {
        close();
        continue;
      }
      open.push({ ...part, size });
      done += size;
    }
  close();
  return segments;
}
