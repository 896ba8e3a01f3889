import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { EdgeSyncError } from "#core/errors.ts";
import type { HookAnswer } from "#core/hook.ts";
import { windows } from "#core/window.ts";
import { nodeDisk } from "../../sidecar/disk/durable.ts";
import type { Disk } from "../../sidecar/disk/durable.ts";
import { noHooks } from "../../sidecar/application/hooks.ts";
import type { Hooks } from "../../sidecar/application/hooks.ts";
import type { Holds } from "../../sidecar/application/hold.ts";
import { eventually } from "../support/process.ts";
import { LEASE_MS, openClaim } from "./support/claim-pod.ts";
import type { Claim } from "./support/claim-pod.ts";

const DAY = 86_400_000;

const HOUR = 3_600_000;

/** Opens for an hour in twelve hours, by the clock of the claim. */
function closedWindow({ clock }: Claim): ReturnType<typeof windows.parse> {
  return windows.parse(`0 ${new Date(clock.now() + 12 * HOUR).getUTCHours()} * * * 1h`);
}

describe("a follower", () => {
  /** An application that answers always the same before a swap. */
  function hooksWith(answer: HookAnswer): { readonly hooks: Hooks; readonly asked: () => number } {
    let asked = 0;
    const ask = (): Promise<HookAnswer> => {
      asked += 1;
      return Promise.resolve(answer);
    };
    const hooks = { ...noHooks, has: (hook: string) => hook === "pre-swap", ask };
    return { hooks, asked: () => asked };
  }

  test("asks its application no sooner than that has said, and takes no turn meanwhile", async () => {
    await using claim = await openClaim();
    const { hooks, asked } = hooksWith({ answer: "later", afterMs: HOUR });
    let renames = 0;
    const rename: Disk["rename"] = (from, to) => {
      renames += 1;
      return nodeDisk.rename(from, to);
    };
    const pod = await claim.pod("a", { hooks, disk: { ...nodeDisk, rename } });
    claim.commit("two");
    await pod.round();
    const before = renames;
    for (let round = 0; round < 10; round++) {
      claim.clock.pass(5_000);
      await pod.round();
    }
    assert.deepEqual([asked(), renames], [1, before]);
    claim.clock.pass(HOUR);
    await pod.round();
    assert.equal(asked(), 2);
  });

  test("that its application refuses asks once a minute, until hold-limit is over", async () => {
    await using claim = await openClaim();
    const { hooks, asked } = hooksWith({ answer: "no", detail: "not today" });
    const pod = await claim.pod("a", { hooks, settings: { holdLimit: HOUR } });
    claim.commit("two");
    for (let round = 0; round < 12; round++) {
      await pod.round();
      claim.clock.pass(5_000);
    }
    assert.deepEqual([asked(), pod.phase()], [1, "waiting"]);
    claim.clock.pass(HOUR);
    await pod.round();
    assert.equal(pod.phase(), "settled");
  });

  test("waits for no window where what is committed is urgent", async () => {
    for (const urgent of [false, true]) {
      await using claim = await openClaim(urgent);
      const pod = await claim.pod("a", { settings: { swapWindow: closedWindow(claim) } });
      claim.commit("two");
      await pod.round();
      assert.equal(pod.phase(), urgent ? "settled" : "waiting");
    }
  });
});

describe("the death of the leader", () => {
  test("makes a pod lead whose application wants to wait, and which follows when that ends", async () => {
    await using claim = await openClaim();
    let held = true;
    const holds: Holds = () => {
      const now = Date.now();
      return Promise.resolve(held ? [{ owner: "till", since: now, until: now + DAY }] : []);
    };
    let restarts = 0;
    const restart = (): Promise<void> => {
      restarts += 1;
      return Promise.resolve();
    };
    await (await claim.pod("a")).round();
    claim.commit("two");
    claim.lead("another");
    const agent = await claim.agent("a", { holds, workload: { restart } });
    const stop = new AbortController();
    const running = agent.run(stop.signal).catch(() => undefined);
    const said = (): string => JSON.stringify(agent.status());
    const leads = (): true | undefined => agent.status().replica?.role === "leader" || undefined;
    try {
      await eventually(leads, said, 30_000);
      assert.equal(restarts, 0);
      held = false;
      const follows = (): true | undefined => (leads() && restarts > 0) || undefined;
      await eventually(follows, said, 30_000);
      assert.equal(restarts, 1);
    } finally {
      stop.abort(new Error("the test is over"));
      await running;
    }
  });
});

describe("the turn to swap", () => {
  test("is given back by a pod whose own link cannot be moved, which tries again when others had theirs", async () => {
    await using claim = await openClaim();
    let full = true;
    const symlink: Disk["symlink"] = (target, path) => {
      if (full) throw new EdgeSyncError("DISK_FULL", `${path} has no room`);
      return nodeDisk.symlink(target, path);
    };
    await (await claim.pod("a")).round();
    const a = await claim.pod("a", { disk: { ...nodeDisk, symlink } });
    const b = await claim.pod("b");
    claim.commit("two");
    await assert.rejects(a.round(), { code: "DISK_FULL" });
    assert.deepEqual([a.phase(), a.volume.turn.mayAct()], ["waiting", false]);
    await b.round();
    assert.equal(b.phase(), "settled");
    full = false;
    claim.clock.pass(LEASE_MS);
    await a.round();
    assert.equal(a.phase(), "settled");
  });

  test("is lost by who has it for longer than any trial with its rollback", async () => {
    await using claim = await openClaim();
    const [a, b] = [await claim.pod("a"), await claim.pod("b")];
    await a.volume.turn.take(new AbortController().signal);
    claim.commit("two");
    for (let minutes = 0; minutes < 70; minutes++) {
      claim.clock.pass(10_000);
      for (let turn = 0; turn < 5; turn++) {
        await a.volume.tend();
        await b.volume.tend();
        claim.clock.pass(10_000);
      }
      await b.round();
      if (minutes < 50) assert.equal(b.phase(), "waiting");
    }
    assert.equal(b.phase(), "settled");
  });

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
    clock.pass(5_000);
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
