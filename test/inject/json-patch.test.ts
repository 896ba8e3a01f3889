import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import patches from "fast-json-patch";
import { diff, sameJson } from "#core/json-patch.ts";

/** Applied by an implementation that is not ours. */
function apply(document: unknown, operations: ReturnType<typeof diff>): unknown {
  const copy: unknown = structuredClone(document);
  return patches.applyPatch(copy, structuredClone(operations) as patches.Operation[], true)
    .newDocument;
}

const list = (...names: readonly string[]): object => ({
  containers: names.map((name) => ({ name, image: `${name}:1` })),
});

describe("a JSON patch", () => {
  test("is empty for equal values, whatever the order of their keys", () => {
    assert.deepEqual(diff({ a: 1, b: [{ c: null }] }, { b: [{ c: null }], a: 1 }), []);
  });

  test("adds one operation for an item put first, in the middle or last", () => {
    for (const [after, index] of [
      [list("new", "a", "b"), 0],
      [list("a", "new", "b"), 1],
      [list("a", "b", "new"), 2],
    ] as const) {
      const operations = diff(list("a", "b"), after);
      assert.deepEqual(operations, [
        { op: "add", path: `/containers/${index}`, value: { name: "new", image: "new:1" } },
      ]);
    }
  });

  test("changes a field of a named item in its place", () => {
    const before = { containers: [{ name: "a" }, { name: "b", image: "1" }] };
    const after = { containers: [{ name: "new" }, { name: "a" }, { name: "b", image: "2" }] };
    assert.deepEqual(diff(before, after), [
      { op: "add", path: "/containers/0", value: { name: "new" } },
      { op: "replace", path: "/containers/2/image", value: "2" },
    ]);
  });

  test("knows mounts of one volume apart by their paths", () => {
    const mount = (mountPath: string): object => ({ name: "data", mountPath });
    assert.deepEqual(diff([mount("/a"), mount("/b")], [mount("/a"), mount("/c"), mount("/b")]), [
      { op: "add", path: "/1", value: mount("/c") },
    ]);
  });

  test("moves an item by removing and adding only that one", () => {
    const operations = diff(list("a", "b", "c", "d"), list("b", "c", "d", "a"));
    assert.deepEqual(
      operations.map(({ op, path }) => [op, path]),
      [
        ["remove", "/containers/0"],
        ["add", "/containers/3"],
      ],
    );
  });

  test("escapes ~ and / in keys (RFC 6901, section 3)", () => {
    assert.deepEqual(diff({ "a/b": 1 }, { "a/b": 2, "m~n": 3 }), [
      { op: "replace", path: "/a~1b", value: 2 },
      { op: "add", path: "/m~0n", value: 3 },
    ]);
  });

  test("replaces the whole when it is of another kind", () => {
    assert.deepEqual(diff([1], { a: 1 }), [{ op: "replace", path: "", value: { a: 1 } }]);
    assert.deepEqual(diff({ a: null }, { a: [] }), [{ op: "replace", path: "/a", value: [] }]);
  });

  test("takes a property that is undefined for one that is not there", () => {
    assert.deepEqual(diff({ a: 1, b: undefined }, { a: 1 }), []);
    assert.ok(sameJson({ a: 1 }, { a: 1, b: undefined }));
  });
});

/** Keys that are awkward in a pointer, and few of them, so that the two values meet. */
const key = fc.constantFrom("a", "b", "name", "mountPath", "a/b", "~", "", "0", "-", "äöü");
const json = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.constantFrom(null, true, 0, 1, "a", "b", ""),
    fc.array(tie("value"), { maxLength: 5 }),
    fc.dictionary(key, tie("value"), { maxKeys: 4, noNullPrototype: true }),
    fc.array(
      fc.record(
        { name: fc.constantFrom("a", "b", "c", "d"), other: tie("value") },
        { noNullPrototype: true },
      ),
      {
        maxLength: 5,
      },
    ),
  ),
})).value;

describe("any two JSON values", () => {
  test("become equal by the patch, as another implementation applies it", () => {
    fc.assert(
      fc.property(json, json, (before, after) => {
        assert.deepEqual(apply(before, diff(before, after)), after);
      }),
      { numRuns: 2_000 },
    );
  });

  test("need no patch exactly when they are equal", () => {
    fc.assert(
      fc.property(json, json, (before, after) => {
        assert.equal(diff(before, after).length === 0, sameJson(before, after));
      }),
    );
  });

  test("give the same bytes each time, and do not change", () => {
    fc.assert(
      fc.property(json, json, (before, after) => {
        const text = JSON.stringify([before, after]);
        assert.equal(JSON.stringify(diff(before, after)), JSON.stringify(diff(before, after)));
        assert.equal(JSON.stringify([before, after]), text);
      }),
    );
  });
});
