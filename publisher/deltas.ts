/** Deltas between two files, proven: the seam to the codecs. */
import { CODEC } from "#core/delta/codec-names.ts";
import { decoderOf } from "#core/delta/codec.ts";
import { encodeDelta } from "#core/delta/encode.ts";
import type { Run } from "#core/delta/encode.ts";
import { openSharedMemory } from "#core/delta/shared-memory.ts";
import { codeOf } from "#core/errors.ts";
import { openLanes } from "#core/lanes.ts";
import { digestOf, openRandom, readRange, spool } from "./files.ts";
import type { Spooled } from "./files.ts";
import { openMatching } from "./matching.ts";

/** Bytes; making a delta from a larger file uses every processor by itself, and holds about ten bytes for each of its. */
const SMALL = 1024 * 1024;
/** Deltas between small files that are made at a time: while one is compressed another one is looked at. */
const SMALL_LANES = 4;

/** A delta in a file of its own. */
export interface MadeDelta extends Spooled {
  readonly codec: string;
}

export interface DeltaTarget {
  readonly path: string;
  /** The digest that the new file must have. */
  readonly sha256: string;
  readonly size: number;
}

/** Has threads of its own, which end with it. */
export interface Deltas extends AsyncDisposable {
  /**
   * A delta from one file to another; `undefined` when there is none for this pair, and the full blob has to do.
   *
   * @param path of the delta, which must not exist
   * @param advance told of the bytes of the new file that are done
   */
  make(
    oldPath: string,
    target: DeltaTarget,
    path: string,
    advance: (bytes: number) => void,
    signal: AbortSignal,
  ): Promise<MadeDelta | undefined>;
}

/** @param run for compression */
export function openDeltas(run: Run): Deltas {
  const matching = openMatching();
  const large = openLanes(1);
  const memory = openSharedMemory();
  const small = openLanes(SMALL_LANES);

  async function make(
    oldPath: string,
    target: DeltaTarget,
    path: string,
    advance: (bytes: number) => void,
    signal: AbortSignal,
  ): Promise<MadeDelta | undefined> {
    await using old = await openRandom(oldPath);
    await using file = await openRandom(target.path);
    let done = 0;
    const lane = old.size + file.size < SMALL ? small : large;
    const crew = {
      run,
      search: matching.search,
      memory: lane === large ? memory : openSharedMemory(),
      advance(bytes: number): void {
        done += bytes;
        advance(bytes);
      },
    };
    try {
      if (old.size === 0 || file.size !== target.size) return undefined;
      const delta = await lane(() => spool(path, encodeDelta(old, file, crew, signal)));
      // The proof: only a delta from which a decoder has made the file is offered.
      const bytes = readRange(delta.path, 0, delta.size);
      const decoder = decoderOf(CODEC);
      const proof = decoder && (await digestOf(decoder.apply(old, bytes, target.size, signal)));
      return proof?.sha256 === target.sha256 ? { ...delta, codec: CODEC } : undefined;
    } catch (error) {
      // This pair cannot be encoded.
      if (codeOf(error) === "DELTA_INVALID") return undefined;
      throw error;
    } finally {
      // Whatever came of it: the work that was expected is over.
      advance(target.size - done);
    }
  }

  return { make, [Symbol.asyncDispose]: () => matching[Symbol.asyncDispose]() };
}
