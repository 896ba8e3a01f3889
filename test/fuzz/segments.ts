/** Deltas of several segments, each from a part of one old file, with the chunks of their streams in any order. */
import { CHUNK_BYTES } from "#core/delta/container.ts";
import { METHODS } from "#core/delta/source.ts";
import type { Chance } from "../../bench/delta/generated.ts";
import { buildHeader, buildSegment, mutateBytes, mutateNumbers } from "./mutate.ts";
import type { Sample } from "./samples.ts";

export interface Joined {
  readonly old: Buffer;
  readonly size: number;
  /** What it would be if nothing had been changed. */
  readonly intact: Buffer;
  readonly delta: Buffer;
}

/** More than a decoder may hold of what it does not need yet. */
const TOO_EARLY = Buffer.alloc(66 * CHUNK_BYTES);

/** @param samples with what they make */
export function mutateSegments(
  chance: Chance,
  samples: readonly (Sample & { readonly made: Buffer })[],
): Joined {
  const below = (limit: number): number => Math.floor(chance.uniform() * limit);
  const chosen = Array.from({ length: 1 + below(4) }, () => samples[below(samples.length)]).filter(
    (sample) => sample !== undefined,
  );
  const old = Buffer.concat(chosen.map((sample) => sample.old));
  const intact = Buffer.concat(chosen.map((sample) => sample.made));
  const parts: Buffer[] = [buildHeader(old.length, intact.length)];
  // One segment in which something is wrong; sometimes none.
  const wrong = below(chosen.length + 1);
  let oldOffset = 0;
  for (const [number, sample] of chosen.entries()) {
    const streams = sample.streams.map((bytes) => ({ bytes, method: METHODS.stored as number }));
    const header = { size: sample.size, oldOffset, oldSize: sample.old.length };
    oldOffset += sample.old.length;
    const kind = number === wrong ? below(40) : -1;
    const stream = streams[below(streams.length)];
    if (kind === 0) header.oldOffset = below(old.length + 1);
    else if (kind === 1) header.oldSize = below(old.length - header.oldOffset + 2);
    else if (kind === 2) header.size = Math.max(0, below(9) === 0 ? 0 : header.size + below(9) - 4);
    // As another codec.
    else if (kind === 3)
      parts.push(buildSegment({ ...sample, decoder: samples[below(samples.length)]?.decoder ?? sample.decoder }, streams, header, inAnyOrder)); // prettier-ignore
    else if (kind === 4 && below(4) === 0 && stream !== undefined) stream.bytes = TOO_EARLY;
    else if (kind > 4 && stream !== undefined)
      stream.bytes = (kind < 30 ? mutateNumbers : mutateBytes)(chance, stream.bytes);
    parts.push(buildSegment(sample, streams, header, inAnyOrder));
  }
  const delta = Buffer.concat(parts);
  return {
    old,
    size: intact.length,
    intact,
    delta: below(8) === 0 ? mutateBytes(chance, delta) : delta,
  };

  function inAnyOrder(left: readonly number[]): number | undefined {
    return left[below(left.length)];
  }
}
