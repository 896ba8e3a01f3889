/**
 * The container of the codec `edgesync-1`; docs/delta-format.md has the layout. A header, then segments: each has a header of its own
 * and then chunks of its streams, interleaved so that a decoder meets each chunk when it needs it. So a delta is read once from start
 * to end, with as many compressed streams as a codec likes, and nobody holds more than a chunk of each.
 */
import type { Decoder, RandomAccess } from "./decoder.ts";
import { invalid } from "./invalid.ts";
import { CODECS } from "./segment.ts";
import type { SegmentDecoder } from "./segment.ts";
import { openSource } from "./source.ts";
import type { ByteSource, Pull } from "./source.ts";
import { openInput } from "./stream-input.ts";
import type { Input } from "./stream-input.ts";

/** "EDS" and the version. */
export const MAGIC = Buffer.from([0x45, 0x44, 0x53, 1]);
/** Bytes of a chunk; only the last of a stream is shorter. */
export const CHUNK_BYTES = 16 * 1024;
/** Files may have up to 2^48 bytes, far below where numbers stop being exact. */
const MAX_BYTES = 2 ** 48;
/** Chunks that came before they were asked for; a decoder with other buffers than the encoder's needs a few. */
const MAX_WAITING = 64;
/** In a segment of so many compressed bytes each stream is read whole before it is decompressed. */
const SMALL_BYTES = 256 * 1024;

export interface StreamHeader {
  readonly method: number;
  /** Compressed bytes; 0 when the stream is empty. */
  readonly length: number;
}

export interface SegmentHeader {
  readonly codec: SegmentDecoder;
  readonly size: number;
  readonly old: { readonly offset: number; readonly size: number };
  readonly streams: readonly StreamHeader[];
}

export function containerDecoder(name: string, codecs: readonly SegmentDecoder[]): Decoder {
  return {
    name,
    async *apply(old, delta, size, signal) {
      const input = openInput(delta);
      await using cleanup = new AsyncDisposableStack();
      cleanup.defer(() => input.close());
      await readHeader(input, old, size, signal);
      for (let rest = size; rest > 0;) {
        const header = await readSegment(input, codecs, old.size, rest, signal);
        yield* decodeSegment(header, old, chunksOf(input, header), signal);
        rest -= header.size;
      }
      if (!(await input.ended(signal))) throw invalid("it goes on after its last segment");
    },
  };
}

/** @throws EdgeSyncError DELTA_INVALID when the delta is between files of other sizes */
export async function readHeader(
  input: Input,
  old: { readonly size: number } | undefined,
  size: number | undefined,
  signal: AbortSignal,
): Promise<{ readonly oldSize: number; readonly size: number }> {
  const magic = Buffer.alloc(MAGIC.length);
  await input.read(magic, signal);
  if (!magic.equals(MAGIC)) throw invalid("it does not begin with EDS and version 1");
  const from = await input.number(MAX_BYTES, signal);
  const to = await input.number(MAX_BYTES, signal);
  if (old !== undefined && from !== old.size)
    throw invalid(`it is for an old file of ${from} bytes, this one has ${old.size}`);
  if (size !== undefined && to !== size)
    throw invalid(`it makes ${to} bytes, expected are ${size}`);
  return { oldSize: from, size: to };
}

export async function readSegment(
  input: Input,
  codecs: readonly SegmentDecoder[],
  oldSize: number,
  rest: number,
  signal: AbortSignal,
): Promise<SegmentHeader> {
  const number = await input.byte(signal);
  const codec = codecs.find(({ name }) => CODECS[name] === number);
  if (codec === undefined) throw invalid(`codec ${number} is not known`);
  const size = await input.number(rest, signal);
  if (size === 0) throw invalid("an empty segment");
  const offset = await input.number(oldSize, signal);
  const oldLength = await input.number(oldSize - offset, signal);
  const streams: StreamHeader[] = [];
  for (const _ of codec.streams) {
    const value = await input.number(MAX_BYTES, signal);
    streams.push({ method: value % 4, length: Math.floor(value / 4) });
  }
  return { codec, size, old: { offset, size: oldLength }, streams };
}

/** Hands out the chunks of a segment. */
export interface Chunks {
  /** The next chunk of a stream, undefined after its last; valid until the next chunk of the same stream is asked for. */
  pull(stream: number, signal: AbortSignal): Promise<Uint8Array | undefined>;
  /** Passes over chunks that nobody asked for. */
  finish(signal: AbortSignal): Promise<void>;
}

export async function* decodeSegment(
  { codec, size, old: range, streams }: SegmentHeader,
  old: RandomAccess,
  chunks: Chunks,
  signal: AbortSignal,
): AsyncIterable<Uint8Array> {
  using cleanup = new DisposableStack();
  const compressed = streams.reduce((sum, { length }) => sum + length, 0);
  const small = compressed <= SMALL_BYTES ? true : undefined;
  const sources = streams.map(({ method, length }, stream): ByteSource => {
    const pull: Pull = (signal) => chunks.pull(stream, signal);
    const source = openSource(method, pull, length, small);
    cleanup.defer(() => source.close());
    return source;
  });
  let made = 0;
  for await (const piece of codec.decode(
    { old: rangeOf(old, range), size, streams: sources },
    signal,
  )) {
    signal.throwIfAborted();
    made += piece.length;
    if (made > size) throw invalid("a segment makes more than its header says");
    yield piece;
  }
  if (made < size) throw invalid("a segment makes less than its header says");
  await chunks.finish(signal);
}

export function rangeOf(
  file: RandomAccess,
  { offset, size }: { readonly offset: number; readonly size: number },
): RandomAccess {
  if (offset === 0 && size === file.size) return file;
  return {
    size,
    readInto: (bytes, position) => file.readInto(bytes, offset + position),
  };
}

/** Chunks as they stand in the delta: the number of the stream, then its next bytes. */
export function chunksOf(input: Input, { streams }: SegmentHeader): Chunks {
  const rest = streams.map(({ length }) => length);
  const waiting = streams.map((): Buffer[] => []);
  const spare: Buffer[] = [];
  const lent: (Buffer | undefined)[] = streams.map(() => undefined);
  let stored = 0;

  async function readChunk(signal: AbortSignal): Promise<{ stream: number; length: number }> {
    const stream = await input.byte(signal);
    const left = rest[stream] ?? 0;
    if (left === 0) throw invalid(`a chunk for stream ${stream}, which has no more`);
    const length = Math.min(CHUNK_BYTES, left);
    rest[stream] = left - length;
    return { stream, length };
  }

  return {
    async pull(wanted, signal) {
      const back = lent[wanted];
      if (back !== undefined) spare.push(back);
      lent[wanted] = undefined;
      for (;;) {
        const queue = waiting[wanted];
        const ready = queue?.shift();
        if (ready !== undefined) {
          stored--;
          lent[wanted] = Buffer.from(ready.buffer, ready.byteOffset, CHUNK_BYTES);
          return ready;
        }
        if ((rest[wanted] ?? 0) === 0) return undefined;
        if (stored === MAX_WAITING) throw invalid("its chunks are not in the order of their use");
        const { stream, length } = await readChunk(signal);
        const chunk = (spare.pop() ?? Buffer.allocUnsafeSlow(CHUNK_BYTES)).subarray(0, length);
        await input.read(chunk, signal);
        waiting[stream]?.push(chunk);
        stored++;
      }
    },
    async finish(signal) {
      const into = Buffer.allocUnsafe(CHUNK_BYTES);
      while (rest.some((left) => left > 0)) {
        const { length } = await readChunk(signal);
        await input.read(into.subarray(0, length), signal);
      }
    },
  };
}
