/** What a pod on a shared volume sees, and what all of them do, is there again when a disk has lost it. */
import assert from "node:assert/strict";
import { existsSync, readlinkSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { eventually } from "../support/process.ts";
import { openClaim } from "./support/claim-pod.ts";

describe("on a shared volume", () => {
  test("a follower that has lost its own link has it again, without a turn and without a restart", async () => {
    await using claim = await openClaim();
    let restarts = 0;
    const restart = async (): Promise<void> => void (restarts += 1);
    const pod = await claim.pod("a", { workload: { restart } });
    await pod.round();
    const link = join(claim.folder, "../a/current");
    const before = readlinkSync(link);
    const registered = pod.volume.own.settled();
    await rm(link);
    await pod.round();
    assert.equal(readlinkSync(link), before);
    assert.deepEqual([pod.phase(), restarts], ["settled", 0]);
    assert.equal(pod.volume.own.settled(), registered);
    await rm(join(claim.folder, "banks/one"), { recursive: true, maxRetries: 5 });
    await pod.round();
    assert.equal(pod.volume.own.known(), undefined);
  });

  test("a leader makes its own link and the volume's name what is committed again", async () => {
    await using claim = await openClaim();
    await (await claim.pod("a")).round();
    const agent = await claim.agent("a", { settings: { pollInterval: 100 } });
    const stop = new AbortController();
    const running = agent.run(stop.signal).catch(() => undefined);
    const said = (): string => JSON.stringify(agent.status());
    const links = [join(claim.folder, "../a/current"), join(claim.folder, "current")];
    try {
      const leads = (): true | undefined => agent.status().replica?.role === "leader" || undefined;
      await eventually(leads, said, 30_000);
      for (const link of links) {
        const before = readlinkSync(link);
        await rm(link);
        await eventually(() => existsSync(link) || undefined, said, 30_000);
        assert.equal(readlinkSync(link), before);
      }
    } finally {
      stop.abort(new Error("the test is over"));
      await running;
    }
  });
});
