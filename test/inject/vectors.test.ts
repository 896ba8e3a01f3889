import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { outcome, vectors } from "../support/vectors.ts";

describe("the golden vectors (node test/support/vectors.ts writes them anew)", async () => {
  for (const { name, pod, expected } of await vectors())
    test(name, () => {
      assert.deepEqual(outcome(pod), expected);
    });
});
