/**
 * Codec `zstd-segments`: the new file in segments, each a zstd frame whose dictionary is a window of the old file. Memory is bounded
 * by the largest segment and window, whatever the size of the files.
 *
 * Format, version 1. Integers are unsigned and little-endian.
 *
 *     offset  bytes
 *     0       4      magic "ESZS"
 *     4       4      version, 1
 *     8       8      size of the new file
 *     16             segments, until their outputs make up that size; then the end
 *
 * and each segment:
 *
 *     0       4      bytes of output, 1 to 4 MiB
 *     4       4      bytes of the frame, 1 to 4 MiB + 64 KiB
 *     8       4      bytes of the window, 0 to 16 MiB
 *     12      8      offset of the window in the old file
 *     20             one zstd frame (RFC 8878) with window log at most 25, compressed with the window as raw content dictionary
 *
 * A window must not begin with zstd's dictionary magic 0xEC30A437, because a decoder would take it for a formatted dictionary.
 */
import { promisify } from "node:util";
import { constants, zstdDecompress } from "node:zlib";
import { EdgeSyncError } from "../errors.ts";
import type { Decoder, RandomAccess } from "./decoder.ts";

export const MAGIC = "ESZS";
export const VERSION = 1;
export const HEADER_BYTES = 16;
export const SEGMENT_HEADER_BYTES = 20;
export const MAX_SEGMENT = 4 * 1024 * 1024;
/** Above the most that zstd needs for a segment that cannot be compressed. */
export const MAX_FRAME = MAX_SEGMENT + 64 * 1024;
export const MAX_WINDOW = 16 * 1024 * 1024;
/** Covers a window and a segment together: 2^25 bytes. */
export const WINDOW_LOG = 25;

const decompress = promisify(zstdDecompress);

interface Segment {
  readonly output: number;
  readonly frame: number;
  readonly window: number;
  readonly offset: number;
}

export const zstdSegments: Decoder = {
  name: "zstd-segments",

  async *apply(old, delta, size, signal) {
    const reader = readerOf(delta);
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(() => reader.close());
    readHeader(await reader.take(HEADER_BYTES, signal), size);
    let rest = size;
    const frames = makeSpace();
    const windows = makeSpace();
    let loaded: { segment: Segment; window: Uint8Array } | undefined;
    while (rest > 0) {
      const segment = readSegment(await reader.take(SEGMENT_HEADER_BYTES, signal), rest, old);
      const frame = frames(await reader.collect(segment.frame, signal), segment.frame);
      // Neighbours often share a window: in a small file all of them do.
      if (loaded?.segment.offset !== segment.offset || loaded.segment.window !== segment.window) {
        const window = windows([], segment.window);
        await old.readInto(window, segment.offset);
        loaded = { segment, window };
      }
      yield await inflate(frame, loaded.window, segment.output);
      rest -= segment.output;
    }
    if (!(await reader.ended(signal))) throw invalid("it goes on after its last segment");
  },
};

function invalid(problem: string, cause?: unknown): EdgeSyncError {
  return new EdgeSyncError("DELTA_INVALID", `zstd-segments delta: ${problem}`, { cause });
}

function readHeader(header: Buffer, size: number): void {
  if (header.toString("latin1", 0, 4) !== MAGIC) throw invalid("it does not begin with ESZS");
  const version = header.readUInt32LE(4);
  if (version !== VERSION) throw invalid(`version ${version} is not known`);
  if (header.readBigUInt64LE(8) !== BigInt(size))
    throw invalid(`it makes ${header.readBigUInt64LE(8)} bytes, signed are ${size}`);
}

function readSegment(header: Buffer, rest: number, old: RandomAccess): Segment {
  const output = header.readUInt32LE(0);
  const frame = header.readUInt32LE(4);
  const window = header.readUInt32LE(8);
  const offset = header.readBigUInt64LE(12);
  if (output < 1 || output > Math.min(MAX_SEGMENT, rest))
    throw invalid(`a segment of ${output} bytes`);
  if (frame < 1 || frame > MAX_FRAME) throw invalid(`a frame of ${frame} bytes`);
  if (window > MAX_WINDOW || offset + BigInt(window) > BigInt(old.size))
    throw invalid(`a window of ${window} bytes at ${offset}, the old file has ${old.size}`);
  return { output, frame, window, offset: Number(offset) };
}

async function inflate(frame: Buffer, window: Uint8Array, output: number): Promise<Buffer> {
  let bytes: Buffer;
  try {
    bytes = await decompress(frame, {
      ...(window.length > 0 && { dictionary: window }),
      maxOutputLength: output,
      // One buffer for the whole output; without it there is a list of small ones and a copy.
      chunkSize: Math.max(output, constants.Z_MIN_CHUNK),
      params: { [constants.ZSTD_d_windowLogMax]: WINDOW_LOG },
    });
  } catch (cause) {
    throw invalid("a frame cannot be decompressed", cause);
  }
  if (bytes.length !== output)
    throw invalid(`a frame makes ${bytes.length} bytes, its header says ${output}`);
  return bytes;
}

/** Room for some parts, one after the other, that is used again at the next call: garbage of this size is collected too late. */
function makeSpace(): (parts: readonly Uint8Array[], length: number) => Buffer {
  let space = Buffer.alloc(0);
  return (parts, length) => {
    if (space.length < length) space = Buffer.allocUnsafeSlow(length);
    let at = 0;
    for (const part of parts) {
      space.set(part, at);
      at += part.length;
    }
    return space.subarray(0, length);
  };
}

interface Reader {
  /** The next `length` bytes. */
  take(length: number, signal: AbortSignal): Promise<Buffer>;
  /** The same in the parts in which they came. */
  collect(length: number, signal: AbortSignal): Promise<readonly Uint8Array[]>;
  ended(signal: AbortSignal): Promise<boolean>;
  close(): Promise<void>;
}

function readerOf(source: AsyncIterable<Uint8Array>): Reader {
  const iterator = source[Symbol.asyncIterator]();
  let pending: Uint8Array = Buffer.alloc(0);
  let done = false;

  /** Makes `pending` non-empty unless the source has ended. */
  async function fill(signal: AbortSignal): Promise<void> {
    while (pending.length === 0 && !done) {
      signal.throwIfAborted();
      const next = await iterator.next();
      if (next.done === true) done = true;
      else pending = next.value;
    }
  }

  async function collect(length: number, signal: AbortSignal): Promise<readonly Uint8Array[]> {
    // Grows with what arrives: a header that promises much reserves nothing.
    const parts: Uint8Array[] = [];
    let missing = length;
    while (missing > 0) {
      await fill(signal);
      if (pending.length === 0) throw invalid("it ends too early");
      const part = pending.subarray(0, missing);
      parts.push(part);
      pending = pending.subarray(part.length);
      missing -= part.length;
    }
    return parts;
  }

  return {
    collect,
    async take(length, signal) {
      return Buffer.concat(await collect(length, signal), length);
    },
    async ended(signal) {
      await fill(signal);
      return pending.length === 0;
    },
    async close() {
      await iterator.return?.();
    },
  };
}
