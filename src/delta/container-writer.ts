/**
 * Writes the container. The streams of a segment are compressed whole; then the segment is decoded once from them, and the order in
 * which the decoder asks for their chunks becomes the order in which they stand in the delta. That decoding is also the first proof
 * that the segment is right.
 */
import { promisify } from "node:util";
import { brotliCompress, constants, zstdCompress, zstdCompressSync } from "node:zlib";
import { CHUNK_BYTES, MAGIC, decodeSegment } from "./container.ts";
import type { Chunks, SegmentHeader } from "./container.ts";
import type { RandomAccess } from "./decoder.ts";
import { invalid } from "./invalid.ts";
import { openWriter } from "./numbers.ts";
import { CODECS } from "./segment.ts";
import type { Coding, EncodedSegment, SegmentDecoder, StreamContent } from "./segment.ts";
import { MAX_WINDOW_LOG, METHODS } from "./source.ts";

const brotli = promisify(brotliCompress);
const zstd = promisify(zstdCompress);

/** A stream as it will stand in the delta. */
export interface Packed {
  readonly method: number;
  readonly bytes: Uint8Array;
  readonly coding: Coding;
  /** Bytes before compression. */
  readonly raw: number;
}

/** Runs work when there is a processor for it. */
export type Run = <T>(work: () => Promise<T>) => Promise<T>;

/** Every stream in the smallest of its codings. */
export function packStreams(
  streams: readonly StreamContent[],
  run: Run,
): Promise<readonly Packed[]> {
  return Promise.all(
    streams.map(async ({ bytes, codings, windowLog = LARGE_WINDOW }): Promise<Packed> => {
      let best: Packed = { method: METHODS.stored, bytes, coding: "stored", raw: bytes.length };
      if (bytes.length === 0) return best;
      for (const coding of codings) {
        const packed = await run(() => pack(bytes, coding, windowLog));
        if (packed.bytes.length < best.bytes.length) best = packed;
      }
      return best;
    }),
  );
}

/** A decoder holds as much; beyond it, long streams of new code become 2 % smaller at most. */
const LARGE_WINDOW = 21;

async function pack(bytes: Uint8Array, coding: Coding, most: number): Promise<Packed> {
  const raw = bytes.length;
  if (coding === "brotli") {
    const params = {
      [constants.BROTLI_PARAM_QUALITY]: 11,
      [constants.BROTLI_PARAM_LGWIN]: windowLog(raw, 16, most),
      [constants.BROTLI_PARAM_SIZE_HINT]: raw,
    };
    return { method: METHODS.brotli, bytes: await brotli(bytes, { params }), coding, raw };
  }
  if (coding === "stored") return { method: METHODS.stored, bytes, coding, raw };
  const params =
    coding === "zstd"
      ? {
          [constants.ZSTD_c_compressionLevel]: 19,
          [constants.ZSTD_c_windowLog]: windowLog(raw, 10, most),
        }
      : {
          // The fast strategy with long matches only leaves literals, which zstd codes with Huffman's tables alone.
          [constants.ZSTD_c_compressionLevel]: 1,
          [constants.ZSTD_c_strategy]: constants.ZSTD_fast,
          [constants.ZSTD_c_minMatch]: 7,
          [constants.ZSTD_c_hashLog]: 6,
          // No more than a block: a decoder holds a window for each of a dozen such streams.
          [constants.ZSTD_c_windowLog]: Math.min(16, windowLog(raw, 10, most)),
        };
  return { method: METHODS.zstd, bytes: await zstd(bytes, { params }), coding, raw };
}

/**
 * Codings worth a trial for bytes of any kind. Brotli's highest level is the smallest for all but long streams, for which its windows
 * are too small to make up for a megabyte each second.
 */
export function codingsOf(bytes: Uint8Array): readonly Coding[] {
  if (bytes.length <= SLOW_BYTES) return ["brotli"];
  const sample = bytes.subarray(bytes.length >> 1, (bytes.length >> 1) + SAMPLE_BYTES);
  return zstdCompressSync(sample).length > 0.98 * sample.length ? ["huffman"] : ["zstd"];
}

const SLOW_BYTES = 24 * 1024 * 1024;
const SAMPLE_BYTES = 256 * 1024;

/** The smallest window that holds all of it, within what the format allows. */
function windowLog(bytes: number, least: number, most: number): number {
  return Math.min(most, MAX_WINDOW_LOG, Math.max(least, Math.ceil(Math.log2(bytes + 1))));
}

export function writeHeader(oldSize: number, size: number): Buffer {
  const writer = openWriter();
  writer.bytes(MAGIC);
  writer.number(oldSize);
  writer.number(size);
  return writer.done();
}

/**
 * A segment as it stands in the delta.
 *
 * @param check is given each piece of the decoded segment
 */
export async function writeSegment(
  segment: Omit<EncodedSegment, "streams">,
  packed: readonly Packed[],
  decoder: SegmentDecoder,
  old: RandomAccess,
  check: (piece: Uint8Array) => void,
  signal: AbortSignal,
): Promise<readonly Uint8Array[]> {
  const header: SegmentHeader = {
    codec: decoder,
    size: segment.size,
    old: segment.old,
    streams: packed.map(({ method, bytes }) => ({ method, length: bytes.length })),
  };
  const writer = openWriter();
  writer.byte(CODECS[segment.codec]);
  writer.number(segment.size);
  writer.number(segment.old.offset);
  writer.number(segment.old.size);
  for (const { method, length } of header.streams)
    writer.number(length === 0 ? 0 : length * 4 + method);
  const parts: Uint8Array[] = [writer.done()];
  const done = packed.map(() => 0);
  const take = (stream: number): Uint8Array | undefined => {
    const from = done[stream] ?? 0;
    const chunk = packed[stream]?.bytes.subarray(from, from + CHUNK_BYTES);
    if (chunk === undefined || chunk.length === 0) return undefined;
    done[stream] = from + chunk.length;
    parts.push(Uint8Array.of(stream), chunk);
    return chunk;
  };
  const chunks: Chunks = {
    pull: (stream) => Promise.resolve(take(stream)),
    finish() {
      // The decoder had all that it needed; compressed streams may have an end mark left.
      for (const stream of packed.keys()) while (take(stream) !== undefined);
      return Promise.resolve();
    },
  };
  for await (const piece of decodeSegment(header, old, chunks, signal)) check(piece);
  return parts;
}

/** Compares what is decoded with what it should be. @throws EdgeSyncError DELTA_INVALID */
export function comparison(target: Uint8Array): (piece: Uint8Array) => void {
  let at = 0;
  return (piece) => {
    if (Buffer.compare(piece, target.subarray(at, at + piece.length)) !== 0)
      throw invalid("the encoder made a segment that decodes to something else");
    at += piece.length;
  };
}
