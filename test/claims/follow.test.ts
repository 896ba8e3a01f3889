import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { nextFollow } from "#core/follow.ts";
import type { Follow, FollowEvent, FollowStep } from "#core/follow.ts";
import type { Policy } from "#core/policy.ts";

const policy: Policy = {
  trialDurationMs: 30,
  trialTimeoutMs: 300,
  trialStarts: 2,
  healthFailureThreshold: 3,
  graceMs: 30,
  judged: true,
  restarts: true,
  notices: [],
};

const bank = fc.constantFrom("one", "two", "three");
const verdict = fc.constantFrom("healthy" as const, "unhealthy" as const, "unknown" as const);
const event: fc.Arbitrary<FollowEvent> = fc.oneof(
  fc.record({
    event: fc.constant("started" as const),
    link: fc.option(bank),
    settled: fc.boolean(),
    committed: fc.option(bank),
  }),
  fc.record({
    event: fc.constant("committed" as const),
    bank,
    missing: fc.boolean(),
  }),
  ...(["turn", "restarted", "late"] as const).map((name) => fc.constant({ event: name })),
  fc.record({ event: fc.constant("health" as const), verdict, passedMs: fc.nat(100) }),
);

interface Seen {
  state: Follow;
  link: string | null;
  hasTurn: boolean;
  committed: string | null;
}

/** Performs the steps of a transition as far as they need no time. */
function perform(seen: Seen, steps: readonly FollowStep[]): void {
  for (const step of steps) {
    if (step.step === "link") {
      assert.equal(step.bank, seen.committed, "the link names nothing but what is committed");
      seen.link = step.bank;
    }
    if (step.step === "restart") assert.ok(seen.hasTurn, "no lever is pulled without the turn");
    if (step.step === "end-turn") seen.hasTurn = false;
  }
}

function feed(seen: Seen, next: FollowEvent): void {
  if (next.event === "turn" && seen.state.phase !== "waiting") return;
  if (next.event === "started") {
    // Another process, or the same after it has led: a turn of before is not had any more.
    seen.hasTurn = false;
    seen.link = next.link;
  }
  if (next.event === "started" || next.event === "committed")
    seen.committed = next.event === "started" ? next.committed : next.bank;
  if (next.event === "turn") {
    seen.hasTurn = true;
    // What was committed a moment ago is seen before the link is swapped.
    if (seen.state.phase === "waiting" && seen.state.to !== seen.committed) return;
  }
  const [state, steps] = nextFollow(seen.state, next, policy);
  seen.state = state;
  perform(seen, steps);
}

describe("a follower", () => {
  test("links nothing but what is committed, restarts in its turn only, and gives the turn back", () => {
    fc.assert(
      fc.property(fc.array(event, { maxLength: 60 }), (events) => {
        const seen: Seen = {
          state: { phase: "idle" },
          link: null,
          hasTurn: false,
          committed: null,
        };
        for (const one of events) {
          feed(seen, one);
          if (seen.state.phase === "settled" || seen.state.phase === "idle")
            assert.equal(seen.hasTurn, false, "who has swapped lets the next one");
        }
      }),
      { numRuns: 2_000 },
    );
  });

  test("is settled on what is committed soon after any history, whatever its workload is like", () => {
    fc.assert(
      fc.property(fc.array(event, { maxLength: 40 }), bank, verdict, (events, last, health) => {
        const seen: Seen = {
          state: { phase: "idle" },
          link: null,
          hasTurn: false,
          committed: null,
        };
        for (const one of events) feed(seen, one);
        for (let round = 0; round < 60; round++) {
          feed(seen, { event: "committed", bank: last, missing: false });
          const { phase } = seen.state;
          if (phase === "waiting") feed(seen, { event: "turn" });
          else if (phase === "restarting") feed(seen, { event: "restarted" });
          else if (phase === "watching")
            feed(seen, { event: "health", verdict: health, passedMs: 20 });
        }
        assert.deepEqual(
          [seen.state.phase, "bank" in seen.state && seen.state.bank],
          ["settled", last],
        );
      }),
    );
  });

  const started = (link: string | null, settled: boolean): ReturnType<typeof nextFollow> =>
    nextFollow({ phase: "idle" }, { event: "started", link, settled, committed: "two" }, policy);

  test("that starts anew takes what is committed, with nothing to restart", () => {
    assert.deepEqual(started(null, true), [
      { phase: "settled", bank: "two", outcome: null },
      [{ step: "link", bank: "two" }],
    ]);
  });

  test("whose link was moved and whose restart was not seen pulls its lever again", () => {
    assert.deepEqual(started("two", false)[1], [{ step: "await-turn" }]);
    assert.deepEqual(started("two", true)[1], []);
  });

  test("that led and was in a trial goes back to what is committed, in its turn", () => {
    assert.deepEqual(started("three", true)[1], [
      { step: "link", bank: "two" },
      { step: "await-turn" },
    ]);
  });

  test("whose bank was swept goes to what is committed at once", () => {
    const [state, steps] = nextFollow(
      { phase: "settled", bank: "one", outcome: null },
      { event: "committed", bank: "two", missing: true },
      policy,
    );
    assert.equal(state.phase, "waiting");
    assert.deepEqual(steps, [
      { step: "end-turn" },
      { step: "link", bank: "two" },
      { step: "await-turn" },
    ]);
  });

  test("with a workload that is not healthy says so and stays", () => {
    let state: Follow = {
      phase: "watching",
      bank: "two",
      spentMs: 30,
      healthyMs: null,
      failures: 0,
    };
    for (let check = 0; check < policy.healthFailureThreshold; check++)
      [state] = nextFollow(state, { event: "health", verdict: "unhealthy", passedMs: 5 }, policy);
    assert.deepEqual(state, { phase: "settled", bank: "two", outcome: "unhealthy" });
  });

  test("whose restart is not seen in time lets others go first and tries again", () => {
    assert.deepEqual(nextFollow({ phase: "restarting", bank: "two" }, { event: "late" }, policy), [
      { phase: "waiting", bank: "two", to: "two" },
      [{ step: "end-turn" }, { step: "await-turn" }],
    ]);
  });
});
