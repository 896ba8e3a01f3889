/** Small deltas that are valid, one or more for each codec: what the fuzzer changes. */
import { createCipheriv } from "node:crypto";
import { COPY_STREAMS } from "#core/delta/copies.ts";
import { writeCopies } from "#core/delta/copies-writer.ts";
import { AARCH64, X86_64 } from "#core/delta/elf.ts";
import { encodeExecutable } from "#core/delta/executable-encode.ts";
import { executable, placed } from "#core/delta/executable.ts";
import { REGIONS, writeImage } from "#core/delta/image.ts";
import type { Region as ImageRegion, RegionName } from "#core/delta/image.ts";
import { buildIndex, findCopies, indexBytes } from "#core/delta/matcher.ts";
import type { Copies } from "#core/delta/matcher.ts";
import { openWriter, zigzag } from "#core/delta/numbers.ts";
import { MACHINES, writeLayout } from "#core/delta/places.ts";
import { plain } from "#core/delta/plain.ts";
import type { SegmentDecoder } from "#core/delta/segment.ts";
import { openSharedMemory } from "#core/delta/shared-memory.ts";
import { stored } from "#core/delta/stored.ts";
import { tensor } from "#core/delta/tensor.ts";
import type { Region } from "#core/delta/tensor-differences.ts";
import { encodeTensors } from "#core/delta/tensor-encoder.ts";
import { chanceFrom } from "../../bench/delta/generated.ts";
import type { Chance } from "../../bench/delta/generated.ts";
import { never } from "../support/delta.ts";
import { makeElf } from "../support/elf.ts";

export interface Sample {
  readonly decoder: SegmentDecoder;
  readonly old: Buffer;
  /** Bytes that it makes. */
  readonly size: number;
  /** By stream, not compressed. */
  readonly streams: readonly Buffer[];
}

export const decoders: readonly SegmentDecoder[] = [stored, plain, executable, tensor, placed];

export async function makeSamples(): Promise<readonly Sample[]> {
  return [
    await elfSample(X86_64, 0),
    await elfSample(X86_64, 0x40_0000),
    await elfSample(AARCH64, 0),
    wideSample(plain),
    wideSample(executable),
    storedSample(),
    plainSample(),
    executableSample(executable),
    executableSample(placed),
    tensorSample(1),
    tensorSample(0.02),
  ];
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

function findAll(old: Uint8Array, target: Uint8Array): Copies {
  const bytes = indexBytes(old.length);
  const index = { heads: new Int32Array(bytes.heads / 4), links: new Int32Array(bytes.links / 4) };
  buildIndex(old, index);
  return findCopies(old, target, index, 0, target.length);
}

function copiesBetween(old: Buffer, target: Buffer): readonly Uint8Array[] {
  return writeCopies(old, target, findAll(old, target)).map((stream) => stream.bytes);
}

/** Two releases of a small program, as the encoder makes a delta of them. */
async function elfSample(machine: number, base: number): Promise<Sample> {
  const functions = (from: number): readonly number[] =>
    Array.from({ length: 60 }, (_, index) => from + index);
  const old = makeElf({ machine, base, functions: functions(30) });
  const target = makeElf({ machine, base, functions: functions(35) });
  const match = (before: Uint8Array, after: Uint8Array): Promise<Copies> =>
    Promise.resolve(findAll(before, after));
  const copies = findAll(old, target);
  const memory = openSharedMemory();
  const streams = await encodeExecutable(old, target, copies, match, memory, never);
  if (streams === undefined) throw new Error(`no executable for machine ${machine}`);
  return {
    decoder: placed,
    old,
    size: target.length,
    streams: streams.map(({ bytes }) => Buffer.from(bytes)),
  };
}

/** More of the old file than a decoder keeps, in small copies from everywhere, and some that are read as a whole. */
function wideSample(decoder: SegmentDecoder): Sample {
  const chance = chanceFrom(5);
  const old = noise(3 * 2 ** 20);
  const lengths = Array.from({ length: 900 }, (_, index) =>
    index % 300 === 7 ? 20_000 : 1 + below(chance, 40),
  );
  const writers = COPY_STREAMS.map(() => openWriter());
  const [literals, sizes, sources] = writers;
  let source = 0;
  for (const length of lengths) {
    const from = below(chance, old.length - length);
    literals?.number(0);
    sizes?.number(length);
    sources?.number(zigzag(from - source));
    source = from + length;
  }
  if (decoder === executable) {
    const shape = openWriter();
    const areas = [{ address: 0, size: old.length, executable: true }];
    const region: ImageRegion = {
      name: "x86",
      offset: 0,
      size: old.length,
      address: 0,
      parameters: [0],
    };
    shape.bytes(writeImage({ oldBase: 0, newBase: 0, areas, regions: [region] }));
    shape.number(1);
    shape.number(0);
    const [starts, shifts] = [openWriter(), openWriter()];
    starts.number(1000);
    shifts.number(zigzag(64));
    writers.push(shape, starts, shifts, openWriter(), openWriter());
  }
  return {
    decoder,
    old,
    size: lengths.reduce((sum, length) => sum + length, 0),
    streams: writers.map((writer) => Buffer.from(writer.done())),
  };
}

/** Bytes without any order, quickly. */
function noise(length: number): Buffer {
  return createCipheriv("aes-128-ctr", Buffer.alloc(16), Buffer.alloc(16)).update(
    Buffer.alloc(length),
  );
}

/** One region of each kind over bytes that look a little like what belongs there. */
function executableSample(decoder: SegmentDecoder): Sample {
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
      if (name === "goTypes") {
        // A method: its name, its type, and two places in code, which count from the types and from code.
        old.writeInt32LE(5000 + below(chance, 1000), at);
        old.writeInt32LE(4096 + 32 * below(chance, 60), at + 4);
        old.writeInt32LE(32 * below(chance, 60), at + 8);
        old.writeInt32LE(-1, at + 12);
      }
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
  if (decoder === placed) {
    const parts = [
      { offset: 0, address: 0, executable: true },
      { offset: 6000, address: 8000, executable: false },
      { offset: 8000, address: 12_000, executable: true },
    ];
    writeLayout({ machine: MACHINES.x86, end: 30_000, parts }, shape);
  }
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
    decoder,
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
