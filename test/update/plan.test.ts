import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { makePlan, sizeOf, spanOf } from "#core/plan.ts";
import type { Plan, Situation } from "#core/plan.ts";
import type { Content, DeltaBlob, Entry, Release } from "#core/release.ts";
import { blobsOf } from "#core/route.ts";
import type { Source } from "#core/route.ts";
import { handMadeRelease } from "../support/release.ts";
import type { HandMadeContent, HandMadePack, HandMadeStep } from "../support/release.ts";

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
  steps: readonly HandMadeStep[] = [],
): Release {
  const entries = contents.map(({ sha256 }, index): Entry => ({
    type: "file",
    path: `f${String(index).padStart(2, "0")}`,
    mode: 0o644,
    sha256,
  }));
  return handMadeRelease(entries, contents, packs, steps);
}

function plan(release: Release, given: Partial<Situation> = {}): Plan {
  return makePlan({
    release,
    installed: "1.0.0",
    available: new Set([sha("old"), sha("same")]),
    foreign: new Set(),
    damaged: new Set(),
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

/** A step of some size, by what its deltas start from. */
function step(name: string, deltas: Readonly<Record<string, number>>): HandMadeStep {
  const { sha256, size, deltas: made } = content(name, 1_000, deltas);
  return { sha256, size, deltas: made };
}

describe("a chain of deltas", () => {
  // A site with `old` comes to `new` by old -> b -> c -> new.
  const steps = [step("c", { b: 30 }), step("b", { old: 20, gone: 1 })];
  const chained = release([content("new", 500, { c: 40, gone: 5 })], [], steps);

  test("is gone through from what is there, link by link", () => {
    const made = plan(chained);
    const source = made.source(0);
    assert.ok(source.how === "chain");
    assert.deepEqual(
      source.links.map(({ delta, sha256 }) => [delta.base, delta.size, sha256]),
      [
        [sha("old"), 20, sha("b")],
        [sha("b"), 30, sha("c")],
        [sha("c"), 40, sha("new")],
      ],
    );
    assert.equal(made.downloadBytes, 90);
    assert.deepEqual(made.ways.chain, { contents: 1, bytes: 90 });
    // While c is made, b is read.
    assert.equal(made.chainBytes, 4_000);
  });

  test("is not taken where a delta or the file itself is no larger, nor with a link that does not work", () => {
    const direct = release([content("new", 500, { c: 40, old: 90 })], [], steps);
    assert.deepEqual([how(plan(direct)), plan(direct).downloadBytes], ["delta", 90]);
    const small = release([content("new", 90, { c: 40 })], [], steps);
    assert.equal(how(plan(small)), "full");
    for (const name of ["delta c new", "delta b c", "delta old b"])
      assert.equal(how(plan(chained, { rejected: new Set([sha(name)]) })), "full", name);
  });

  test("begins as late as the site allows", () => {
    const made = plan(chained, { available: new Set([sha("old"), sha("b")]) });
    assert.deepEqual([how(made), made.downloadBytes], ["chain", 70]);
    const near = plan(chained, { available: new Set([sha("c")]) });
    assert.deepEqual([how(near), near.downloadBytes], ["delta", 40]);
  });

  test("brings what two files need once, and counts it once", () => {
    const two = [content("new", 500, { c: 40 }), content("other", 400, { c: 10 })];
    const made = plan(release(two, [], steps));
    assert.equal(made.downloadBytes, 20 + 30 + 40 + 10);
    assert.deepEqual(made.ways.chain, { contents: 2, bytes: 100 });
  });

  test("never leads back to where it was, also where deltas take no bytes", () => {
    const loop = [step("b", { c: 0 }), step("c", { b: 0, old: 100 })];
    const source = plan(release([content("new", 500, { b: 0 })], [], loop)).source(0);
    assert.ok(source.how === "chain");
    assert.equal(source.links.length, 3);
  });
});

describe("a file that comes whole", () => {
  const why = (made: Plan): readonly string[] =>
    Object.entries(made.whole).flatMap(([reason, { contents }]) => (contents > 0 ? [reason] : []));
  const near = content("new", 500, { old: 90 });
  const steps = [step("b", { old: 20 })];
  const far = content("new", 500, { b: 90 });
  const rows: readonly (readonly [string, Release, Partial<Situation>])[] = [
    ["no_delta", release([content("new", 500)]), {}],
    ["no_delta", release([content("new", 500, { gone: 5 })]), {}],
    ["no_delta", release([far], [], [step("b", { gone: 20 })]), {}],
    ["whole_is_smaller", release([content("new", 500, { old: 501 })]), {}],
    ["whole_is_smaller", release([content("new", 100, { b: 90 })], [], steps), {}],
    ["codec_unknown", release([near]), { codecs: new Set() }],
    ["codec_unknown", release([far], [], steps), { codecs: new Set() }],
    ["delta_rejected", release([near]), { rejected: new Set([sha("delta old new")]) }],
    ["delta_rejected", release([far], [], steps), { rejected: new Set([sha("delta old b")]) }],
    ["base_damaged", release([near]), { available: new Set(), damaged: new Set([sha("old")]) }],
    [
      "base_damaged",
      release([far], [], steps),
      { available: new Set(), damaged: new Set([sha("old")]) },
    ],
  ];
  for (const [reason, wanted, given] of rows)
    test(`says ${reason} with ${wanted.steps.length} steps and ${wanted.contents.at(0).deltas.length} deltas`, () => {
      const made = plan(wanted, given);
      assert.deepEqual(why(made), [reason]);
      assert.equal(
        Object.values(made.whole).reduce((sum, { bytes }) => sum + bytes, 0),
        made.downloadBytes,
      );
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
        const needed = sources.flatMap((source) => blobsOf(source).map((blob) => blob.sha256));
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

/** The fewest bytes to a content, by trying every way that does not pass anything twice. */
function fewestBytes(wanted: Release, content: Content, means: Situation): number {
  const { available, codecs, rejected } = means;
  if (available.has(content.sha256)) return 0;
  const usable = (delta: DeltaBlob): boolean =>
    codecs.has(delta.codec) && !rejected.has(delta.sha256);
  const to = (deltas: readonly DeltaBlob[], passed: readonly string[]): number =>
    Math.min(
      Number.POSITIVE_INFINITY,
      ...deltas.filter(usable).map(({ base, size }) => {
        if (available.has(base)) return size;
        const number = passed.includes(base) ? undefined : wanted.findStep(base);
        if (number === undefined) return Number.POSITIVE_INFINITY;
        return size + to(wanted.steps.at(number).deltas, [...passed, base]);
      }),
    );
  return Math.min(content.full.size, to(content.deltas, []));
}

function bytesBy(source: Source): number {
  return blobsOf(source).reduce((sum, { size }) => sum + size, 0);
}

describe("any plan over steps", () => {
  // Few names, so that deltas meet, go round in circles and start from nowhere.
  const names = ["old", "same", "gone", "s0", "s1", "s2", "s3", "s4"];
  const deltas = fc.dictionary(fc.constantFrom(...names), fc.nat(60), { maxKeys: 4 });
  const graph = fc.record({
    steps: fc.array(deltas, { minLength: 1, maxLength: 5 }),
    contents: fc.array(fc.tuple(fc.integer({ min: 1, max: 150 }), deltas), {
      minLength: 1,
      maxLength: 4,
    }),
    available: fc.subarray(["old", "same", "s3", "c0"]),
    rejected: fc.array(
      fc.constantFrom("delta old s0", "delta s0 s1", "delta s1 s0", "delta s1 c0"),
    ),
  });

  test("takes the fewest bytes for each file, by links that fit each other and never pass anything twice", () => {
    let chains = 0;
    fc.assert(
      fc.property(graph, ({ steps, contents, available, rejected }) => {
        const wanted = release(
          contents.map(([full, from], index) => content(`c${index}`, full, from)),
          [],
          steps.map((from, index) => step(`s${index}`, from)),
        );
        const situation: Situation = {
          release: wanted,
          installed: "1.0.0",
          available: new Set(available.map(sha)),
          foreign: new Set(),
          damaged: new Set(),
          codecs: new Set(["known"]),
          rejected: new Set(rejected.map(sha)),
          fallback: { kind: "always" },
          first: false,
        };
        const made = makePlan(situation);
        const brought = new Map<string, number>();
        for (const [number, item] of [...wanted.contents].entries()) {
          const source = made.source(number);
          assert.equal(bytesBy(source), fewestBytes(wanted, item, situation));
          for (const { sha256, size } of blobsOf(source)) brought.set(sha256, size);
          if (source.how !== "chain") continue;
          chains += 1;
          assert.ok(source.links.length > 1);
          let at = source.links[0]?.delta.base ?? "";
          assert.ok(situation.available.has(at));
          const passed = new Set([at]);
          for (const { delta, sha256 } of source.links) {
            assert.equal(delta.base, at);
            assert.ok(!situation.rejected.has(delta.sha256));
            assert.ok(!passed.has(sha256), "nothing is passed twice");
            passed.add(sha256);
            at = sha256;
          }
          assert.equal(at, item.sha256);
        }
        const bytes = brought.values().reduce((sum, size) => sum + size, 0);
        assert.equal(made.downloadBytes, bytes);
        assert.equal(
          Object.values(made.ways).reduce((sum, way) => sum + way.bytes, 0),
          bytes,
        );
      }),
      { numRuns: 2_000 },
    );
    assert.ok(chains > 100, `${chains} chains`);
  });
});
