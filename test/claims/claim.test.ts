import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { eventually } from "../support/process.ts";
import { POINTS, QUICK, blockedIn, openClaimWorld, seenBy } from "./support/claim-world.ts";
import type { ClaimWorld } from "./support/claim-world.ts";
import { checkTurns } from "./support/replicas.ts";

describe("three pods on one claim", { concurrency: 3 }, () => {
  let world: ClaimWorld;
  before(async () => {
    world = await openClaimWorld();
  });
  after(() => world[Symbol.asyncDispose]());

  for (const point of POINTS.slice(0, QUICK))
    test(`end on the new release, one after another, when the leader is killed before ${point[0]}`, () =>
      world.kill(point, "later"));

  test("go on when the leader was killed between its verdict and the journal, however late they come", async () => {
    await using replicas = await world.site("1.1.0");
    const kill = { operation: "rename", path: "volume/state.json$", nth: 5 };
    await replicas.start("pod-a", kill);
    assert.equal(await replicas.ended("pod-a"), "SIGKILL");
    await replicas.start("pod-b");
    await replicas.reach("1.1.0", ["pod-b"]);
    const leads = (): true | undefined =>
      /leading the shared volume/.test(replicas.output("pod-b")) || undefined;
    await eventually(leads, () => replicas.output(), 60_000);
    await replicas.start("pod-c");
    await replicas.start("pod-a");
    await replicas.reach("1.1.0");
  });

  test("end a bad release with nobody but the leader having seen it", async () => {
    await using replicas = await world.site("1.2.0");
    await world.startAll(replicas);
    await eventually(
      () => blockedIn(replicas),
      () => replicas.output(),
      30_000,
    );
    await replicas.reach("1.0.0");
    assert.deepEqual(seenBy(replicas, "1.2.0"), ["pod-a"]);
    checkTurns(replicas.events());
  });
});
