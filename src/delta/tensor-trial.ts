/**
 * Whether copies might make a segment smaller that was planned for the tensor codec. To look for copies in noise, and to compress what they
 * leave, takes a hundred times as long as the differences do, so that is first tried on samples.
 */
import { packStreams } from "./container-writer.ts";
import type { Run } from "./container-writer.ts";
import { writeCopies } from "./copies-writer.ts";
import { matchHere } from "./match.ts";
import type { StreamContent } from "./segment.ts";
import type { Region } from "./tensor-differences.ts";
import { encodeTensors } from "./tensor-encoder.ts";

/** Bytes of a sample: a multiple of every width. */
const SAMPLE = 256 * 1024;
const SAMPLES = 4;
/** What the streams of a small sample cost by being many. */
const STREAM_BYTES = 150;

export async function copiesMayWin(
  old: Uint8Array,
  target: Uint8Array,
  regions: readonly Region[],
  run: Run,
  signal: AbortSignal,
): Promise<boolean> {
  const changed = regions.flatMap((region) => changedParts(old, target, region));
  const bytesOf = async (streams: readonly StreamContent[]): Promise<number> => {
    const packed = await packStreams(streams, run);
    return packed.reduce((sum, { bytes }) => sum + bytes.length, 0);
  };
  let gain = 0;
  for (let index = 0; index < Math.min(SAMPLES, changed.length); index++) {
    const part = changed[Math.floor((index * changed.length) / Math.min(SAMPLES, changed.length))];
    if (part === undefined) continue;
    const before = old.subarray(part.old, part.old + part.size);
    const after = target.subarray(part.target, part.target + part.size);
    const streams = encodeTensors(before, after, [{ ...part, old: 0, target: 0 }], signal);
    const copies = await matchHere(before, after, () => undefined, signal);
    // Without the tables, which a segment has only once.
    gain += await bytesOf(streams?.slice(1) ?? []);
    gain -= await bytesOf(writeCopies(before, after, copies));
  }
  return gain > SAMPLES * STREAM_BYTES;
}

function changedParts(old: Uint8Array, target: Uint8Array, region: Region): readonly Region[] {
  const parts: Region[] = [];
  for (let at = 0; at < region.size; at += SAMPLE) {
    const size = Math.min(SAMPLE, region.size - at);
    const part = { ...region, old: region.old + at, target: region.target + at, size };
    const before = old.subarray(part.old, part.old + size);
    if (Buffer.compare(before, target.subarray(part.target, part.target + size)) !== 0)
      parts.push(part);
  }
  return parts;
}
