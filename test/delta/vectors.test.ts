import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { CODEC } from "#core/delta/codec-names.ts";
import { decoderOf } from "#core/delta/codec.ts";
import { inspectDelta } from "#core/delta/inspect.ts";
import { deltaVectors, storedDelta } from "../support/delta-vectors.ts";
import { collect, inMemory, inPieces, never } from "../support/delta.ts";

describe("a delta that an earlier version made", () => {
  for (const { name, codec, old, target } of deltaVectors)
    test(`is still understood: ${name}`, async () => {
      const delta = await storedDelta(name);
      const report = await inspectDelta(inPieces(delta, 1000), never);
      assert.deepEqual(
        report.segments.map((segment) => segment.codec),
        [codec],
      );
      const decoder = decoderOf(CODEC);
      assert.ok(decoder);
      const pieces = decoder.apply(inMemory(old), inPieces(delta, 333), target.length, never);
      assert.deepEqual(await collect(pieces), target);
    });
});
