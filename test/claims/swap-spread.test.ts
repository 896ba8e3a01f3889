import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { fromEnv } from "#core/settings.ts";
import { manualClock } from "../support/clock.ts";
import { spreadMs, spreadReplica } from "../../sidecar/swap-spread.ts";

const HOUR_MS = 3_600_000;
const settingsOf = (pod: string, spread: string): ReturnType<typeof fromEnv> =>
  fromEnv({
    EDGESYNC_CHANNEL: "web/stable",
    EDGESYNC_POD_NAME: pod,
    EDGESYNC_SWAP_SPREAD: spread,
  });
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

  test("is waited for from the first time that a swap is asked for, once for each swap", async () => {
    const clock = manualClock();
    const settings = settingsOf("web-1", "1h");
    const waitMs = spreadMs(settings);
    assert.ok(waitMs > 600_000, "long enough to tell");
    const replica = spreadReplica(settings, clock);
    const asking = async (forMs: number): Promise<string | null> => {
      let answer = await replica.take(signal);
      for (let passedMs = 0; passedMs < forMs; passedMs += 60_000) {
        await clock.advance(Math.min(60_000, forMs - passedMs));
        answer = await replica.take(signal);
      }
      return answer;
    };
    assert.equal(await asking(waitMs - 1), "replica");
    assert.equal(await asking(1), null);
    await replica.release();
    assert.equal(await asking(1), "replica");
  });

  test("does not delay anything where it is not set", async () => {
    const replica = spreadReplica(settingsOf("web-1", "0s"), manualClock());
    assert.equal(await replica.take(signal), null);
  });
});
