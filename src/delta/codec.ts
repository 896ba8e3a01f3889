/**
 * The seam between the update agent and the delta codecs: a manifest names a codec, and the agent uses the delta if this
 * table knows the name. Only decoders are reachable from here; encoders are the publisher's and never in the sidecar's bundle.
 */
import { zstdSegments } from "./zstd-segments.ts";

/** The old file, read by position, so that memory does not depend on its size. */
export interface RandomAccess {
  /** Bytes. */
  readonly size: number;
  /** Exactly `length` bytes from `position`; the caller stays inside `size`. */
  read(position: number, length: number): Promise<Uint8Array>;
}

export interface Decoder {
  /** As manifests name it. */
  readonly name: string;
  /**
   * The new file, in order. Yields exactly `size` bytes or throws; what they are worth is decided by the caller, who hashes them.
   *
   * @param size bytes of the new file, from the signed manifest
   * @throws EdgeSyncError DELTA_INVALID
   */
  apply(
    old: RandomAccess,
    delta: AsyncIterable<Uint8Array>,
    size: number,
    signal: AbortSignal,
  ): AsyncIterable<Uint8Array>;
}

const decoders: readonly Decoder[] = [zstdSegments];

export const knownCodecs: readonly string[] = decoders.map((decoder) => decoder.name);

/** `undefined` when this build does not know the codec: such a delta is passed over. */
export function decoderOf(codec: string): Decoder | undefined {
  return decoders.find((decoder) => decoder.name === codec);
}
