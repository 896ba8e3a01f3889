/** Deltas and files in memory. */
import type { RandomAccess } from "#core/delta/decoder.ts";
import { packStreams, writeHeader, writeSegment } from "#core/delta/container-writer.ts";
import type { EncodedSegment, SegmentDecoder } from "#core/delta/segment.ts";

export const never: AbortSignal = new AbortController().signal;

export function inMemory(bytes: Uint8Array): RandomAccess {
  return {
    size: bytes.length,
    readInto: (into, position) => {
      if (position < 0 || position + into.length > bytes.length)
        return Promise.reject(new RangeError(`${into.length} bytes at ${position}`));
      into.set(bytes.subarray(position, position + into.length));
      return Promise.resolve();
    },
  };
}

/** A delta with one segment. */
export async function deltaOf(
  old: Uint8Array,
  size: number,
  segment: EncodedSegment,
  decoder: SegmentDecoder,
): Promise<Buffer> {
  const packed = await packStreams(segment.streams, (work) => work());
  const parts = await writeSegment(segment, packed, decoder, inMemory(old), () => undefined, never);
  return Buffer.concat([writeHeader(old.length, size), ...parts]);
}

/** In pieces of `step` bytes, as a network may bring them. */
export async function* inPieces(bytes: Uint8Array, step: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += step) yield bytes.subarray(at, at + step);
}

/** All pieces together; they are copied, because a decoder uses its buffers again. */
export async function collect(pieces: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const piece of pieces) parts.push(Buffer.from(piece));
  return Buffer.concat(parts);
}
