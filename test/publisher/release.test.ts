import assert from "node:assert/strict";
import { createCipheriv } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { blobPath } from "#core/release.ts";
import type { Content, Release } from "#core/release.ts";
import { verifyRepository } from "../../publisher/verify.ts";
import { listFiles, makePublisher, never, prose } from "./world.ts";
import type { Files } from "./world.ts";

const name = fc.string({
  unit: fc.constantFrom("a", "b", "-", ".c", "é", "\u{1f600}", " "),
  minLength: 1,
  maxLength: 4,
});
const tree = fc
  .uniqueArray(
    fc.tuple(fc.array(name, { minLength: 1, maxLength: 3 }), fc.string({ maxLength: 200 })),
    {
      selector: ([segments]) => segments[0]?.toLowerCase(),
      maxLength: 8,
    },
  )
  .map((items) => items.map(([segments, text]) => [segments.join("/"), text] as const));

async function publishedFiles(trees: readonly Files[]): Promise<ReadonlyMap<string, string>> {
  await using publisher = await makePublisher();
  for (const [index, files] of trees.entries()) await publisher.add(`${index + 1}`, files);
  const files = new Map<string, string>();
  for (const path of await listFiles(publisher.repository))
    if (!path.startsWith("metadata/"))
      files.set(path, await readFile(join(publisher.repository, path), "hex"));
  return files;
}

/** Bytes that do not compress, the same for the same seed. */
function noise(bytes: number, seed: number): Buffer {
  return createCipheriv("aes-128-ctr", Buffer.alloc(16, seed), Buffer.alloc(16)).update(
    Buffer.alloc(bytes),
  );
}

/** Digests of the blobs in a pack. */
function partsOf(release: Release, number: number): readonly string[] {
  return [...release.contents].flatMap(({ full, deltas }) =>
    [full, ...deltas]
      .filter(({ places }) => places.some(({ pack }) => pack === number))
      .map(({ sha256 }) => sha256),
  );
}

describe("a release", () => {
  test("has the same manifest and blobs wherever and in whatever order its files were made", async () => {
    await fc.assert(
      fc.asyncProperty(tree, tree, async (one, two) => {
        const forward = await publishedFiles([Object.fromEntries(one), Object.fromEntries(two)]);
        const backward = await publishedFiles([
          Object.fromEntries(one.toReversed()),
          Object.fromEntries(two.toReversed()),
        ]);
        assert.deepEqual(forward, backward);
      }),
      { numRuns: 10 },
    );
  });

  test("keeps small blobs in packs only, and large ones as files only", async () => {
    await using publisher = await makePublisher();
    const big = prose(250_000, 1);
    await publisher.add("1", { big, "etc/a": "alpha", "etc/b": "beta", "etc/same": "same" });
    const { release } = await publisher.add("2", {
      big: `${big}.`,
      "etc/a": "alpha 2",
      "etc/b": "beta",
      "etc/copy": "beta",
      "etc/same": "same",
    });
    const content = (text: string): Content | undefined =>
      [...release.contents].find((item) => item.size === Buffer.byteLength(text));
    const [first, update, ...rest] = release.packs;
    assert.deepEqual([first?.from, update?.from, rest], [null, "1", []]);
    const large = content(`${big}.`);
    // What an update from 1 needs: the delta of the large file and the changed small one; all else is there already.
    assert.deepEqual(
      new Set(partsOf(release, 1)),
      new Set([large?.deltas[0]?.sha256, content("alpha 2")?.full.sha256]),
    );
    assert.equal(partsOf(release, 0).length, 3);
    const blobs = (await listFiles(publisher.repository)).filter((path) =>
      path.startsWith("blobs/"),
    );
    const expected = release.packs.map((pack) => blobPath(pack.sha256));
    assert.ok(blobs.includes(blobPath(large?.full.sha256 ?? "")));
    for (const path of expected) assert.ok(blobs.includes(path));
    for (const number of release.packs.keys())
      for (const part of partsOf(release, number)) assert.ok(!blobs.includes(blobPath(part)));
  });

  test("reuses the blobs of earlier releases, also those in packs", async () => {
    await using publisher = await makePublisher();
    const files = { big: prose(200_000, 2), small: "small file" };
    const one = await publisher.add("1", files);
    const two = await publisher.add("2", { ...files, added: "x" });
    const blobs = ({ release }: { readonly release: Release }): readonly string[] =>
      [...release.contents].map((content) => content.full.sha256);
    for (const blob of blobs(one)) assert.ok(blobs(two).includes(blob));
  });

  test("has deltas from the releases that came last, whatever their versions are called", async () => {
    await using publisher = await makePublisher();
    const text = prose(200_000, 3);
    for (const version of ["10", "9", "zeta", "1.0"])
      await publisher.add(version, { file: `${text}${version}` });
    const { release, updates } = await publisher.add("a", { file: `${text}a` });
    assert.deepEqual(
      updates.map((update) => update.from),
      // And from one more by a chain.
      ["1.0", "zeta", "9", "10"],
    );
    assert.equal(release.contents.at(0).deltas.length, 3);
  });

  test("can have one delta from several releases, and one blob for several files", async () => {
    await using publisher = await makePublisher();
    const bin = (changed: number): Buffer =>
      Buffer.concat([noise(300_000, changed), noise(1e6, 0)]);
    await publisher.add("1", { bin: bin(1) });
    await publisher.add("2", { bin: bin(2) });
    const text = prose(250_000, 1);
    const { release } = await publisher.add("3", { bin: bin(3), text });
    const deltas = [...release.contents].flatMap((content) => content.deltas);
    assert.equal(deltas.length, 2);
    assert.equal(new Set(deltas.map((delta) => delta.sha256)).size, 1);
    // A file that is the compressed form of another: its own blob is the same bytes.
    const [compressed] = [...release.contents].flatMap(({ full }) =>
      full.encoding === "zstd" ? [full.sha256] : [],
    );
    const blob = await readFile(join(publisher.repository, blobPath(compressed ?? "")));
    await using other = await makePublisher();
    await other.add("1", { text, "text.zst": blob });
    for (const { repository } of [publisher, other]) {
      const root = await readFile(join(repository, "metadata", "1.root.json"));
      const { problems } = await verifyRepository(repository, root, Date.now(), never);
      assert.deepEqual(problems, []);
    }
  });

  test("of an empty folder can be published", async () => {
    await using publisher = await makePublisher();
    const { release } = await publisher.add("1", {});
    assert.deepEqual([release.packs, release.entries.length], [[], 0]);
  });
});
