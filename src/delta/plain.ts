/** The codec for anything: copies from the old range as it is. */
import { COPY_STREAMS, decodeCopies } from "./copies.ts";
import { openPages } from "./pages.ts";
import type { SegmentDecoder } from "./segment.ts";

export const plain: SegmentDecoder = {
  name: "plain",
  streams: COPY_STREAMS,
  decode: ({ old, size, streams }, signal) =>
    decodeCopies({ old: openPages(old), size, streams }, signal),
};
