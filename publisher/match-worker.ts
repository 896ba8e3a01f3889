/** A thread that builds indexes and searches parts of files for matching.ts; the bytes are shared, only copies are sent back. */
import { parentPort } from "node:worker_threads";
import { buildIndex, findCopies } from "#core/delta/matcher.ts";
import type { Copies, SeedIndex } from "#core/delta/matcher.ts";

export interface MatchTask {
  readonly old: Uint8Array;
  readonly index: SeedIndex;
  /** The part to search; undefined for building the index. */
  readonly search?: { readonly target: Uint8Array; readonly from: number; readonly to: number };
}

parentPort?.on("message", ({ old, index, search }: MatchTask) => {
  let copies: Copies = new Int32Array(0);
  if (search === undefined) buildIndex(old, index);
  else copies = findCopies(old, search.target, index, search.from, search.to);
  parentPort?.postMessage(copies, [copies.buffer]);
});
