/** Power cuts in a model of a disk, whole: test/crash takes a sample of the same images. */
import assert from "node:assert/strict";
import process from "node:process";
import { describe, test } from "node:test";
import { publishAll } from "../crash/support/play.ts";
import { ONE_IMAGE, judgeAll, scenariosOf } from "../crash/support/proof.ts";
import { FULL, SEED } from "./full.ts";

describe("a power cut", () => {
  test("leaves nothing that breaks a promise, whichever of its images is found", async () => {
    const repository = await publishAll();
    const sample = { seed: SEED, random: FULL ? 40 : 1, few: FULL ? 128 : 16 };
    const { images, violations } = await judgeAll(
      await scenariosOf(repository),
      repository,
      sample,
    );
    process.stdout.write(`crash images: ${images}, violations: ${violations.length}\n`);
    assert.deepEqual(violations, []);
    const least = ONE_IMAGE === undefined ? (FULL ? 10_000 : 2_000) : 1;
    assert.ok(images >= least, `${images} images`);
  });
});
