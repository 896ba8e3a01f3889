/** Small deltas that are valid, one or more for each codec: what the fuzzer changes. */
import { COPY_STREAMS } from "#core/delta/copies.ts";
import { writeCopies } from "#core/delta/copies-writer.ts";
import { executable } from "#core/delta/executable.ts";
import { REGIONS, writeImage } from "#core/delta/image.ts";
import type { Region as ImageRegion, RegionName } from "#core/delta/image.ts";
import { buildIndex, findCopies, indexBytes } from "#core/delta/matcher.ts";
import { openWriter, zigzag } from "#core/delta/numbers.ts";
import { plain } from "#core/delta/plain.ts";
import type { SegmentDecoder } from "#core/delta/segment.ts";
import { stored } from "#core/delta/stored.ts";
import { tensor } from "#core/delta/tensor.ts";
import type { Region } from "#core/delta/tensor-differences.ts";
import { encodeTensors } from "#core/delta/tensor-encoder.ts";
import { chanceFrom } from "../../bench/delta/generated.ts";
import type { Chance } from "../../bench/delta/generated.ts";
import { never } from "../support/delta.ts";

export interface Sample {
  readonly decoder: SegmentDecoder;
  readonly old: Buffer;
  /** Bytes that it makes. */
  readonly size: number;
  /** By stream, not compressed. */
  readonly streams: readonly Buffer[];
}

export const decoders: readonly SegmentDecoder[] = [stored, plain, executable, tensor];

export function makeSamples(): readonly Sample[] {
  return [storedSample(), plainSample(), executableSample(), tensorSample(1), tensorSample(0.02)];
}

function randomBytes(chance: Chance, length: number): Buffer {
  return Buffer.from(Uint8Array.from({ length }, () => chance.bits()));
}

function below(chance: Chance, limit: number): number {
  return Math.floor(chance.uniform() * limit);
}

/** The same with some bytes changed, and some put in. */
function edited(chance: Chance, bytes: Buffer): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += 500) {
    const part = Buffer.from(bytes.subarray(at, at + 500));
    part[below(chance, part.length)] = chance.bits() & 255;
    parts.push(part);
    if (chance.uniform() < 0.2) parts.push(randomBytes(chance, below(chance, 40)));
  }
  return Buffer.concat(parts);
}

function storedSample(): Sample {
  const bytes = randomBytes(chanceFrom(1), 3000);
  return { decoder: stored, old: Buffer.alloc(10), size: bytes.length, streams: [bytes] };
}

function plainSample(): Sample {
  const chance = chanceFrom(2);
  const old = randomBytes(chance, 12_000);
  const target = edited(chance, old);
  return {
    decoder: plain,
    old,
    size: target.length,
    streams: copiesBetween(old, target).map((bytes) => Buffer.from(bytes)),
  };
}

function copiesBetween(old: Buffer, target: Buffer): readonly Uint8Array[] {
  const bytes = indexBytes(old.length);
  const index = { heads: new Int32Array(bytes.heads / 4), links: new Int32Array(bytes.links / 4) };
  buildIndex(old, index);
  const copies = findCopies(old, target, index, 0, target.length);
  return writeCopies(old, target, copies).map((stream) => stream.bytes);
}

/** One region of each kind over bytes that look a little like what belongs there. */
function executableSample(): Sample {
  const chance = chanceFrom(3);
  const room = 2048;
  const names = Object.keys(REGIONS) as readonly RegionName[];
  const old = randomBytes(chance, room * (names.length + 1));
  const regions = names.map((name, index): ImageRegion => {
    const offset = room * index + 16;
    return {
      name,
      offset,
      size: room - 16,
      address: offset,
      parameters: Array.from({ length: REGIONS[name].parameters }, (_, parameter) =>
        name === "x86" || name === "aarch64" ? 1 : room * parameter,
      ),
    };
  });
  for (const { name, offset, size } of regions) {
    // Calls in the code, small addresses in the tables, lengths where records begin.
    for (let at = offset; at + 24 < offset + size; at += 24) {
      if (name === "x86") old[at] = 0xe8;
      if (name === "aarch64") old.writeUInt32LE(0x9400_0000 + below(chance, 1000), at);
      else old.writeInt32LE(below(chance, 2 * room) - room, at + (name === "x86" ? 1 : 0));
      if (name === "frames") old.writeUInt32LE(20, at);
      if (name === "pointers" || name === "relocations")
        old.writeBigUInt64LE(BigInt(below(chance, old.length)), at);
    }
  }
  const shape = openWriter();
  const areas = [
    { address: 0, size: 4096, executable: true },
    { address: 4096, size: old.length, executable: false },
  ];
  shape.bytes(writeImage({ oldBase: 0, newBase: 65_536, areas, regions }));
  const tables = [openWriter(), openWriter(), openWriter(), openWriter()] as const;
  const [starts, shifts, points, pointShifts] = tables;
  for (const [addresses, moves, count] of [
    [starts, shifts, 12],
    [points, pointShifts, 5],
  ] as const) {
    shape.number(count);
    for (let index = 0; index < count; index++) {
      addresses.number(1 + below(chance, 1200));
      moves.number(zigzag(below(chance, 200) - 100));
    }
  }
  const copies = copiesBetween(old, edited(chance, old));
  const streams = [...copies, shape.done(), ...tables.map((writer) => writer.done())];
  // What comes out of moved addresses is no matter: only its size is fixed, by the copies.
  return {
    decoder: executable,
    old,
    size: sizeOf(copies),
    streams: streams.map((bytes) => Buffer.from(bytes)),
  };
}

/** Bytes that copies make: their lengths and the new bytes. */
function sizeOf(copies: readonly Uint8Array[]): number {
  const lengths = copies[COPY_STREAMS.indexOf("lengths")] ?? new Uint8Array(0);
  let size = copies[COPY_STREAMS.indexOf("bytes")]?.length ?? 0;
  let [value, scale] = [0, 1];
  for (const byte of lengths) {
    value += (byte & 127) * scale;
    scale *= 128;
    if (byte > 127) continue;
    size += value;
    [value, scale] = [0, 1];
  }
  return size;
}

function tensorSample(share: number): Sample {
  const chance = chanceFrom(4);
  const count = 2500;
  const words = Float32Array.from({ length: count }, () => chance.normal());
  const moved = words.map((word) =>
    chance.uniform() < share ? word * (1 + 0.01 * chance.normal()) : word,
  );
  const halves = (floats: Float32Array): Uint8Array =>
    new Uint8Array(Uint16Array.from(new Uint32Array(floats.buffer), (word) => word >>> 16).buffer);
  const old = Buffer.concat([new Uint8Array(words.buffer), halves(words), Buffer.alloc(9)]);
  const target = Buffer.concat([new Uint8Array(moved.buffer), Buffer.from("new"), halves(moved)]);
  const regions: readonly Region[] = [
    { old: 0, target: 0, size: 4 * count, dtype: "f32" },
    { old: 4 * count, target: 4 * count + 3, size: 2 * count, dtype: "bf16" },
  ];
  const streams = encodeTensors(old, target, regions, never) ?? [];
  return {
    decoder: tensor,
    old,
    size: target.length,
    streams: streams.map(({ bytes }) => Buffer.from(bytes)),
  };
}
