/** JSON whose large parts are written once is the JSON that would be written anew each time. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { admit, fail, refuse, responseText } from "#core/admission-review.ts";
import type { Operation } from "#core/json-patch.ts";
import { base64Of, keepText, patchText } from "#core/json-text.ts";

const value = fc.jsonValue({ maxDepth: 3 });
const object = fc.dictionary(fc.string(), value, { maxKeys: 4 });

const operations: fc.Arbitrary<readonly Operation[]> = fc.array(
  fc.oneof(
    fc.record({ op: fc.constant("remove" as const), path: fc.string({ unit: "binary" }) }),
    fc
      .tuple(fc.constantFrom("add" as const, "replace" as const), fc.string(), value)
      .map(([op, path, one]) => ({ op, path, value: one })),
    // As the sidecar is: kept, and alone or in a list with others.
    fc.tuple(object, fc.option(value)).map(([one, other]) => {
      const kept = keepText(one);
      const list = other === null ? kept : [other, kept, kept];
      return { op: "add" as const, path: "/spec/initContainers", value: list };
    }),
  ),
);

describe("the text of a patch", () => {
  test("is JSON.stringify's, whatever of it is kept", () => {
    fc.assert(
      fc.property(operations, (patch) => {
        assert.equal(patchText(patch), JSON.stringify(patch));
      }),
    );
  });

  test("is put into base64 whatever its length and characters are", () => {
    for (const text of ["", "a", "ü€😀\ud800", "€".repeat(16 * 1024), "€".repeat(16 * 1024 + 1)])
      assert.equal(base64Of(text), Buffer.from(text).toString("base64"));
  });
});

describe("the text of a response", () => {
  test("is JSON.stringify's", () => {
    const texts = fc.string({ unit: "binary" });
    fc.assert(
      fc.property(texts, operations, fc.array(texts), (uid, patch, warnings) => {
        for (const response of [
          admit(uid, patch, warnings),
          refuse(uid, "ANNOTATION_INVALID", warnings.join()),
          fail(uid, { code: 500, reason: "InternalError", message: uid }),
        ])
          assert.equal(responseText(response), JSON.stringify(response));
      }),
    );
  });
});
