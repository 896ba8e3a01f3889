import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { fromEnv } from "#core/settings.ts";
import { manualClock } from "../support/clock.ts";
import type { ManualClock } from "../support/clock.ts";
import type { Target } from "#core/update-state.ts";
import type { Replica } from "../../sidecar/claim/replica.ts";
import { spreadMs, spreadReplica } from "../../sidecar/claim/swap-spread.ts";

const HOUR_MS = 3_600_000;
const settingsOf = (pod: string, spread: string): ReturnType<typeof fromEnv> =>
  fromEnv({
    EDGESYNC_CHANNEL: "web/stable",
    EDGESYNC_POD_NAME: pod,
    EDGESYNC_SWAP_SPREAD: spread,
  });
const targetOf = (sequence: number): Target => ({
  channel: "web/stable",
  sequence,
  version: `1.${sequence}.0`,
});

/** Asks each minute, as a site does whose swap nothing else stands in the way of. */
async function asking(clock: ManualClock, replica: Replica, forMs: number): Promise<string | null> {
  let answer = await replica.take(signal);
  for (let passedMs = 0; passedMs < forMs; passedMs += 60_000) {
    await clock.advance(Math.min(60_000, forMs - passedMs));
    answer = await replica.take(signal);
  }
  return answer;
}

const signal = new AbortController().signal;

describe("swap-spread", () => {
  test("gives each pod a share of it that is its own and stays the same", () => {
    const pods = Array.from({ length: 1_000 }, (_, index) => `web-${index}`);
    const shares = pods.map((pod) => spreadMs(settingsOf(pod, "1h")) / HOUR_MS);
    assert.deepEqual(
      shares,
      pods.map((pod) => spreadMs(settingsOf(pod, "1h")) / HOUR_MS),
    );
    for (let tenth = 0; tenth < 10; tenth++) {
      const within = shares.filter((share) => Math.floor(share * 10) === tenth);
      assert.ok(within.length > 60 && within.length < 140, `${within.length} of 1000 in a tenth`);
    }
  });

  test("is waited for once for each release, also by an application that wants it later", async () => {
    const clock = manualClock();
    const settings = settingsOf("web-1", "1h");
    const waitMs = spreadMs(settings);
    assert.ok(waitMs > 600_000, "long enough to tell");
    const replica = spreadReplica(settings, clock);
    replica.want?.(targetOf(1));
    assert.equal(await asking(clock, replica, waitMs - 1), "replica");
    assert.equal(await asking(clock, replica, 1), null);
    // As a site does that waits for something else.
    await replica.release();
    replica.want?.(targetOf(1));
    assert.equal(await asking(clock, replica, 1), null);
    replica.want?.(targetOf(2));
    assert.equal(await asking(clock, replica, 1), "replica");
  });

  test("that is longer than a window goes on in the next one", async () => {
    const clock = manualClock();
    const settings = settingsOf("web-1", "8h");
    const waitMs = spreadMs(settings);
    assert.ok(waitMs > HOUR_MS, "longer than a window");
    const replica = spreadReplica(settings, clock);
    const nights = Math.ceil(waitMs / HOUR_MS);
    for (let night = 1; night <= nights; night++) {
      replica.want?.(targetOf(1));
      const answer = await asking(clock, replica, HOUR_MS);
      assert.equal(answer, night < nights ? "replica" : null, `night ${night} of ${nights}`);
      await replica.release();
      // What passes while the window is shut would bring all replicas to its opening.
      await clock.advance(23 * HOUR_MS);
    }
  });

  test("does not delay anything where it is not set", async () => {
    const replica = spreadReplica(settingsOf("web-1", "0s"), manualClock());
    assert.equal(await replica.take(signal), null);
  });
});
