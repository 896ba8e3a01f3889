import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { POINTS, blockedIn, openClaimWorld, seenBy } from "../claims/support/claim-world.ts";
import type { ClaimWorld } from "../claims/support/claim-world.ts";
import { checkTurns } from "../claims/support/replicas.ts";
import { eventually } from "../support/process.ts";

/** Every step, with the leader's sidecar back at once and with another pod in its place; `npm test` takes some of the second kind. */
describe("the leader of a shared claim", { concurrency: 4 }, () => {
  let world: ClaimWorld;
  before(async () => {
    world = await openClaimWorld();
  });
  after(() => world[Symbol.asyncDispose]());

  for (const back of ["at once", "later"] as const)
    for (const point of POINTS)
      test(`may be killed before ${point[0]} and come back ${back}`, () => world.kill(point, back));

  test("may be killed in the trial of a bad release, which ends blocked and not followed", async () => {
    await using replicas = await world.site("1.2.0");
    await world.startAll(replicas, { operation: "rename", path: "volume/state.json$", nth: 4 });
    assert.equal(await replicas.ended("pod-a"), "SIGKILL");
    await eventually(
      () => blockedIn(replicas),
      () => replicas.output(),
      60_000,
    );
    await replicas.start("pod-a");
    await replicas.reach("1.0.0");
    checkTurns(replicas.events());
    // The one that led at first, and the one that took its place.
    assert.equal(seenBy(replicas, "1.2.0").length, 2);
  });
});
