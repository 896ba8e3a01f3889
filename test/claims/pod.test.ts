import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { openClaim } from "./support/claim-pod.ts";

const DAY = 86_400_000;

describe("the turn to swap", () => {
  test("is not kept for a pod that waits for something else by now", async () => {
    await using claim = await openClaim();
    const { clock } = claim;
    const { signal } = new AbortController();
    let held = false;
    const holds = (): Promise<readonly { owner: string; since: number; until: number }[]> =>
      Promise.resolve(
        held ? [{ owner: "till", since: clock.now(), until: clock.now() + DAY }] : [],
      );
    const [a, b] = [await claim.pod("a", { holds }), await claim.pod("b")];
    await b.volume.turn.take(signal);
    claim.commit("two");
    await a.round();
    const asked = a.waits();
    assert.equal(asked?.answer === "wait" && asked.reason, "replica");
    held = true;
    await a.round();
    const now = a.waits();
    assert.equal(now?.answer === "wait" && now.reason, "app_lease");
    await b.volume.turn.end();
    await a.volume.tend();
    assert.equal(a.volume.turn.mayAct(), false);
    await b.round();
    assert.equal(b.phase(), "settled");
  });
});
