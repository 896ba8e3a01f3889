/** Columns of a table that lie outside of the garbage collector's heap: numbers, bytes, and blobs with their places. */
import { EdgeSyncError } from "./errors.ts";
import type { Place, PlacedBlob } from "./release.ts";

export function invalid(problem: string): EdgeSyncError {
  return new EdgeSyncError("RELEASE_INVALID", `release manifest: ${problem}`);
}

export type Numbers = Uint8Array | Uint16Array | Uint32Array | Float64Array;

export interface Column<T extends Numbers> {
  push(value: number): void;
  length(): number;
  bytes(): number;
  /** The values, in as little room as they need. */
  done(): T;
}

export function openColumn<T extends Numbers>(make: (length: number) => T): Column<T> {
  let values = make(256);
  let length = 0;
  return {
    push(value) {
      if (length === values.length) {
        const larger = make(length * 2);
        larger.set(values);
        values = larger;
      }
      values[length++] = value;
    },
    length: () => length,
    bytes: () => length * values.BYTES_PER_ELEMENT,
    done() {
      const exact = make(length);
      exact.set(values.subarray(0, length));
      return exact;
    },
  };
}

export const bytesOf = (length: number): Uint8Array => new Uint8Array(length);
export const short = (length: number): Uint16Array => new Uint16Array(length);
export const whole = (length: number): Uint32Array => new Uint32Array(length);
export const large = (length: number): Float64Array => new Float64Array(length);

export interface Bytes {
  /** @returns how many bytes were added */
  push(text: string, encoding: "utf8" | "hex"): number;
  length(): number;
  done(): Buffer;
}

/** Bytes one after the other. */
export function openBytes(): Bytes {
  let bytes = Buffer.alloc(4096);
  let length = 0;
  return {
    push(text, encoding) {
      const size = Buffer.byteLength(text, encoding);
      if (length + size > bytes.length) {
        const larger = Buffer.alloc(Math.max(bytes.length * 2, length + size));
        larger.set(bytes);
        bytes = larger;
      }
      length += bytes.write(text, length, encoding);
      return size;
    },
    length: () => length,
    done: () => Buffer.from(Uint8Array.prototype.slice.call(bytes, 0, length).buffer),
  };
}

/** Bytes of a SHA-256. */
export const DIGEST = 32;

export function digestAt(digests: Buffer, index: number): string {
  return digests.toString("hex", index * DIGEST, (index + 1) * DIGEST);
}

/** Numbers of digests in their order, and the first that is there twice. */
export function sortDigests(digests: Buffer): {
  readonly order: Uint32Array;
  readonly twice: string | undefined;
} {
  const order = Uint32Array.from({ length: digests.length / DIGEST }, (_, index) => index);
  order.sort((a, b) => compare(digests, a, digests, b));
  let twice: string | undefined;
  for (let index = 1; index < order.length; index++)
    if (compare(digests, order[index - 1] ?? 0, digests, order[index] ?? 0) === 0)
      twice ??= digestAt(digests, order[index] ?? 0);
  return { order, twice };
}

function compare(a: Buffer, first: number, b: Buffer, second: number): number {
  // Nearly always enough, and quicker.
  const difference = a.readUInt32BE(first * DIGEST) - b.readUInt32BE(second * DIGEST);
  if (difference !== 0) return difference;
  return a.compare(b, second * DIGEST, (second + 1) * DIGEST, first * DIGEST, (first + 1) * DIGEST);
}

/** Number of a digest; `wanted` begins with it. */
export function searchDigest(
  digests: Buffer,
  order: Uint32Array,
  wanted: Buffer,
): number | undefined {
  let low = 0;
  let high = order.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (compare(digests, order[middle] ?? 0, wanted, 0) < 0) low = middle + 1;
    else high = middle;
  }
  const found = order[low];
  return found !== undefined && compare(digests, found, wanted, 0) === 0 ? found : undefined;
}

export interface BlobColumns {
  add(blob: PlacedBlob): void;
  length(): number;
  bytes(): number;
  /** Reads them by their number. */
  done(): (index: number) => PlacedBlob;
}

export function openBlobs(): BlobColumns {
  const digest = openBytes();
  const columns = {
    size: openColumn(large),
    first: openColumn(whole),
    pack: openColumn(short),
    offset: openColumn(large),
  };
  return {
    add({ sha256, size, places }) {
      digest.push(sha256, "hex");
      columns.size.push(size);
      columns.first.push(columns.pack.length());
      for (const { pack, offset } of places) {
        columns.pack.push(pack);
        columns.offset.push(offset);
      }
    },
    length: () => columns.size.length(),
    bytes() {
      let taken = digest.length();
      for (const column of Object.values<Column<Numbers>>(columns)) taken += column.bytes();
      return taken;
    },
    done() {
      const [size, first] = [columns.size.done(), columns.first.done()];
      const [pack, offset] = [columns.pack.done(), columns.offset.done()];
      return readerOf({ digests: digest.done(), size, first, pack, offset });
    },
  };
}

/** Apart from where the columns grew: a function made there would keep all of that in memory. */
function readerOf({
  digests,
  size,
  first,
  pack,
  offset,
}: {
  readonly digests: Buffer;
  readonly size: Float64Array;
  readonly first: Uint32Array;
  readonly pack: Uint16Array;
  readonly offset: Float64Array;
}): (index: number) => PlacedBlob {
  return (index) => {
    const places: Place[] = [];
    const end = first[index + 1] ?? pack.length;
    for (let at = first[index] ?? 0; at < end; at++)
      places.push({ pack: pack[at] ?? 0, offset: offset[at] ?? 0 });
    return { sha256: digestAt(digests, index), size: size[index] ?? 0, places };
  };
}
