import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { openPods } from "./support/kills.ts";

describe("a sidecar that is killed at its worst steps", () => {
  // All steps: test/system/secret-kills.test.ts.
  test("has at most one credential more than it needs, and shows whole sets", async () => {
    await using pods = await openPods();
    const killed = [
      await pods.check({ passage: "first", step: "credential", nth: 1, isLate: true }),
      await pods.check({ passage: "resumed", step: "rename set/..data", nth: 1, isLate: false }),
    ];
    assert.deepEqual(killed, [true, true]);
    await pods.checkExpiry();
  });
});
