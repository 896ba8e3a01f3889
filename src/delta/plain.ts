/** The codec for anything: copies from the old range as it is. */
import { COPY_STREAMS, PIECE_BYTES, decodeCopies } from "./copies.ts";
import type { OldView } from "./copies.ts";
import { allRead } from "./decoder.ts";
import type { RandomAccess } from "./decoder.ts";
import { openMemory } from "./kernel.ts";
import { bytesOfPages, openPages } from "./pages.ts";
import type { SegmentDecoder } from "./segment.ts";

/** Copies of so many bytes are read to where they belong; a cache would only copy them once more. */
const DIRECT_BYTES = 16 * 1024;

export const plain: SegmentDecoder = {
  name: "plain",
  streams: COPY_STREAMS,

  async *decode({ old, size, streams }, signal) {
    using cleanup = new DisposableStack();
    const memory = openMemory();
    cleanup.defer(() => {
      memory.close();
    });
    const output = memory.bytes(Math.min(PIECE_BYTES, size));
    const view = openView(old, memory.bytes(bytesOfPages(old.size)));
    cleanup.defer(() => {
      view.close();
    });
    yield* decodeCopies({ old: view, size, streams, output }, signal);
  },
};

function openView(file: RandomAccess, memory: Buffer): OldView & { readonly close: () => void } {
  const pages = openPages(file, memory);
  let direct: { readonly at: number; readonly from: number; readonly length: number }[] = [];
  return {
    size: file.size,
    want(at, from, to) {
      const length = to - from;
      if (length < DIRECT_BYTES) return pages.want(from, to);
      direct.push({ at, from, length });
      return true;
    },
    async load(output, signal) {
      const reads = direct.map(({ at, from, length }) =>
        file.readInto(output.subarray(at, at + length), from),
      );
      direct = [];
      await allRead([pages.load(signal), ...reads]);
    },
    copy(output, at, from, to) {
      if (to - from < DIRECT_BYTES) pages.copy(output, at, from, to);
    },
    close: () => {
      pages.close();
    },
  };
}
