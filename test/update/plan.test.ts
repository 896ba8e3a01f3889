import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, test } from "node:test";
import * as fc from "fast-check";
import { blobOf, makePlan, sizeOf, spanOf } from "#core/plan.ts";
import type { Plan, Situation } from "#core/plan.ts";
import type { Entry, Release } from "#core/release.ts";
import { handMadeRelease } from "../support/release.ts";
import type { HandMadeContent, HandMadePack } from "../support/release.ts";

const sha = (text: string): string => createHash("sha256").update(text).digest("hex");

/** A content of some size whose deltas are given by base and size. */
function content(
  name: string,
  full: number,
  deltas: Readonly<Record<string, number>> = {},
): HandMadeContent {
  return {
    sha256: sha(name),
    size: full * 2,
    full: { sha256: sha(`full ${name}`), size: full, encoding: "zstd" },
    deltas: Object.entries(deltas).map(([base, size]) => ({
      base: sha(base),
      codec: "known",
      sha256: sha(`delta ${base} ${name}`),
      size,
    })),
  };
}

function release(
  contents: readonly HandMadeContent[],
  packs: readonly HandMadePack[] = [],
): Release {
  const entries = contents.map(({ sha256 }, index): Entry => ({
    type: "file",
    path: `f${String(index).padStart(2, "0")}`,
    mode: 0o644,
    sha256,
  }));
  return handMadeRelease(entries, contents, packs);
}

function plan(release: Release, given: Partial<Situation> = {}): Plan {
  return makePlan({
    release,
    installed: "1.0.0",
    available: new Set([sha("old"), sha("same")]),
    codecs: new Set(["known"]),
    rejected: new Set(),
    fallback: { kind: "always" },
    first: false,
    ...given,
  });
}

const how = (made: Plan): string => made.source(0).how;

describe("a file", () => {
  test("is kept when its content is there, under whatever name", () => {
    const made = plan(release([content("same", 500)]));
    assert.equal(how(made), "keep");
    assert.equal(made.downloadBytes, 0);
    assert.equal(made.fullBytes, 500);
  });

  test("comes as the smallest delta from what is there", () => {
    const made = plan(release([content("new", 500, { old: 90, same: 70, gone: 10 })]));
    assert.equal(how(made), "delta");
    assert.equal(made.downloadBytes, 70);
  });

  test("comes whole when its delta would be no smaller, is of an unknown codec, or was tried in vain", () => {
    const large = content("new", 500, { old: 500 });
    assert.equal(how(plan(release([large]))), "full");
    const fine = release([content("new", 500, { old: 90 })]);
    assert.equal(how(plan(fine, { codecs: new Set(["other"]) })), "full");
    const rejected = new Set([sha("delta old new")]);
    assert.equal(how(plan(fine, { rejected })), "full");
  });

  test("that is empty is not fetched", () => {
    const empty = { ...content("empty", 9), size: 0 };
    assert.deepEqual(plan(release([empty])).fetches, []);
  });
});

describe("the policy full-fallback", () => {
  const wanted = release([content("new", 500), content("other", 300)]);

  test("never allows no whole file, and says how much it would have been", () => {
    assert.throws(() => plan(wanted, { fallback: { kind: "never" } }), {
      code: "FALLBACK_REFUSED",
      message: /2 files of 2\.0\.0 .* 800 bytes/,
    });
  });

  test("allows whole files up to its limit, together", () => {
    assert.equal(plan(wanted, { fallback: { kind: "up-to", bytes: 800 } }).downloadBytes, 800);
    assert.throws(() => plan(wanted, { fallback: { kind: "up-to", bytes: 799 } }), {
      code: "FALLBACK_REFUSED",
    });
  });

  test("does not concern a first installation", () => {
    assert.equal(plan(wanted, { fallback: { kind: "never" }, first: true }).downloadBytes, 800);
  });

  test("does not concern whole files that the publisher put into the pack for this very step", () => {
    const parts = [
      { sha256: sha("full new"), offset: 0 },
      { sha256: sha("full other"), offset: 500 },
    ];
    const pack = (from: string): HandMadePack => ({ from, sha256: sha("pack"), size: 800, parts });
    const fallback = { kind: "never" } as const;
    const prepared = release([content("new", 500), content("other", 300)], [pack("1.0.0")]);
    assert.equal(plan(prepared, { fallback }).downloadBytes, 800);
    const foreign = release([content("new", 500), content("other", 300)], [pack("0.9.0")]);
    assert.throws(() => plan(foreign, { fallback }), { code: "FALLBACK_REFUSED" });
  });
});

describe("packs", () => {
  const names = ["a", "b", "c", "d"];
  const contents = names.map((name) => content(name, 20_000));
  const packed = (from: string | null, used = names): HandMadePack => ({
    from,
    sha256: sha(`pack ${from}`),
    size: used.length * 20_000,
    parts: used.map((name, index) => ({ sha256: sha(`full ${name}`), offset: index * 20_000 })),
  });
  const having = (...there: readonly string[]): Partial<Situation> => ({
    available: new Set(there.map(sha)),
  });

  test("are fetched whole when most of them is needed", () => {
    const made = plan(release(contents, [packed(null)]), having("d"));
    assert.deepEqual(
      made.fetches.map((fetch) => fetch.fetch),
      ["pack"],
    );
    assert.equal(made.downloadBytes, 80_000);
  });

  test("are fetched by ranges when little of them is needed, neighbours together", () => {
    const made = plan(release(contents, [packed(null)]), having("c", "d"));
    assert.deepEqual(
      made.fetches.map((fetch) => fetch.fetch === "range" && spanOf(fetch.parts)),
      [{ offset: 0, end: 40_000 }],
    );
    const apart = plan(release(contents, [packed(null)]), having("b", "d"));
    assert.equal(apart.fetches.length, 2);
    assert.equal(apart.downloadBytes, 40_000);
  });

  test("made for this step are preferred to the one for first installations", () => {
    const made = plan(
      release(contents, [packed(null), packed("1.0.0", ["b"])]),
      having("a", "c", "d"),
    );
    assert.equal(made.downloadBytes, 20_000);
    assert.deepEqual(
      made.fetches.map((fetch) => fetch.fetch === "pack" && fetch.pack.sha256),
      [sha("pack 1.0.0")],
    );
  });
});

describe("any plan", () => {
  const sizes = fc.record({
    full: fc.integer({ min: 1, max: 100_000 }),
    delta: fc.option(fc.integer({ min: 1, max: 100_000 })),
    packed: fc.boolean(),
    there: fc.boolean(),
  });

  test("brings each blob that it needs exactly once, and counts what it brings", () => {
    fc.assert(
      fc.property(fc.array(sizes, { maxLength: 30 }), (files) => {
        const contents = files.map(({ full, delta }, index) =>
          content(`file ${index}`, full, delta === null ? {} : { old: delta }),
        );
        const parts: { sha256: string; offset: number }[] = [];
        let end = 0;
        for (const [index, file] of files.entries()) {
          const blobs = [contents[index]?.full, ...(contents[index]?.deltas ?? [])];
          for (const blob of file.packed ? blobs : []) {
            parts.push({ sha256: blob?.sha256 ?? "", offset: end });
            end += blob?.size ?? 0;
          }
        }
        const pack: HandMadePack = { from: null, sha256: sha("pack"), size: end, parts };
        const there = contents.filter((_, index) => files[index]?.there).map((item) => item.sha256);
        const wanted = release(contents, end === 0 ? [] : [pack]);
        const made = plan(wanted, {
          available: new Set([sha("old"), ...there]),
        });
        const sources = contents.map((_, index) => made.source(index));
        const needed = sources.flatMap((source) => blobOf(source)?.sha256 ?? []);
        const brought = made.fetches.flatMap((fetch) =>
          fetch.fetch === "blob" ? [fetch.blob.sha256] : fetch.parts.map((part) => part.sha256),
        );
        assert.deepEqual(brought.toSorted(), needed.toSorted());
        assert.equal(
          made.downloadBytes,
          made.fetches.reduce((sum, fetch) => sum + sizeOf(fetch), 0),
        );
        for (const source of sources)
          if (source.how === "delta") assert.ok(source.delta.size < source.content.full.size);
        const most = contents.reduce((sum, item) => sum + item.full.size, 0);
        assert.ok(made.downloadBytes <= most + end);
        assert.ok(made.fetches.length <= contents.length + 16);
      }),
      { numRuns: 300 },
    );
  });
});
