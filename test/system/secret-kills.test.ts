/**
 * A secrets agent killed before and after each operation on its volume, and before each request and when its answer is there: in the first
 * set of a pod, and when a restarted sidecar takes up what there was and publishes another. The bound: a kill costs one login or one credential
 * more at most, and only where Vault's answer had not been saved yet; what was issued for nothing ends with its lease.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { openPods } from "../secrets/support/kills.ts";
import type { Pods } from "../secrets/support/kills.ts";
import { sampleOf } from "../support/random.ts";
import { FULL, SEED, forEach } from "./full.ts";

describe("a secrets agent that is killed", () => {
  test("goes on with what was saved, shows whole sets only, and leaves nothing behind", async (t) => {
    await using stack = new AsyncDisposableStack();
    const all: Pods[] = [];
    for (let count = 0; count < 3; count++) all.push(stack.use(await openPods()));
    const points = (await all[0]?.points()) ?? [];
    const chosen = FULL ? points : sampleOf(points, 60, SEED);
    const free = [...all];
    let killed = 0;
    await forEach(
      chosen,
      ({ passage, step, nth, isLate }) =>
        `${passage}: ${isLate ? "after" : "before"} ${step} ${nth}`,
      async (point) => {
        const pods = free.pop();
        assert.ok(pods !== undefined);
        try {
          const isKilled = await pods.check(point);
          killed += Number(isKilled);
        } finally {
          free.push(pods);
        }
      },
    );
    for (const pods of all) await pods.checkExpiry();
    t.diagnostic(`${killed} kills at ${chosen.length} of ${points.length} points`);
    assert.ok(killed > chosen.length * 0.9, `${killed} kills`);
  });
});
