import assert from "node:assert/strict";
import process from "node:process";
import { describe, test } from "node:test";
import { openFuzzer } from "../fuzz/judge.ts";

/** `npm run fuzz` makes a million with a seed of its own. */
const RUNS = 1500;
const SEED = 20_261_122;

describe("a delta that somebody has changed", () => {
  test("is refused, or makes a file of the declared size; it costs neither time nor memory", async () => {
    const fuzzer = await openFuzzer();
    const before = process.memoryUsage.rss();
    const counts = { same: 0, different: 0, refused: 0 };
    for (let run = 0; run < RUNS; run++) counts[await fuzzer.run(SEED, run)]++;
    // Each kind of end is reached, or the changes are not what they should be.
    assert.ok(counts.same > 0 && counts.different > 0 && counts.refused > RUNS / 10);
    const grown = (process.memoryUsage.rss() - before) / 2 ** 20;
    assert.ok(grown < 400, `${grown} MiB`);
  });
});
