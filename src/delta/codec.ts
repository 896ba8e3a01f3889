/**
 * The seam between the update agent and the delta codecs: a manifest names a codec, and the agent uses the delta if this
 * table knows the name. Only decoders are reachable from here; encoders are the publisher's and never in the sidecar's bundle.
 */
import { containerDecoder } from "./container.ts";
import type { Decoder } from "./decoder.ts";
import type { SegmentDecoder } from "./segment.ts";
import { stored } from "./stored.ts";
import { tensor } from "./tensor.ts";
import { zstdSegments } from "./zstd-segments.ts";

/** What the segments of a container may be made with. */
export const segmentDecoders: readonly SegmentDecoder[] = [stored, tensor];

const decoders: readonly Decoder[] = [
  zstdSegments,
  containerDecoder("edgesync-1", segmentDecoders),
];

export const knownCodecs: readonly string[] = decoders.map((decoder) => decoder.name);

/** `undefined` when this build does not know the codec: such a delta is passed over. */
export function decoderOf(codec: string): Decoder | undefined {
  return decoders.find((decoder) => decoder.name === codec);
}
