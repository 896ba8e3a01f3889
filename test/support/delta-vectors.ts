/**
 * The vectors of the delta format: old files, new files and deltas that every version of a decoder must go on to understand. Files are
 * made from rules, deltas are stored. Run as a program, it writes those that are not there yet; what is there is never changed.
 */
import { createHash } from "node:crypto";
import { access, readFile, writeFile } from "node:fs/promises";
import { AARCH64, X86_64 } from "#core/delta/elf.ts";
import { encodeDelta } from "#core/delta/encode.ts";
import { matchHere } from "#core/delta/match.ts";
import { openSharedMemory } from "#core/delta/shared-memory.ts";
import { collect, inMemory, never } from "./delta.ts";
import { makeElf } from "./elf.ts";

const FOLDER = new URL("../vectors/delta/", import.meta.url);

export interface DeltaVector {
  readonly name: string;
  readonly codec: string;
  readonly old: Buffer;
  readonly target: Buffer;
}

const functions = (from: number, to: number): readonly number[] =>
  Array.from({ length: to - from }, (_, index) => from + index);
const elf = (machine: number, base: number, numbers: readonly number[]): Buffer =>
  makeElf({ machine, base, functions: numbers });
const lines = (count: number, word: string): Buffer =>
  Buffer.from(Array.from({ length: count }, (_, index) => `${index * index} ${word}\n`).join(""));

/** SHA-256 of numbers: bytes without any order. */
function noise(blocks: number): Buffer {
  return Buffer.concat(
    functions(0, blocks).map((block) => createHash("sha256").update(String(block)).digest()),
  );
}

/** Floats of one size, a third of which moves by up to `step` units in the last place. */
function weights(step: number): Buffer {
  const order = noise(1250);
  const words = Int32Array.from({ length: 10_000 }, (_, index) => {
    const chance = order.readUInt32LE(4 * index);
    const moved = chance % 3 === 0 ? (chance >>> 8) % (step + 1) : 0;
    return 0x3c00_0000 + (chance & 0x007f_ffff) + moved;
  });
  return Buffer.from(words.buffer);
}

export const deltaVectors: readonly DeltaVector[] = [
  { name: "stored", codec: "stored", old: Buffer.alloc(10, 7), target: noise(20) },
  {
    name: "plain",
    codec: "plain",
    old: lines(900, "old"),
    target: Buffer.concat([lines(500, "old"), Buffer.from("between\n"), lines(700, "new")]),
  },
  {
    name: "executable-x86-64",
    codec: "executable",
    old: elf(X86_64, 0, functions(20, 140)),
    target: elf(X86_64, 0, [...functions(22, 80), 7, ...functions(80, 140)]),
  },
  {
    name: "executable-x86-64-fixed",
    codec: "executable",
    old: elf(X86_64, 0x40_0000, functions(20, 140)),
    target: elf(X86_64, 0x40_0000, [...functions(22, 80), 7, ...functions(80, 140)]),
  },
  {
    name: "executable-aarch64",
    codec: "executable",
    old: elf(AARCH64, 0, functions(20, 140)),
    target: elf(AARCH64, 0, [...functions(22, 80), 7, ...functions(80, 140)]),
  },
  {
    name: "placed-x86-64",
    codec: "placed",
    old: elf(X86_64, 0, functions(20, 140)),
    target: elf(X86_64, 0, [
      ...functions(22, 80),
      7,
      ...functions(200, 280),
      ...functions(80, 140),
    ]),
  },
  {
    name: "placed-aarch64",
    codec: "placed",
    old: elf(AARCH64, 0x40_0000, functions(20, 140)),
    target: elf(AARCH64, 0x40_0000, [
      ...functions(60, 140),
      7,
      ...functions(20, 60),
      ...functions(200, 280),
    ]),
  },
  { name: "tensor", codec: "tensor", old: weights(0), target: weights(9) },
];

export function storedDelta(name: string): Promise<Buffer> {
  return readFile(new URL(`${name}.delta`, FOLDER));
}

export async function writeDeltaVectors(): Promise<void> {
  const crew = {
    run: <T>(work: () => Promise<T>): Promise<T> => work(),
    search: matchHere,
    memory: openSharedMemory(),
    advance: (): void => undefined,
  };
  for (const { name, old, target } of deltaVectors) {
    const file = new URL(`${name}.delta`, FOLDER);
    const exists = await access(file).then(
      () => true,
      () => false,
    );
    if (exists) continue;
    await writeFile(file, await collect(encodeDelta(inMemory(old), inMemory(target), crew, never)));
  }
}

if (import.meta.main) await writeDeltaVectors();
