import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { parseManifest, formatManifest } from "#core/manifest.ts";
import type { Content, DeltaBlob, Release } from "#core/release.ts";
import { carryOver } from "../../publisher/chains.ts";
import { sitePlan } from "../../publisher/site-plan.ts";
import { verifyRepository } from "../../publisher/verify.ts";
import { handMadeRelease } from "../support/release.ts";
import { makePublisher, never, prose } from "./world.ts";

const text = prose(120_000, 5);
const small = prose(30_000, 6);

/** Every version changes other bytes of a large file and of one whose deltas are in packs. */
function filesOf(version: number): Record<string, string> {
  const mark = `version ${version} `;
  const at = version * 1_000;
  return {
    large: text.slice(0, at) + mark + text.slice(at),
    small: small.slice(0, at) + mark + small.slice(at),
  };
}

describe("a release", () => {
  test("carries over the deltas by which sites further behind come to it, and no more", async () => {
    await using publisher = await makePublisher();
    const releases: Release[] = [];
    for (let version = 1; version <= 8; version++)
      releases.push((await publisher.add(String(version), filesOf(version), undefined, 1)).release);
    const newest = releases.at(-1);
    assert.ok(newest !== undefined);
    // A delta from 7; from 6, 5 and 4 by chains; from before that whole.
    const plans = releases.map((installed) => sitePlan(newest, installed));
    assert.deepEqual(
      plans.map(({ ways }) => [ways.full.contents, ways.chain.contents, ways.delta.contents]),
      [
        [2, 0, 0],
        [2, 0, 0],
        [2, 0, 0],
        [0, 2, 0],
        [0, 2, 0],
        [0, 2, 0],
        [0, 0, 2],
        [0, 0, 0],
      ],
    );
    const longest = plans[3]?.source(0);
    assert.ok(longest?.how === "chain");
    assert.equal(longest.links.length, 4);
    assert.ok((plans[3]?.downloadBytes ?? 0) < newest.contents.at(0).full.size / 10);
    // Of all the steps, so many for each file; the manifest of the next release is no longer.
    assert.equal(newest.steps.length, 6);
    assert.equal(releases.at(-2)?.steps.length, 6);
    // In one pack: such a site makes as many requests as the others.
    assert.deepEqual(
      plans[3]?.fetches.map((fetch) => fetch.fetch === "pack" && fetch.parts.length),
      [8],
    );
    const root = await readFile(join(publisher.repository, "metadata/1.root.json"));
    const { problems } = await verifyRepository(publisher.repository, root, Date.now(), never);
    assert.deepEqual(problems, []);
  });

  test("carries nothing over when it is told not to", async () => {
    await using publisher = await makePublisher();
    for (let version = 1; version <= 3; version++)
      await publisher.add(String(version), filesOf(version), undefined, 1);
    const { release, updates } = await publisher.add("4", filesOf(4), undefined, 0);
    assert.equal(release.steps.length, 0);
    assert.deepEqual(updates, []);
  });
});

describe("what is carried over", () => {
  const sha = (number: number): string => number.toString(16).padStart(64, "0");
  const delta = (base: number, to: number, size: number): DeltaBlob => ({
    base: sha(base),
    codec: "edgesync-1",
    sha256: sha(base * 1000 + to),
    size,
    places: [],
  });
  const content = (number: number, deltas: readonly DeltaBlob[]): Content => ({
    sha256: sha(number),
    size: 10_000,
    full: { sha256: sha(number * 7 + 900_000), size: 5_000, encoding: "zstd", places: [] },
    deltas,
  });
  const holding = (...contents: readonly Content[]): Release =>
    handMadeRelease(
      contents.map(({ sha256 }, index) => ({
        type: "file",
        path: `f${index}`,
        mode: 0o644,
        sha256,
      })),
      contents,
    );
  const there = { reuse: () => Promise.resolve(true) };

  // Two files: 1 -> 2 -> 3 and 11 -> 12 -> 13, the second with larger deltas.
  const oldest = holding(content(1, []), content(11, []));
  const before = holding(content(2, [delta(1, 2, 100)]), content(12, [delta(11, 12, 900)]));
  const now = [content(3, [delta(2, 3, 100)]), content(13, [delta(12, 13, 900)])];

  test("has a bound, within which it saves the most", async () => {
    const all = await carryOver(now, [before], [oldest], there);
    assert.deepEqual(all.map(({ sha256 }) => sha256).toSorted(), [sha(2), sha(12)]);
    const one = await carryOver(now, [before], [oldest], there, 1);
    assert.deepEqual(
      one.map(({ sha256 }) => sha256),
      [sha(2)],
    );
  });

  test("is nothing that saves too little, or whose delta is not in the repository any more", async () => {
    const dear = [content(3, [delta(2, 3, 4_450)])];
    assert.deepEqual(await carryOver(dear, [before], [oldest], there), []);
    // Small enough for a chain, and too small for what listing it takes.
    const [file] = now;
    assert.ok(file !== undefined);
    const small = [{ ...file, full: { ...file.full, size: 270 } }];
    assert.deepEqual(await carryOver(small, [before], [oldest], there), []);
    const gone = { reuse: () => Promise.resolve(false) };
    assert.deepEqual(await carryOver(now, [before], [oldest], gone), []);
  });

  test("stands in a manifest with the file that needs it, and comes back from it", async () => {
    const steps = await carryOver(now, [before], [oldest], there);
    const release = handMadeRelease(
      now.map(({ sha256 }, index) => ({ type: "file", path: `f${index}`, mode: 0o644, sha256 })),
      now,
      [],
      [...steps, { sha256: sha(99), size: 1, deltas: [] }],
    );
    // The last is of use to nothing.
    assert.deepEqual(
      [...release.steps],
      steps.toSorted((a, b) => (a.sha256 < b.sha256 ? -1 : 1)),
    );
    const lines = [...formatManifest(release)];
    assert.deepEqual(
      lines.map((line) => line.includes('"steps"')),
      [false, true, true],
    );
    assert.deepEqual([...parseManifest(Buffer.from(lines.join(""))).steps], [...release.steps]);
    const again = lines[1]?.replace("f0", "f00") ?? "";
    assert.throws(
      () =>
        parseManifest(
          Buffer.from([lines[0], again.replaceAll(sha(3), sha(4)), ...lines.slice(1)].join("")),
        ),
      {
        code: "RELEASE_INVALID",
      },
    );
  });
});
