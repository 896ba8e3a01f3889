import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { canonicalize } from "@tufjs/canonical-json";
import * as fc from "../support/property.ts";
import { canonicalForm } from "#core/trust/canonical.ts";

const INVALID = { code: "METADATA_INVALID" };

function formOf(json: string, size = 0): string {
  return canonicalForm(JSON.parse(json), size).toString();
}

describe("the canonical form", () => {
  test("is that of the reference implementation in JavaScript, whatever the guess of its size", () => {
    const text = fc.string({ unit: fc.constantFrom("a", "Z", '"', "\\", "\n", "ä", "€", " ") });
    const { value } = fc.letrec((tie) => ({
      value: fc.oneof(
        { depthSize: "small" },
        text,
        fc.maxSafeInteger(),
        fc.boolean(),
        fc.constant(null),
        fc.array(tie("value")),
        fc.dictionary(text, tie("value"), { noNullPrototype: true }),
      ),
    }));
    fc.assert(
      fc.property(value, fc.nat(5_000), (item, size) => {
        assert.equal(canonicalForm(item, size).toString(), canonicalize(item));
      }),
    );
  });

  test("grows beyond what was guessed", () => {
    const list = Array.from({ length: 50_000 }, (_, index) => `${index}€`);
    assert.equal(canonicalForm(list, 0).toString(), canonicalize(list));
  });

  test("sorts keys by code points, as the reference implementation in Python does", () => {
    assert.equal(
      formOf('{"\\ud83d\\ude00":1,"\\uffff":2,"a":3}'),
      '{"a":3,"\uffff":2,"\u{1f600}":1}',
    );
  });

  test("keeps names that objects have", () => {
    assert.equal(
      formOf('{"b":1,"__proto__":{"a":2},"constructor":3}'),
      '{"__proto__":{"a":2},"b":1,"constructor":3}',
    );
  });

  for (const [what, json] of [
    ["a fraction", "[1.5]"],
    ["a number that a double cannot hold", "[9007199254740993]"],
    ["a number that is none", "[1e999]"],
    ["half of a surrogate pair", '["\\ud800"]'],
    ["half of a surrogate pair in a key", '{"\\udc00":1}'],
    ["more levels than metadata can have", `${"[".repeat(66)}${"]".repeat(66)}`],
  ] as const)
    test(`does not exist for ${what}`, () => {
      assert.throws(() => formOf(json), INVALID);
    });
});
