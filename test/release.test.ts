import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "./support/property.ts";
import { MANIFEST_LIMIT, formatManifest, parseManifest } from "#core/manifest.ts";
import type { Entry, ReleaseParts } from "#core/release.ts";
import { comparePaths, isTreePath, staysInside } from "#core/tree-path.ts";
import { handMadeParts } from "./support/release.ts";
import type { HandMadeContent, HandMadePack } from "./support/release.ts";

const A = "a".repeat(64);
const B = "b".repeat(64);
const content: HandMadeContent = {
  sha256: A,
  size: 3,
  full: { sha256: B, size: 3, encoding: "zstd" },
  deltas: [],
};

type Parts = ReleaseParts & { readonly tree: string };

function releaseOf(entries: readonly Entry[], packs: readonly HandMadePack[] = []): Parts {
  return handMadeParts(entries, [content], packs);
}

function manifestOf(parts: Parts): Buffer {
  return Buffer.from([...formatManifest(parts)].join(""));
}

const file = (path: string): Entry => ({ type: "file", path, mode: 0o644, sha256: A });
const folder = (path: string): Entry => ({ type: "directory", path, mode: 0o755 });
const link = (path: string, target: string): Entry => ({ type: "symlink", path, target });

describe("a release manifest", () => {
  test("is what was serialized", () => {
    const pack = { sha256: B, size: 9, from: null, parts: [{ sha256: B, offset: 6 }] };
    const entries = [folder("bin"), file("bin/web"), link("bin/www", "web"), file("read.me")];
    const parts = releaseOf(entries, [pack]);
    const release = parseManifest(manifestOf(parts));
    assert.deepEqual([...release.entries], entries);
    assert.deepEqual([...release.contents], [...parts.contents]);
    assert.deepEqual(release.packs, [{ sha256: B, size: 9, from: null }]);
    assert.deepEqual([release.app, release.version, release.tree], ["web", "2.0.0", parts.tree]);
    assert.deepEqual(
      entries.map((_, index) => release.contentOf(index)),
      [undefined, 0, undefined, 0],
    );
    assert.deepEqual(
      [release.firstEntryOf(0), release.find(A), release.find(B)],
      [1, 0, undefined],
    );
    assert.deepEqual(manifestOf(release), manifestOf(parts));
  });

  const refused: readonly (readonly [string, Parts])[] = [
    ["a path that climbs", releaseOf([file("../x")])],
    ["an absolute path", releaseOf([file("/etc/passwd")])],
    ["a path with a control character", releaseOf([file("a\u001B[2J")])],
    ["a path listed twice", releaseOf([file("a"), file("a")])],
    ["paths out of order", releaseOf([file("b"), file("a")])],
    ["a file without its directory", releaseOf([file("bin/web")])],
    ["a file below a link", releaseOf([link("bin", "."), file("bin/web")])],
    ["a link out of the tree", releaseOf([link("a", "../x")])],
    ["a link to an absolute path", releaseOf([link("a", "/etc/passwd")])],
    [
      "a link that climbs after a name, which may be a link itself",
      releaseOf([folder("d"), link("d/a", "b/../../c")]),
    ],
    [
      "a file without content",
      releaseOf([{ type: "file", path: "a", mode: 0o644, sha256: "b".repeat(64) }]),
    ],
    ["a setuid mode", releaseOf([{ type: "file", path: "a", mode: 0o4755, sha256: A }])],
    [
      "a tree that is not the digest of its entries",
      { ...releaseOf([file("a")]), tree: "b".repeat(64) },
    ],
    [
      "a part beyond its pack",
      releaseOf(
        [file("a")],
        [{ sha256: A, size: 2, from: null, parts: [{ sha256: B, offset: 0 }] }],
      ),
    ],
    [
      "a place in a pack that is not there",
      {
        ...releaseOf([file("a")]),
        contents: [
          {
            ...content,
            full: { ...content.full, places: [{ pack: 0, offset: 0 }] },
            deltas: [],
          },
        ],
      },
    ],
  ];
  for (const [what, release] of refused)
    test(`is refused with ${what}`, () => {
      assert.throws(() => parseManifest(manifestOf(release)), { code: "RELEASE_INVALID" });
    });

  test("is refused when it is larger than what sites fetch, so that nobody publishes it", () => {
    const bytes = manifestOf(releaseOf([file("a")]));
    const padded = Buffer.concat([bytes, Buffer.alloc(MANIFEST_LIMIT, " ")]);
    assert.throws(() => parseManifest(padded), { code: "RELEASE_INVALID" });
  });

  test("is refused, and nothing worse, whatever the bytes are", () => {
    const valid = manifestOf(releaseOf([folder("bin"), file("bin/web")]));
    fc.assert(
      fc.property(fc.nat(valid.length - 1), fc.uint8Array({ maxLength: 8 }), (at, noise) => {
        const bytes = Buffer.concat([
          valid.subarray(0, at),
          noise,
          valid.subarray(at + noise.length),
        ]);
        try {
          parseManifest(bytes);
        } catch (error) {
          assert.equal((error as { code?: string }).code, "RELEASE_INVALID");
        }
      }),
    );
  });
});

describe("a path of a tree", () => {
  test("is in the same order as a walk that lists a directory before what is next to it", () => {
    const walk = ["a", "a/b", "a/b/c", "a-b", "a.b", "b"];
    assert.deepEqual(walk.toReversed().toSorted(comparePaths), walk);
  });

  test("never leads out of the tree, however it is written", () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom("..", ".", "", "a", "b\\", "\0", "c")), (parts) => {
        const path = parts.join("/");
        if (isTreePath(path))
          assert.ok(!path.split("/").some((part) => ["", ".", ".."].includes(part)));
      }),
    );
  });

  test("of a link counts the climbs at the beginning of its target", () => {
    assert.ok(staysInside("a/b/link", "../../c"));
    assert.ok(!staysInside("a/b/link", "../../../c"));
    assert.ok(staysInside("link", "a/b"));
    assert.ok(!staysInside("link", ".."));
  });
});
