/** The differences between the elements of two tensors, chunk by chunk, as the encoder of the tensor codec looks at them. */

/** Few enough for a processor's cache. */
const CHUNK = 65_536;

/** A piece that stands in one row in both files: offsets in the ranges that the segment is made from. Bytes. */
export interface Region {
  readonly old: number;
  readonly target: number;
  readonly size: number;
  readonly dtype: Dtype;
}

export type Dtype = "f32" | "f16" | "bf16";
export const WIDTHS = { f32: 4, f16: 2, bf16: 2 } as const satisfies Record<Dtype, 2 | 4>;

export interface Differences {
  /** By element of the chunk: zigzag of the difference in the order of the floats. */
  readonly values: Uint32Array;
  /** By element of the chunk: what its class is chosen by. */
  readonly keys: Uint16Array;
}

/** Room that is used again for every chunk. */
export interface Differ {
  /** Visits the elements from `from` to `to` of a region. `start` is the number of a chunk's first element, `count` its elements. */
  visit(
    region: Region,
    from: number,
    to: number,
    visitor: (differences: Differences, start: number, count: number) => void,
  ): void;
}

/** @param chunk elements that are looked at together */
export function openDiffer(old: Uint8Array, target: Uint8Array, chunk: number = CHUNK): Differ {
  const before = new Uint8Array(chunk * 4);
  const after = new Uint8Array(chunk * 4);
  const differences = { values: new Uint32Array(chunk), keys: new Uint16Array(chunk) };
  return {
    visit(region, from, to, visitor) {
      const width = WIDTHS[region.dtype];
      for (let start = from; start < to; start += chunk) {
        const count = Math.min(chunk, to - start);
        const [oldAt, newAt] = [region.old + start * width, region.target + start * width];
        before.set(old.subarray(oldAt, oldAt + count * width));
        after.set(target.subarray(newAt, newAt + count * width));
        if (width === 4)
          compareWords(
            new Int32Array(before.buffer),
            new Int32Array(after.buffer),
            count,
            differences,
          );
        else
          compareHalves(
            new Uint16Array(before.buffer),
            new Uint16Array(after.buffer),
            count,
            differences,
          );
        visitor(differences, start, count);
      }
    },
  };
}

function compareWords(
  before: Int32Array,
  after: Int32Array,
  count: number,
  { values, keys }: Differences,
): void {
  for (let index = 0; index < count; index++) {
    const [a, b] = [before[index] ?? 0, after[index] ?? 0];
    const step = ((b ^ ((b >> 31) >>> 1)) - (a ^ ((a >> 31) >>> 1))) | 0;
    values[index] = (step << 1) ^ (step >> 31);
    keys[index] = (a >>> 19) & 0xfff;
  }
}

function compareHalves(
  before: Uint16Array,
  after: Uint16Array,
  count: number,
  { values, keys }: Differences,
): void {
  for (let index = 0; index < count; index++) {
    const a = ((before[index] ?? 0) << 16) >> 16;
    const b = ((after[index] ?? 0) << 16) >> 16;
    const step = (((b ^ ((b >> 15) & 0x7fff)) - (a ^ ((a >> 15) & 0x7fff))) << 16) >> 16;
    values[index] = ((step << 1) ^ (step >> 31)) & 0xffff;
    keys[index] = (a >>> 3) & 0xfff;
  }
}
