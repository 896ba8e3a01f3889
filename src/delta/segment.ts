/**
 * The seam between the container and its codecs. A delta is a row of segments; each makes the next part of the new file, with a codec
 * of its own choice, from a range of the old file and from a few byte streams. The container compresses the streams, interleaves them
 * in the order in which the decoder asks for them, and hands them to the codec as plain bytes.
 */
import type { RandomAccess } from "./decoder.ts";
import type { ByteSource } from "./source.ts";

/** Codec numbers, as segments name them. */
export const CODECS = { stored: 0, plain: 1, executable: 2, tensor: 3, placed: 4 } as const;
export type CodecName = keyof typeof CODECS;

/** What a decoder gets for a segment. */
export interface SegmentTask {
  /** The range of the old file that the segment was made from; position 0 is where the range begins. */
  readonly old: RandomAccess;
  /** Bytes to make. */
  readonly size: number;
  /** One for each name in {@link SegmentDecoder.streams}. */
  readonly streams: readonly ByteSource[];
}

export interface SegmentDecoder {
  readonly name: CodecName;
  /** What its streams are called, in order; their number is part of the format. At most 15. */
  readonly streams: readonly string[];
  /**
   * The segment's bytes in pieces, each of which is only valid until the next is asked for: the buffer is used again. Makes exactly
   * `size` bytes or throws. Memory must not depend on the size of anything; every number that is read must be checked.
   *
   * @throws EdgeSyncError DELTA_INVALID
   */
  decode(task: SegmentTask, signal: AbortSignal): AsyncIterable<Uint8Array>;
}

/**
 * How the bytes of a stream stand in the delta. `huffman` (literals only) is for bytes without repetitions, such as planes of weights:
 * it is a zstd frame to the decoder.
 */
export type Coding = "stored" | "brotli" | "zstd" | "huffman";

/** What an encoder makes of a segment: the content of each stream, and which codings are worth a trial; the smallest is taken. */
export interface StreamContent {
  readonly bytes: Uint8Array;
  readonly codings: readonly Coding[];
  /** The largest window worth its memory, log2 of bytes: a decoder holds one for each stream. 21 when not given. */
  readonly windowLog?: number;
}

export interface EncodedSegment {
  readonly codec: CodecName;
  /** The range of the old file that the decoder works from. */
  readonly old: { readonly offset: number; readonly size: number };
  /** Bytes that it makes. */
  readonly size: number;
  readonly streams: readonly StreamContent[];
}

/**
 * Makes the streams of a codec for a segment, both ranges being in memory; undefined when the codec has nothing to offer for them. The
 * encoder tries every codec that may fit and takes the smallest.
 */
export type SegmentEncoder = (
  old: Uint8Array,
  target: Uint8Array,
  signal: AbortSignal,
) => Promise<readonly StreamContent[] | undefined>;
