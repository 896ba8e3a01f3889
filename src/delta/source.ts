/**
 * A stream of a segment as plain bytes. Each source has one buffer and at most one decompressor for its whole life: memory does not
 * depend on how long a stream is, and what zlib allocates for its output is given back as soon as it has been copied.
 */
import {
  brotliDecompressSync,
  constants,
  createBrotliDecompress,
  createZstdDecompress,
  zstdDecompressSync,
} from "node:zlib";
import type { BrotliDecompress, ZstdDecompress } from "node:zlib";
import { invalid } from "./invalid.ts";

/** The most that {@link ByteSource.ready} can be asked for. */
export const READY_BYTES = 4096;
/** Output of a decompressor at a time. */
const PIECE_BYTES = 32 * 1024;

/** Methods as they stand in a segment's header. */
export const METHODS = { stored: 0, brotli: 1, zstd: 2 } as const;

/** The largest window of a stream: log2 of bytes. A decompressor holds that much. */
export const MAX_WINDOW_LOG = 22;

export interface ByteSource {
  /** What is ready stands from `at` to `end`; whoever reads moves `at`. */
  readonly buffer: Buffer;
  at: number;
  readonly end: number;
  /** Nothing comes behind what is ready. */
  readonly ended: boolean;
  /**
   * Makes at least `count` bytes ready; fewer only where the stream ends.
   *
   * @param count at most {@link READY_BYTES}
   */
  ready(count: number, signal: AbortSignal): Promise<void>;
  /** Lets go of the decompressor. */
  close(): void;
}

/** The next compressed bytes of a stream, or undefined at its end. They are copied before the next are asked for. */
export type Pull = (signal: AbortSignal) => Promise<Uint8Array | undefined>;

/**
 * @param length bytes that `pull` gives altogether; a stored stream needs no more room
 * @param whole whether all of them may be held at once
 * @throws EdgeSyncError DELTA_INVALID when the method is not known
 */
export function openSource(
  method: number,
  pull: Pull,
  length: number,
  whole: boolean = length <= FEW_BYTES,
): ByteSource {
  if (method === METHODS.stored) return buffered(pull, () => undefined, length);
  if (method === METHODS.brotli || method === METHODS.zstd) {
    const native = whole ? few(method, pull, length) : decompressed(method, pull);
    return buffered(native.pull, native.close, Number.POSITIVE_INFINITY);
  }
  throw invalid(`compression method ${method} is not known`);
}

/** Fills `into` from a source. @throws EdgeSyncError DELTA_INVALID when the stream ends before */
export async function readFully(
  source: ByteSource,
  into: Uint8Array,
  signal: AbortSignal,
): Promise<void> {
  for (let done = 0; done < into.length;) {
    if (source.at === source.end) await source.ready(1, signal);
    const count = Math.min(source.end - source.at, into.length - done);
    if (count === 0) throw invalid("a stream ends too early");
    into.set(source.buffer.subarray(source.at, source.at + count), done);
    source.at += count;
    done += count;
  }
}

/** Pieces of any size, as one buffer that is always filled from its start. */
function buffered(pull: Pull, close: () => void, length: number): ByteSource {
  const buffer = Buffer.allocUnsafeSlow(Math.min(READY_BYTES + PIECE_BYTES, length));
  let rest: Uint8Array = Buffer.alloc(0);
  const source = {
    buffer,
    at: 0,
    end: 0,
    ended: length === 0,
    async ready(count: number, signal: AbortSignal) {
      while (source.end - source.at < count && !source.ended) {
        if (rest.length === 0) {
          const next = await pull(signal);
          if (next === undefined) {
            source.ended = true;
            break;
          }
          rest = next;
        }
        buffer.copyWithin(0, source.at, source.end);
        source.end -= source.at;
        source.at = 0;
        const part = rest.subarray(0, buffer.length - source.end);
        buffer.set(part, source.end);
        source.end += part.length;
        rest = rest.subarray(part.length);
      }
    },
    close() {
      close();
      // Not left to the collector: a delta of many segments would let them come together.
      if (buffer.buffer instanceof ArrayBuffer) buffer.buffer.transfer(0);
    },
  };
  return source;
}

/** A stream of so many compressed bytes comes in one piece. */
const FEW_BYTES = 16 * 1024;
/** What a short stream makes at most, to be made at once. */
const FEW_MAKE_BYTES = 4 * PIECE_BYTES;
/** The same for one that is not quite as short, as a multiple of its length. */
const FEW_MAKE = 4;

interface Native {
  readonly pull: Pull;
  readonly close: () => void;
}

/**
 * A short stream, decompressed by this thread and at once when it makes little: most streams of most deltas do, and an
 * asynchronous decompressor takes longer to come up than they do. Whatever cannot be done so is done from the beginning by one.
 */
function few(method: number, pull: Pull, length: number): Native {
  let input: Buffer | undefined;
  let output: Buffer | undefined;
  let begun = false;
  const native = decompressed(method, async () => {
    const whole = input;
    input = undefined;
    return whole;
  });
  return {
    async pull(signal) {
      if (!begun) {
        begun = true;
        input = await collect(pull, length, signal);
        if (input.length === 0) return undefined;
        output = decompressFew(method, input);
        if (output !== undefined) return output;
      }
      if (output === undefined) return await native.pull(signal);
      release(output);
      return undefined;
    },
    close() {
      native.close();
      release(output);
    },
  };
}

async function collect(pull: Pull, length: number, signal: AbortSignal): Promise<Buffer> {
  const whole = Buffer.allocUnsafeSlow(length);
  let done = 0;
  for (let part = await pull(signal); part !== undefined; part = await pull(signal)) {
    whole.set(part, done);
    done += part.length;
    if (done === length) break;
  }
  return whole.subarray(0, done);
}

function decompressFew(method: number, input: Buffer): Buffer | undefined {
  const maxOutputLength = Math.max(FEW_MAKE_BYTES, FEW_MAKE * input.length);
  const limits = { chunkSize: PIECE_BYTES, maxOutputLength };
  try {
    if (method === METHODS.zstd) return zstdDecompressSync(input, { ...limits, params: ZSTD });
    checkWindow(input);
    return brotliDecompressSync(input, limits);
  } catch {
    return undefined;
  }
}

const ZSTD = { [constants.ZSTD_d_windowLogMax]: MAX_WINDOW_LOG };

/** One of Node's decompressors, asked for output piece by piece; it is given input only when it has none left to make output of. */
function decompressed(method: number, pull: Pull): Native {
  let stream: BrotliDecompress | ZstdDecompress | undefined;
  let output: Buffer | undefined;
  let shown: Buffer | undefined;
  let failure: unknown;
  let hungry = false;
  let ended = false;
  let wake: () => void = () => undefined;

  function begin(first: Uint8Array): BrotliDecompress | ZstdDecompress {
    const made =
      method === METHODS.brotli
        ? createBrotliDecompress({ chunkSize: PIECE_BYTES })
        : createZstdDecompress({ chunkSize: PIECE_BYTES, params: ZSTD });
    if (method === METHODS.brotli) checkWindow(first);
    made.on("data", (piece: Buffer) => {
      output = piece;
      made.pause();
      wake();
    });
    made.on("end", () => {
      ended = true;
      wake();
    });
    made.on("error", (error) => {
      failure = error;
      wake();
    });
    return made;
  }

  function give(input: Uint8Array): void {
    stream ??= begin(input);
    hungry = false;
    stream.write(input, () => {
      hungry = true;
      wake();
    });
  }

  async function next(signal: AbortSignal): Promise<Uint8Array | undefined> {
    for (;;) {
      signal.throwIfAborted();
      if (output !== undefined) {
        const piece = output;
        output = undefined;
        if (shown?.buffer !== piece.buffer) release(shown);
        shown = piece;
        // The next piece is made meanwhile, as far as the input goes.
        stream?.resume();
        return piece;
      }
      if (failure !== undefined) throw invalid("a stream cannot be decompressed", failure);
      if (ended) return undefined;
      if (stream === undefined || (hungry && !stream.writableEnded)) {
        const input = await pull(signal);
        if (input !== undefined) give(input);
        else if (stream === undefined) return undefined;
        else stream.end();
      } else {
        const woken = new Promise<void>((resolve) => {
          wake = resolve;
        });
        stream.resume();
        await woken;
      }
    }
  }

  return {
    pull: next,
    close() {
      // Another thread may still write to where the last piece stands; the collector waits for that, a release would not.
      const rests = ended || (hungry && stream?.writableEnded === false);
      stream?.destroy();
      if (rests) release(shown);
      shown = undefined;
    },
  };
}

/**
 * Gives the memory of a piece back at once: zlib makes a new buffer whenever one is full, and the collector would let tens of megabytes
 * of them come together.
 */
function release(piece: Buffer | undefined): void {
  const memory = piece?.buffer;
  if (!(memory instanceof ArrayBuffer) || memory.detached) return;
  // Never what is shared with others: Node's pool.
  if (memory.byteLength === PIECE_BYTES || memory.byteLength === piece?.length) memory.transfer(0);
}

/** RFC 7932, section 9.1: the window of a brotli stream stands in its first bits. */
function checkWindow(first: Uint8Array): void {
  const bits = first[0] ?? 0;
  const [high, low] = [(bits >> 1) & 7, (bits >> 4) & 7];
  // Eight values of the last three bits stand for 17, for the format's large windows, and for 10 to 15.
  const small = low === 1 ? 30 : low === 0 ? 17 : 8 + low;
  const log = (bits & 1) === 0 ? 16 : high === 0 ? small : 17 + high;
  if (log > MAX_WINDOW_LOG) throw invalid(`a brotli window of 2^${log} bytes`);
}
