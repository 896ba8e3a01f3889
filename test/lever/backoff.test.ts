import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, test } from "node:test";
import { within } from "../../sidecar/within.ts";
import { fastClock } from "../hooks/support.ts";
import { manualClock } from "../support/clock.ts";
import { application, committed, openSite } from "../update/support/site.ts";
import type { Application } from "../update/support/site.ts";
import { openWorld } from "../update/support/world.ts";

/** An application whose second and later restarts the kubelet holds back for a while. */
function heldBack(
  payload: string,
  clock: ReturnType<typeof fastClock>,
  forMs: number,
): Application {
  const app = application(payload);
  let begun: number | undefined;
  let over = 0;
  const current = (): number => (begun === undefined ? over : clock.monotonic() - begun);
  return {
    ...app,
    backOffMs: () => Math.min(600_000, current()),
    async restart(signal) {
      begun = clock.monotonic();
      try {
        await clock.sleep(forMs, signal);
        await app.restart(signal);
      } finally {
        over = current();
        begun = undefined;
      }
    },
  };
}

describe("a trial while the kubelet holds the container back", () => {
  test("takes as much longer", async () => {
    await using world = await openWorld();
    // The trial may take four minutes, the kubelet takes six, and the machine's time is two hundred times as fast.
    const clock = fastClock(200);
    const payload = join(world.folder, "site");
    await world.publish("1.0.0", { health: "good", mark: "one" });
    await using site = await openSite({
      payload,
      url: world.origin.url,
      root: world.root,
      clock,
      application: heldBack(payload, clock, 360_000),
      settings: { pollInterval: 20_000, trialDuration: 10_000, trialTimeout: 240_000 },
    });
    await site.until("the first release", committed("1.0.0"));
    await world.publish("1.1.0", { health: "good", mark: "two" });
    const { blocked } = await site.until(
      "an end of the trial",
      (status) => status.blocked !== null || committed("1.1.0")(status),
    );
    assert.equal(blocked, null);
  });
});

describe("a task with time that does not count", () => {
  test("may take as much longer as there is of it, and no more", async () => {
    const clock = manualClock();
    let extra = 0;
    let given: boolean | undefined;
    const never = (signal: AbortSignal): Promise<void> => clock.sleep(1e9, signal);
    const task = within(clock, 10_000, new AbortController().signal, never, () => extra);
    const done = task.then((inTime) => (given = inTime));
    extra = 5_000;
    await clock.advance(14_999);
    assert.equal(given, undefined);
    extra = 6_000;
    await clock.advance(1_000);
    assert.equal(given, undefined);
    await clock.advance(1_000);
    assert.equal(given, false);
    await done;
  });

  test("is over in time when it ends", async () => {
    const clock = manualClock();
    const quick = (signal: AbortSignal): Promise<void> => clock.sleep(9_000, signal);
    const done = within(clock, 10_000, new AbortController().signal, quick);
    await clock.advance(9_000);
    assert.equal(await done, true);
  });
});
