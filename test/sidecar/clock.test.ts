import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";
import { describe, test } from "node:test";
import { LONGEST_TIMER_MS, sleepBy } from "#core/clock.ts";
import { clock as sidecarClock } from "../../sidecar/main.ts";
import { clock as webhookClock } from "../../webhook/main.ts";
import { realClock } from "../support/real-clock.ts";

describe("a sleep", () => {
  for (const [who, clock] of Object.entries({ sidecarClock, webhookClock, realClock }))
    for (const ms of [LONGEST_TIMER_MS + 1, 30 * 86_400_000, Number.POSITIVE_INFINITY])
      test(`of ${ms} ms by ${who} does not end at once, but with its signal`, async () => {
        const stop = new AbortController();
        const sleeping = clock.sleep(ms, stop.signal).then(() => "woken" as const);
        // A timer that overflows is set for a millisecond: it would end before this one.
        assert.equal(await Promise.race([sleeping, delay(30, "asleep" as const)]), "asleep");
        const reason = new Error("enough");
        stop.abort(reason);
        await assert.rejects(sleeping, (error) => error === reason);
      });

  test("lasts for as long as was asked for, with no timer that is too long", async () => {
    for (const ms of [0, 1, LONGEST_TIMER_MS, LONGEST_TIMER_MS + 1, 90 * 86_400_000, -1]) {
      const timers: number[] = [];
      const sleep = sleepBy((piece) => Promise.resolve(timers.push(piece)));
      await sleep(ms, new AbortController().signal);
      assert.equal(
        timers.reduce((sum, piece) => sum + piece, 0),
        Math.max(0, ms),
      );
      assert.ok(timers.every((piece) => piece <= LONGEST_TIMER_MS));
    }
  });
});
