/** One delta between two files, proven: the seam to the codecs. */
import { decoderOf } from "#core/delta/codec.ts";
import { encodeDelta } from "#core/delta/encode.ts";
import type { Run } from "#core/delta/encode.ts";
import { codeOf } from "#core/errors.ts";
import { digestOf, openRandom, readRange, spool } from "./files.ts";
import type { Spooled } from "./files.ts";

/** The codec that deltas are made with. */
export const CODEC = "zstd-segments";

/** A delta in a file of its own. */
export interface MadeDelta extends Spooled {
  readonly codec: string;
}

/**
 * A delta from one file to another; `undefined` when there is none for this pair, and the full blob has to do.
 *
 * @param target the new file, with the digest that it must have
 * @param path of the delta, which must not exist
 */
export async function makeDelta(
  oldPath: string,
  target: { readonly path: string; readonly sha256: string; readonly size: number },
  path: string,
  run: Run,
  signal: AbortSignal,
): Promise<MadeDelta | undefined> {
  await using old = await openRandom(oldPath);
  await using file = await openRandom(target.path);
  if (old.size === 0 || file.size !== target.size) return undefined;
  try {
    const delta = await spool(path, encodeDelta(old, file, run, signal));
    // The proof: only a delta from which a decoder has made the file is offered.
    const bytes = readRange(delta.path, 0, delta.size);
    const decoder = decoderOf(CODEC);
    const proof = decoder && (await digestOf(decoder.apply(old, bytes, target.size, signal)));
    return proof?.sha256 === target.sha256 ? { ...delta, codec: CODEC } : undefined;
  } catch (error) {
    if (codeOf(error) === "DELTA_INVALID") return undefined;
    throw error;
  }
}
