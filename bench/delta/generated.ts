/**
 * Pairs of files that are made instead of fetched, the same on every machine: weights as a fine-tuning moves them, an insertion, and
 * bytes that have nothing in common. The digests are pinned, so that a change of the generator is seen.
 */
import { open } from "node:fs/promises";

/** Bytes of one file of weights, and of the unrelated ones. */
const SIZE = 64 * 2 ** 20;
/** Weights of one row: about a hidden size. */
const ROW = 1024;
const CHUNK = 2 ** 20;

export interface Chance {
  /** 32 random bits. */
  bits(): number;
  /** Standard normal. */
  normal(): number;
  /** In [0, 1). */
  uniform(): number;
}

/** Chris Doty-Humphrey's sfc32 with a counter; normals by Box and Muller. */
export function chanceFrom(seed: number): Chance {
  let [a, b, c, counter] = [seed >>> 0, 0x9e37_79b9, 0x243f_6a88, 1];
  let spare: number | undefined;
  const bits = (): number => {
    const result = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + result) | 0;
    return result >>> 0;
  };
  for (let round = 0; round < 12; round++) bits();
  const uniform = (): number => bits() / 2 ** 32;
  const normal = (): number => {
    if (spare !== undefined) {
      const value = spare;
      spare = undefined;
      return value;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - uniform()));
    const angle = 2 * Math.PI * uniform();
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
  return { bits, normal, uniform };
}

export interface Weights {
  readonly dtype: "f32" | "bf16";
  /** Standard deviation of the factor that moves a weight. */
  readonly sigma: number;
  /** Share of rows that move. */
  readonly rows: number;
  /** Bytes of the file when not {@link SIZE}. */
  readonly size?: number;
}

const float = new Float32Array(1);
const floatBits = new Uint32Array(float.buffer);

/** The nearest bfloat16, ties to even, as bits. */
function toBfloat16(value: number): number {
  float[0] = value;
  const bits = floatBits[0] ?? 0;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

function fromBfloat16(bits: number): number {
  floatBits[0] = bits << 16;
  return float[0] ?? 0;
}

/** Weights of standard deviation 0.02, and the same after each one of the chosen rows was multiplied by 1 + sigma × normal. */
export async function writeWeights(
  { dtype, sigma, rows, size = SIZE }: Weights,
  seed: number,
  oldFile: string,
  newFile: string,
): Promise<void> {
  const chance = chanceFrom(seed);
  await using oldHandle = await open(oldFile, "w");
  await using newHandle = await open(newFile, "w");
  const old = dtype === "f32" ? new Float32Array(CHUNK / 4) : new Uint16Array(CHUNK / 2);
  const target = dtype === "f32" ? new Float32Array(CHUNK / 4) : new Uint16Array(CHUNK / 2);
  for (let at = 0; at < size; at += CHUNK) {
    for (let start = 0; start < old.length; start += ROW) {
      const moves = chance.uniform() < rows;
      for (let index = start; index < start + ROW; index++) {
        const value = 0.02 * chance.normal();
        if (dtype === "f32") {
          old[index] = value;
          const before = old[index] ?? 0;
          target[index] = moves ? before * (1 + sigma * chance.normal()) : before;
        } else {
          const before = toBfloat16(value);
          old[index] = before;
          target[index] = moves
            ? toBfloat16(fromBfloat16(before) * (1 + sigma * chance.normal()))
            : before;
        }
      }
    }
    await oldHandle.writeFile(old);
    await newHandle.writeFile(target);
  }
}

/** Random bytes, and the same with 4 KiB of others put in at a place that is not aligned. */
export async function writeInsertion(
  seed: number,
  oldFile: string,
  newFile: string,
): Promise<void> {
  const chance = chanceFrom(seed);
  const chunks = 256;
  const place = 100;
  await using oldHandle = await open(oldFile, "w");
  await using newHandle = await open(newFile, "w");
  for (let chunk = 0; chunk < chunks; chunk++) {
    const bytes = randomBytes(chance, CHUNK);
    await oldHandle.writeFile(bytes);
    if (chunk === place) {
      await newHandle.writeFile(bytes.subarray(0, 12_345));
      await newHandle.writeFile(randomBytes(chance, 4096));
      await newHandle.writeFile(bytes.subarray(12_345));
    } else await newHandle.writeFile(bytes);
  }
}

/** Two files of random bytes. */
export async function writeUnrelated(
  seed: number,
  oldFile: string,
  newFile: string,
): Promise<void> {
  const chance = chanceFrom(seed);
  for (const file of [oldFile, newFile]) {
    await using handle = await open(file, "w");
    for (let at = 0; at < SIZE; at += CHUNK) await handle.writeFile(randomBytes(chance, CHUNK));
  }
}

function randomBytes(chance: Chance, length: number): Uint8Array {
  const words = new Uint32Array(length / 4);
  for (let index = 0; index < words.length; index++) words[index] = chance.bits();
  return new Uint8Array(words.buffer);
}
