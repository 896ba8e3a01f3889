/**
 * The seam between the update agent and the delta codecs: a manifest names a codec, and the agent uses the delta if this
 * table knows the name. Only decoders are reachable from here; encoders are the publisher's and never in the sidecar's bundle.
 */
import { CODEC } from "./codec-names.ts";
import { containerDecoder } from "./container.ts";
import type { Decoder } from "./decoder.ts";
import type { SegmentDecoder } from "./segment.ts";
import { executable, placed } from "./executable.ts";
import { plain } from "./plain.ts";
import { stored } from "./stored.ts";
import { tensor } from "./tensor.ts";

/** What the segments of a container may be made with. */
export const segmentDecoders: readonly SegmentDecoder[] = [
  stored,
  plain,
  executable,
  tensor,
  placed,
];

const decoders: readonly Decoder[] = [containerDecoder(CODEC, segmentDecoders)];

/** `undefined` when this build does not know the codec: such a delta is passed over. */
export function decoderOf(codec: string): Decoder | undefined {
  return decoders.find((decoder) => decoder.name === codec);
}
