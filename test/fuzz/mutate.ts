/** Changes of valid deltas: of the bytes as they are sent, and, deeper, of the streams before they are compressed. */
import { zstdCompressSync } from "node:zlib";
import { CHUNK_BYTES, MAGIC } from "#core/delta/container.ts";
import { openWriter } from "#core/delta/numbers.ts";
import { CODECS } from "#core/delta/segment.ts";
import { METHODS } from "#core/delta/source.ts";
import type { Chance } from "../../bench/delta/generated.ts";
import type { Sample } from "./samples.ts";

/** Mutations of a few bytes, mostly one. */
export function mutateBytes(chance: Chance, bytes: Buffer): Buffer {
  let mutated: Buffer = Buffer.from(bytes);
  for (let count = 1 + Math.floor(chance.uniform() ** 4 * 8); count > 0; count--)
    mutated = mutateOnce(chance, mutated);
  return mutated;
}

function mutateOnce(chance: Chance, bytes: Buffer): Buffer {
  const below = (limit: number): number => Math.floor(chance.uniform() * limit);
  if (bytes.length === 0) return randomNumber(chance);
  const at = below(bytes.length);
  const some = 1 + below(Math.min(64, bytes.length - at));
  switch (below(9)) {
    case 0:
      bytes[at] = (bytes[at] ?? 0) ^ (1 << below(8));
      return bytes;
    case 1:
      bytes[at] = [0, 1, 127, 128, 254, 255][below(6)] ?? 0;
      return bytes;
    case 2:
      bytes[at] = chance.bits() & 255;
      return bytes;
    case 3:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + some)]);
    case 4:
      return Buffer.concat([bytes.subarray(0, at + some), bytes.subarray(at)]);
    case 5:
      return Buffer.from(bytes.subarray(0, at));
    case 6:
      return Buffer.concat([bytes, Buffer.alloc(some, chance.bits() & 255)]);
    case 7:
      bytes.fill(chance.bits() & 255, at, at + some);
      return bytes;
    default:
      return Buffer.concat([bytes.subarray(0, at), randomNumber(chance), bytes.subarray(at + 1)]);
  }
}

/** A number of any magnitude, as streams have them. */
function randomNumber(chance: Chance): Buffer {
  const writer = openWriter();
  writer.number(Math.floor(2 ** (chance.uniform() * 48)) - 1);
  return Buffer.from(writer.done());
}

/** What numbers mean something at: nothing, one, the ends of bytes, of 31, 32 and 48 bits, and what no number may be. */
const TURNING = [0, 1, 2, 127, 128, 255, 4095, 4096, 65_535, 2 ** 18, 2 ** 18 + 1, 2 ** 31 - 1, 2 ** 31, 2 ** 32, 2 ** 48, 2 ** 49 - 1]; // prettier-ignore

/** A stream of numbers with some of them changed, and all others in their places. */
export function mutateNumbers(chance: Chance, bytes: Buffer): Buffer {
  const below = (limit: number): number => Math.floor(chance.uniform() * limit);
  const ends = [0];
  for (const [index, byte] of bytes.entries()) if (byte < 128) ends.push(index + 1);
  const count = ends.length - 1;
  if (count === 0) return randomNumber(chance);
  const changed = new Set(Array.from({ length: 1 + below(3) }, () => below(count)));
  const writer = openWriter();
  for (let index = 0; index < count; index++) {
    const number = bytes.subarray(ends[index], ends[index + 1]);
    if (!changed.has(index)) {
      writer.bytes(number);
      continue;
    }
    const kind = below(6);
    // Half of them stay near: what is a little wrong comes further than what is absurd.
    if (kind < 3) writer.number(Math.max(0, valueOf(number) + below(9) - 4));
    else if (kind === 3) writer.number(TURNING[below(TURNING.length)] ?? 0);
    else if (kind === 4) writer.bytes(randomNumber(chance));
    // Left out, or there twice.
    else if (below(2) === 0) writer.bytes(Buffer.concat([number, number]));
  }
  return Buffer.from(writer.done());
}

function valueOf(number: Uint8Array): number {
  return Math.min(
    2 ** 48,
    number.reduce((sum, byte, index) => sum + (byte & 127) * 128 ** index, 0),
  );
}

/** Streams that are small as they are sent and large when decompressed: numbers that mean nothing, or never end. */
const BOMBS: readonly Buffer[] = [0, 1, 255].map((byte) =>
  zstdCompressSync(Buffer.alloc(8 * 2 ** 20, byte)),
);

/** A delta with one segment whose streams, or whose header, are not what they were. */
export function mutateStreams(chance: Chance, sample: Sample): Buffer {
  const below = (limit: number): number => Math.floor(chance.uniform() * limit);
  const streams = sample.streams.map((bytes) => ({ bytes, method: METHODS.stored as number }));
  let oldOffset = 0;
  let { size, oldSize } = { size: sample.size, oldSize: sample.old.length };
  for (let count = 1 + Math.floor(chance.uniform() ** 4 * 6); count > 0; count--) {
    const index = below(streams.length);
    const [stream, other] = [streams[index], streams[below(streams.length)]];
    if (stream === undefined || other === undefined) continue;
    const kind = below(1000);
    if (kind < 2) streams[index] = { bytes: BOMBS[below(3)] ?? stream.bytes, method: METHODS.zstd };
    else if (kind < 20) streams[index] = other;
    else if (kind < 40) stream.method = below(4);
    else if (kind < 60) {
      oldOffset = below(sample.old.length + 1);
      oldSize = below(sample.old.length - oldOffset + 1);
    } else if (kind < 70) size = below(sample.size + 2);
    else stream.bytes = mutateBytes(chance, stream.bytes);
  }
  return buildDelta(sample, streams, { size, oldOffset, oldSize });
}

export interface Stream {
  readonly bytes: Buffer;
  readonly method: number;
}

export interface Header {
  readonly size: number;
  readonly oldOffset: number;
  readonly oldSize: number;
}

/** A delta with one segment. */
export function buildDelta(sample: Sample, streams: readonly Stream[], header: Header): Buffer {
  const begin = buildHeader(sample.old.length, sample.size);
  return Buffer.concat([begin, buildSegment(sample, streams, header, inOrder)]);
}

export function buildHeader(oldSize: number, size: number): Buffer {
  const writer = openWriter();
  writer.bytes(MAGIC);
  writer.number(oldSize);
  writer.number(size);
  return Buffer.from(writer.done());
}

/** Which of the streams that have chunks left is next. */
export type Order = (left: readonly number[]) => number | undefined;

/** One stream after the other: small enough for a decoder to hold all that it does not need yet. */
export const inOrder: Order = ([first]) => first;

export function buildSegment(
  sample: Sample,
  streams: readonly Stream[],
  header: Header,
  order: Order,
): Buffer {
  const writer = openWriter();
  writer.byte(CODECS[sample.decoder.name]);
  writer.number(header.size);
  writer.number(header.oldOffset);
  writer.number(header.oldSize);
  for (const { bytes, method } of streams)
    writer.number(bytes.length === 0 ? 0 : bytes.length * 4 + method);
  const done = streams.map(() => 0);
  for (;;) {
    const left = [...streams.keys()].filter(
      (index) => (done[index] ?? 0) < (streams[index]?.bytes.length ?? 0),
    );
    const index = order(left);
    const bytes = index === undefined ? undefined : streams[index]?.bytes;
    if (index === undefined || bytes === undefined) return Buffer.from(writer.done());
    const at = done[index] ?? 0;
    writer.byte(index);
    writer.bytes(bytes.subarray(at, at + CHUNK_BYTES));
    done[index] = at + CHUNK_BYTES;
  }
}
