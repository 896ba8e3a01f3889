import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import {
  MANIFEST_LIMIT,
  formatManifest,
  openManifestReader,
  parseManifest,
} from "#core/manifest.ts";
import { MAX_ENTRIES, TABLE_LIMIT } from "#core/release-table.ts";
import type { Entry } from "#core/release.ts";
import { handMadeParts } from "../support/release.ts";
import type { HandMadeContent } from "../support/release.ts";

const sha = (number: number): string => number.toString(16).padStart(64, "0");
const invalid = { code: "RELEASE_INVALID" };
const HEAD = `{"schema":1,"app":"web","version":"1","platform":"linux-x64","tree":"${sha(0)}"}\n`;

/** A release of so many files, each with a content and deltas of its own. */
function manifestOf(files: number, deltas: number): Buffer {
  const entries: Entry[] = [];
  const contents: HandMadeContent[] = [];
  for (let index = 0; index < files; index++) {
    const sha256 = sha(index * 100);
    const path = `file-with-a-name-of-usual-length-${String(index).padStart(6, "0")}.json`;
    entries.push({ type: "file", path, mode: 0o644, sha256 });
    contents.push({
      sha256,
      size: 2048,
      full: { sha256: sha(index * 100 + 1), size: 1000, encoding: "zstd" },
      deltas: Array.from({ length: deltas }, (_, number) => ({
        base: sha(index * 100 + 10 + number),
        codec: "zstd-segments",
        sha256: sha(index * 100 + 50 + number),
        size: 300,
      })),
    });
  }
  return Buffer.from([...formatManifest(handMadeParts(entries, contents))].join(""));
}

/** Feeds a reader until it refuses, and tells how many bytes it has taken by then. */
function feed(lines: Generator<string>): { readonly taken: number; readonly error: unknown } {
  const reader = openManifestReader();
  let taken = 0;
  try {
    for (const line of lines) {
      taken += line.length;
      reader.take(Buffer.from(line));
    }
    reader.done();
    return { taken, error: undefined };
  } catch (error) {
    return { taken, error };
  }
}

describe("a manifest of 50,000 files", () => {
  test("is the same piece by piece, in memory that has a bound", () => {
    const bytes = manifestOf(50_000, 1);
    const before = process.memoryUsage().arrayBuffers;
    const reader = openManifestReader();
    for (let at = 0; at < bytes.length; at += 10_007) reader.take(bytes.subarray(at, at + 10_007));
    const release = reader.done();
    const held = process.memoryUsage().arrayBuffers - before;
    assert.equal(release.entries.length, 50_000);
    assert.equal(release.contents.at(49_999).deltas[0]?.sha256, sha(4_999_950));
    assert.equal(release.find(sha(4_999_900)), 49_999);
    assert.equal(release.find(sha(4_999_901)), undefined);
    // Columns that were outgrown may not have been collected yet.
    assert.ok(held < 2 * TABLE_LIMIT, `${held} for ${bytes.length}`);
  });
});

describe("a hostile manifest", () => {
  function* after(line: (index: number) => string): Generator<string> {
    yield HEAD;
    for (let index = 0; ; index++) yield line(index);
  }
  const name = (index: number): string => String(index).padStart(9, "0");
  const endless: readonly (readonly [string, (index: number) => string, number])[] = [
    ["entries", (index) => `{"directory":"${name(index)}","mode":0}\n`, 40 * MAX_ENTRIES + 20_000],
    [
      "long paths",
      (index) => `{"directory":"${name(index)}${"x".repeat(4000)}","mode":0}\n`,
      TABLE_LIMIT * 1.1,
    ],
    [
      "deltas",
      (index) =>
        `{"file":"${name(index)}","mode":0,"sha256":"${sha(index)}","size":1,"full":{"encoding":"identity"},"deltas":[${Array.from({ length: 90 }, () => `{"base":"${sha(1)}","codec":"c","sha256":"${sha(2)}","size":1}`).join(",")}]}\n`,
      MANIFEST_LIMIT * 1.01,
    ],
    [
      "places",
      (index) =>
        `${index === 0 ? `{"pack":"${sha(1)}","size":99,"from":null}\n` : ""}{"file":"${name(index)}","mode":0,"sha256":"${sha(index)}","size":1,"full":{"encoding":"identity","in":[${Array.from({ length: 9000 }, () => "[0,1]").join(",")}]}}\n`,
      MANIFEST_LIMIT * 1.01,
    ],
    ["packs", () => `{"pack":"${sha(1)}","size":1,"from":null}\n`, 100 * 260],
    ["a line", () => "x".repeat(1000), 70_000],
  ];
  for (const [what, line, most] of endless)
    test(`with ever more ${what} is refused in time`, () => {
      const { taken, error } = feed(after(line));
      assert.equal((error as { code?: string }).code, "RELEASE_INVALID");
      assert.ok(taken <= most, `${taken} bytes were taken`);
    });

  test("is refused for a line that is not what it should be", () => {
    const file = `{"file":"a","mode":420,"sha256":"${sha(1)}"`;
    for (const line of [
      "",
      "null\n",
      "[]\n",
      "{}\n",
      `{"device":"a"}\n`,
      `{"file":"a","mode":420}\n`,
      `${file},"size":-1,"full":{"encoding":"identity"}}\n`,
      `${file},"size":1.5,"full":{"encoding":"identity"}}\n`,
      `${file},"size":1,"full":{"encoding":"gzip"}}\n`,
      `${file},"size":1,"full":{"encoding":"identity","in":[[0,0]]}}\n`,
      `{"directory":"a","mode":493}\n{"pack":"${sha(1)}","size":1,"from":null}\n`,
      `{"directory":"__proto__/x","mode":493}\n`,
      `{"directory":"a","mode":493}`,
    ])
      assert.throws(() => parseManifest(Buffer.from(HEAD + line)), invalid, line);
    assert.throws(() => parseManifest(Buffer.alloc(0)), invalid);
    assert.throws(() => parseManifest(Buffer.from([0xff, 0x0a])), invalid);
  });

  test("is refused when a content is described twice, or first named and then described", () => {
    const described = (path: string): string =>
      `{"file":"${path}","mode":420,"sha256":"${sha(1)}","size":1,"full":{"encoding":"identity"}}\n`;
    const named = `{"file":"a","mode":420,"sha256":"${sha(1)}"}\n`;
    for (const lines of [described("a") + described("b"), named + described("b"), named])
      assert.throws(() => parseManifest(Buffer.from(HEAD + lines)), invalid);
  });

  test("never does worse than to be refused, wherever its bytes are changed", () => {
    const valid = manifestOf(20, 2);
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(valid.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }),
        fc.nat(valid.length),
        (changes, cut) => {
          const bytes = Buffer.from(valid.subarray(0, cut));
          for (const [at, value] of changes) if (at < cut) bytes[at] = value;
          try {
            const release = parseManifest(bytes);
            for (const entry of release.entries) assert.ok(entry.path.length > 0);
            for (const content of release.contents) assert.equal(content.sha256.length, 64);
          } catch (error) {
            assert.equal((error as { code?: string }).code, "RELEASE_INVALID");
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});
