import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { openTemplateFuzzer } from "../fuzz/templates.ts";

/** `npm run fuzz` makes half a million with a seed of its own. */
const RUNS = 3000;
const SEED = 20_261_123;

describe("a template that somebody has changed", () => {
  test("is rendered or refused, and costs neither time nor memory", async () => {
    const fuzzer = openTemplateFuzzer();
    const counts = { same: 0, different: 0, refused: 0 };
    for (let run = 0; run < RUNS; run++) counts[await fuzzer.run(SEED, run)]++;
    // Each kind of end is reached, or the changes are not what they should be.
    assert.ok(counts.same > 0 && counts.different > RUNS / 50 && counts.refused > RUNS / 10);
  });
});
