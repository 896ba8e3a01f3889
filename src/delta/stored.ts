/** The codec for what no old byte helps with: the new bytes as they are, compressed when that helps. */
import { invalid } from "./invalid.ts";
import type { SegmentDecoder } from "./segment.ts";

export const stored: SegmentDecoder = {
  name: "stored",
  streams: ["bytes"],

  async *decode({ size, streams }, signal) {
    const [bytes] = streams;
    if (bytes === undefined) throw invalid("a stream is missing");
    for (let rest = size; rest > 0;) {
      await bytes.ready(1, signal);
      const end = Math.min(bytes.end, bytes.at + rest);
      if (end === bytes.at) throw invalid("a stream ends too early");
      const piece = bytes.buffer.subarray(bytes.at, end);
      bytes.at = end;
      rest -= piece.length;
      yield piece;
    }
  },
};
