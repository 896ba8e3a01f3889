/**
 * Where the tensors of a file are: the headers of safetensors and of GGUF. Whatever is wrong with a header, the file just has no tensors that
 * are known; the encoder then looks for itself.
 */
import { readBytes } from "./decoder.ts";
import type { RandomAccess } from "./decoder.ts";
import { WIDTHS } from "./tensor-differences.ts";
import type { Dtype } from "./tensor-differences.ts";

export interface Tensor {
  readonly name: string;
  readonly dtype: Dtype;
  /** In the file. Bytes. */
  readonly offset: number;
  readonly size: number;
}

/** The most that is read of a header. Bytes. */
const MAX_HEADER = 64 * 2 ** 20;

/** Tensors of float32, float16 and bfloat16, in the order of the file; none when its format is not known. */
export async function tensorsOf(file: RandomAccess): Promise<readonly Tensor[]> {
  if (file.size < 16) return [];
  const start = await readBytes(file, 0, 8);
  const found =
    start.toString("latin1", 0, 4) === "GGUF"
      ? await readGguf(file)
      : await readSafetensors(file, Number(start.readBigUInt64LE(0)));
  const inside = ({ offset, size, dtype }: Tensor): boolean =>
    size > 0 && size % WIDTHS[dtype] === 0 && offset >= 0 && offset + size <= file.size;
  return found.filter(inside).sort((a, b) => a.offset - b.offset);
}

const SAFETENSORS: Readonly<Record<string, Dtype>> = { F32: "f32", F16: "f16", BF16: "bf16" };

/** Eight bytes with the length of a JSON object, the object, and then the data, to which its offsets are relative. */
async function readSafetensors(file: RandomAccess, length: number): Promise<readonly Tensor[]> {
  if (length < 2 || length > Math.min(MAX_HEADER, file.size - 8)) return [];
  const bytes = await readBytes(file, 8, length);
  // "{": most files are recognised as something else by their ninth byte.
  if (bytes[0] !== 0x7b) return [];
  let header: unknown;
  try {
    header = JSON.parse(bytes.toString("utf8"));
  } catch {
    // No safetensors after all.
    return [];
  }
  if (typeof header !== "object" || header === null) return [];
  const tensors: Tensor[] = [];
  for (const [name, value] of Object.entries(header as Readonly<Record<string, unknown>>)) {
    if (typeof value !== "object" || value === null) continue;
    const { dtype, data_offsets: offsets } = value as Readonly<Record<string, unknown>>;
    const known = typeof dtype === "string" ? SAFETENSORS[dtype] : undefined;
    if (known === undefined || !Array.isArray(offsets)) continue;
    const [from, to] = offsets as readonly unknown[];
    if (!Number.isSafeInteger(from) || !Number.isSafeInteger(to)) continue;
    const offset = 8 + length + Number(from);
    tensors.push({ name, dtype: known, offset, size: Number(to) - Number(from) });
  }
  return tensors;
}

/** ggml_type. */
const GGML: ReadonlyMap<number, Dtype> = new Map([
  [0, "f32"],
  [1, "f16"],
  [30, "bf16"],
] as const);

/** Bytes of a value by gguf_metadata_value_type; 8 is a string, 9 an array. */
const GGUF_BYTES: ReadonlyMap<number, number> = new Map([
  [0, 1],
  [1, 1],
  [2, 2],
  [3, 2],
  [4, 4],
  [5, 4],
  [6, 4],
  [7, 1],
  [10, 8],
  [11, 8],
  [12, 8],
]);
const STRING = 8;
const ARRAY = 9;

/** Metadata, then a list of tensors with offsets relative to the data, which begins at the next multiple of the alignment. */
async function readGguf(file: RandomAccess): Promise<readonly Tensor[]> {
  const bytes = await readBytes(file, 0, Math.min(MAX_HEADER, file.size));
  let at = 4;
  const u32 = (): number => {
    at += 4;
    return bytes.readUInt32LE(at - 4);
  };
  const u64 = (): number => {
    at += 8;
    return Number(bytes.readBigUInt64LE(at - 8));
  };
  const string = (): string => {
    const length = u64();
    if (length > bytes.length - at) throw new RangeError("a string goes on after the end");
    at += length;
    return bytes.toString("utf8", at - length, at);
  };
  const skip = (type: number): void => {
    if (type === STRING) string();
    else if (type === ARRAY) {
      const [inner, count] = [u32(), u64()];
      const size = GGUF_BYTES.get(inner);
      if (size !== undefined) at += size * count;
      else if (inner === STRING) for (let index = 0; index < count; index++) string();
      else throw new RangeError("an array of arrays");
    } else {
      const size = GGUF_BYTES.get(type);
      if (size === undefined) throw new RangeError("a type that is not known");
      at += size;
    }
  };
  try {
    const version = u32();
    if (version !== 2 && version !== 3) return [];
    const [tensorCount, valueCount] = [u64(), u64()];
    let alignment = 32;
    for (let index = 0; index < valueCount; index++) {
      const key = string();
      const type = u32();
      if (key === "general.alignment" && type === 4) alignment = u32();
      else skip(type);
    }
    const listed: { name: string; type: number; elements: number; offset: number }[] = [];
    for (let index = 0; index < tensorCount; index++) {
      const name = string();
      let elements = 1;
      for (let dimension = u32(); dimension > 0; dimension--) elements *= u64();
      listed.push({ name, type: u32(), elements, offset: u64() });
    }
    if (alignment < 1) return [];
    const data = Math.ceil(at / alignment) * alignment;
    return listed.flatMap(({ name, type, elements, offset }) => {
      const dtype = GGML.get(type);
      return dtype === undefined
        ? []
        : [{ name, dtype, offset: data + offset, size: elements * WIDTHS[dtype] }];
    });
  } catch (error) {
    // What is no GGUF, or is cut short, has no tensors that are known.
    if (error instanceof RangeError) return [];
    throw error;
  }
}
