import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "fast-check";
import { serialize } from "#core/document.ts";
import {
  MANIFEST_LIMIT,
  comparePaths,
  isTreePath,
  parseRelease,
  staysInside,
  treeDigest,
} from "#core/release.ts";
import type { Content, Entry, Release } from "#core/release.ts";

const A = "a".repeat(64);
const content: Content = {
  sha256: A,
  size: 3,
  full: { sha256: A, size: 3, encoding: "identity" },
  deltas: [],
};

function releaseOf(entries: readonly Entry[], more: Partial<Release> = {}): Release {
  const contents = [content];
  const tree = treeDigest({ entries, contents });
  return {
    schema: 1,
    app: "web",
    version: "1.0.0",
    platform: "linux-x64",
    tree,
    entries,
    contents,
    packs: [],
    ...more,
  };
}

const file = (path: string): Entry => ({ type: "file", path, mode: 0o644, sha256: A });
const folder = (path: string): Entry => ({ type: "directory", path, mode: 0o755 });
const link = (path: string, target: string): Entry => ({ type: "symlink", path, target });

describe("a release manifest", () => {
  test("is what was serialized", () => {
    const release = releaseOf([
      folder("bin"),
      file("bin/web"),
      link("bin/www", "web"),
      file("read.me"),
    ]);
    assert.deepEqual(parseRelease(serialize(release)), release);
  });

  const refused: readonly (readonly [string, Release])[] = [
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
      releaseOf([file("a")], { tree: "b".repeat(64) }),
    ],
    [
      "a part beyond its pack",
      releaseOf([file("a")], {
        packs: [{ sha256: A, size: 2, from: null, parts: [{ sha256: A, offset: 0 }] }],
      }),
    ],
    [
      "a pack with a blob of nobody",
      releaseOf([file("a")], {
        packs: [{ sha256: A, size: 9, from: null, parts: [{ sha256: "c".repeat(64), offset: 0 }] }],
      }),
    ],
  ];
  for (const [what, release] of refused)
    test(`is refused with ${what}`, () => {
      assert.throws(() => parseRelease(serialize(release)), { code: "RELEASE_INVALID" });
    });

  test("is refused when it is larger than what sites fetch, so that nobody publishes it", () => {
    const bytes = serialize(releaseOf([file("a")]));
    const padded = Buffer.concat([bytes, Buffer.alloc(MANIFEST_LIMIT, " ")]);
    assert.throws(() => parseRelease(padded), { code: "RELEASE_INVALID" });
  });

  test("is refused, and nothing worse, whatever the bytes are", () => {
    const valid = serialize(releaseOf([folder("bin"), file("bin/web")]));
    fc.assert(
      fc.property(fc.nat(valid.length - 1), fc.uint8Array({ maxLength: 8 }), (at, noise) => {
        const bytes = Buffer.concat([
          valid.subarray(0, at),
          noise,
          valid.subarray(at + noise.length),
        ]);
        try {
          parseRelease(bytes);
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
