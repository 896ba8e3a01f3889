import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import {
  expiryOf,
  newCredential,
  next,
  plan,
  requestsPerHour,
  resumedCredential,
} from "#core/lease.ts";
import type { Credential, Event } from "#core/lease.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const REFRESH = 5 * MINUTE;

function acquired(durationMs: number, renewable = true, random = 0): Credential {
  const grant = { durationMs, renewable };
  return next(newCredential(0, REFRESH), { kind: "acquired", grant }, 0, random);
}

describe("a renewable lease", () => {
  test("is renewed once 50 to 60 % of it are over, as chance has it", () => {
    assert.deepEqual(plan(acquired(HOUR, true, 0)), { action: "renew", at: 30 * MINUTE });
    const latest = plan(acquired(HOUR, true, 0.999));
    assert.ok(latest.at > 35 * MINUTE && latest.at < 36 * MINUTE);
  });

  test("is tried again while renewals fail, and given up for one new credential at 95 %", () => {
    let state = acquired(HOUR);
    const actions: string[] = [];
    for (let turn = 0; turn < 50; turn++) {
      const { action, at } = plan(state);
      actions.push(action);
      if (action === "acquire") {
        assert.equal(at, 0.95 * HOUR);
        break;
      }
      state = next(state, { kind: "failed", isSlow: false }, at, 0.9);
    }
    assert.ok(actions.length > 5);
    assert.equal(actions.filter((action) => action === "acquire").length, 1);
  });

  test("then retries the new credential with growing pauses, not at once", () => {
    const late = 0.95 * HOUR;
    const first = next(acquired(HOUR), { kind: "failed", isSlow: false }, late, 0.5);
    assert.equal(plan(first).action, "acquire");
    assert.ok(plan(first).at >= late + 1_000);
    const second = next(first, { kind: "failed", isSlow: false }, plan(first).at, 0.99);
    assert.ok(plan(second).at > plan(first).at + 1_000);
  });

  test("is replaced in time when a renewal grants less than was asked for", () => {
    const grant = { durationMs: 10 * MINUTE, renewable: true };
    const state = next(acquired(HOUR), { kind: "renewed", grant }, HOUR / 2, 0);
    assert.deepEqual(plan(state), { action: "acquire", at: HOUR / 2 + 8 * MINUTE });
    assert.equal(expiryOf(state), HOUR / 2 + 10 * MINUTE);
  });

  test("is used to its end, and never asked about again, when Vault refuses to renew it", () => {
    const state = next(acquired(HOUR), { kind: "unrenewable" }, HOUR / 2, 0);
    assert.deepEqual(plan(state), { action: "acquire", at: HOUR / 2 + 24 * MINUTE });
    assert.equal(expiryOf(state), HOUR);
  });

  test("is replaced at once when Vault knows it no more", () => {
    const state = next(acquired(HOUR), { kind: "lost" }, 31 * MINUTE, 0);
    assert.deepEqual(plan(state), { action: "acquire", at: 31 * MINUTE });
  });

  test("is replaced before the end of the token that it belongs to", () => {
    const bounded: Event = { kind: "bounded", expiresAt: 20 * MINUTE };
    const state = next(acquired(HOUR), bounded, 10 * MINUTE, 0.999);
    assert.equal(plan(state).action, "acquire");
    assert.ok(plan(state).at >= 10 * MINUTE && plan(state).at < 15 * MINUTE + 1);
    assert.equal(expiryOf(state), 20 * MINUTE);
  });
});

describe("a lease that is about to end while Vault fails", () => {
  test("is tried for again before half of what is left is over, whatever the dice", () => {
    const dice = fc.double({ min: 0, max: 0.999999, noNaN: true });
    fc.assert(
      fc.property(fc.integer({ min: 90_000, max: 10 * HOUR }), dice, (durationMs, random) => {
        let state = acquired(durationMs);
        for (let attempt = 0; attempt < 200; attempt++) {
          const { at } = plan(state);
          const left = durationMs - at;
          if (left < MINUTE) return;
          state = next(state, { kind: "failed", isSlow: attempt % 2 === 0 }, at, random);
          assert.ok(plan(state).at <= at + Math.max(5_000, left / 2));
        }
      }),
    );
  });

  test("and has ended is tried for as rarely as everything", () => {
    const late = next(acquired(HOUR), { kind: "failed", isSlow: false }, HOUR + 1, 0.5);
    const pauses: number[] = [];
    let state = late;
    for (let attempt = 0; attempt < 12; attempt++) {
      const { at } = plan(state);
      state = next(state, { kind: "failed", isSlow: false }, at, 0.5);
      pauses.push(plan(state).at - at);
    }
    assert.equal(pauses.at(-1), 150_000);
  });
});

describe("a lease that cannot be renewed", () => {
  test("is replaced once 80 to 90 % of it are over", () => {
    assert.deepEqual(plan(acquired(HOUR, false, 0)), { action: "acquire", at: 48 * MINUTE });
    assert.ok(plan(acquired(HOUR, false, 0.999)).at <= 54 * MINUTE);
  });

  test("is replaced earlier where the pod says so, also by the next process", () => {
    const early = newCredential(0, REFRESH, 0.15);
    const grant = { durationMs: HOUR, renewable: false };
    for (const [random, part] of [
      [0, 0.15],
      [1, 0.25],
    ] as const) {
      const { at } = plan(next(early, { kind: "acquired", grant }, 0, random));
      assert.ok(Math.abs(at - part * HOUR) < 1_000, `${at}`);
    }
    const resumed = resumedCredential({ ...grant, remainingMs: HOUR }, 0, REFRESH, 0.15);
    assert.ok(Math.abs(plan(resumed).at - 0.15 * HOUR) < 1_000);
    // A lease that is renewed is another matter.
    const leased = next(early, { kind: "acquired", grant: { ...grant, renewable: true } }, 0, 0);
    assert.deepEqual(plan(leased), { action: "renew", at: 0.5 * HOUR });
  });
});

describe("what has no lease", () => {
  test("is read again at the refresh interval, a tenth of it either way", () => {
    const read = (random: number): number =>
      plan(next(newCredential(0, REFRESH), { kind: "acquired", grant: undefined }, 0, random)).at;
    assert.equal(read(0), 0.9 * REFRESH);
    assert.ok(read(0.999) < 1.1 * REFRESH);
  });

  test("is read when Vault says that there will be something new, and not before", () => {
    const event: Event = { kind: "acquired", grant: undefined, readAgainMs: HOUR };
    assert.equal(plan(next(newCredential(0, REFRESH), event, 0, 0)).at, HOUR);
  });
});

describe("Retry-After", () => {
  test("is obeyed, also past the time for a new credential", () => {
    const event: Event = { kind: "failed", isSlow: false, retryAfterMs: 5 * MINUTE };
    const state = next(acquired(10 * MINUTE), event, 9 * MINUTE, 0);
    assert.equal(plan(state).at, 14 * MINUTE);
  });

  test("is not obeyed beyond ten minutes", () => {
    const event: Event = { kind: "failed", isSlow: false, retryAfterMs: 100 * HOUR };
    assert.equal(plan(next(newCredential(0, REFRESH), event, 0, 0)).at, 10 * MINUTE);
  });
});

describe("a denial", () => {
  test("is tried again slowly, and for ever", () => {
    let state = newCredential(0, REFRESH);
    for (let attempt = 0; attempt < 40; attempt++) {
      const { at } = plan(state);
      state = next(state, { kind: "failed", isSlow: true }, at, 0.5);
      assert.ok(plan(state).at - at >= 5_000);
      assert.ok(plan(state).at - at <= 300_000);
    }
  });
});

describe("a credential that an earlier process left behind", () => {
  test("is renewed at once, because only Vault knows what is left of it", () => {
    const lease = { durationMs: HOUR, renewable: true, remainingMs: -5 * HOUR };
    assert.deepEqual(plan(resumedCredential(lease, 7, REFRESH)), { action: "renew", at: 7 });
  });

  test("is not replaced early when it cannot be renewed", () => {
    const lease = { durationMs: HOUR, renewable: false, remainingMs: HOUR / 2 };
    assert.deepEqual(plan(resumedCredential(lease, 0, REFRESH)), {
      action: "acquire",
      at: 18 * MINUTE,
    });
  });

  test("has no more left than it was granted, however the clock was set", () => {
    const lease = { durationMs: HOUR, renewable: true, remainingMs: 9 * HOUR };
    assert.equal(expiryOf(resumedCredential(lease, 0, REFRESH)), HOUR);
  });
});

/** Whatever a server, or somebody in its place, may answer. */
const anyEvent: fc.Arbitrary<Event> = fc.oneof(
  fc.record({
    kind: fc.constant("acquired" as const),
    grant: fc.option(fc.record({ durationMs: fc.nat(4 * HOUR), renewable: fc.boolean() }), {
      nil: undefined,
    }),
    readAgainMs: fc.option(fc.nat(HOUR), { nil: undefined }),
  }),
  fc.record({
    kind: fc.constant("renewed" as const),
    grant: fc.record({ durationMs: fc.nat(4 * HOUR), renewable: fc.boolean() }),
  }),
  fc.record({
    kind: fc.constant("failed" as const),
    isSlow: fc.boolean(),
    retryAfterMs: fc.nat(HOUR),
  }),
  fc.constant({ kind: "unrenewable" as const }),
  fc.constant({ kind: "lost" as const }),
  fc.record({ kind: fc.constant("bounded" as const), expiresAt: fc.nat(4 * HOUR) }),
);

describe("no storm", () => {
  test("comes of any sequence of answers: at most 240 requests in any hour for one secret", () => {
    assert.equal(requestsPerHour(REFRESH), 240);
    const turns = fc.array(
      fc.record({ event: anyEvent, random: fc.double({ min: 0, max: 0.999, noNaN: true }) }),
      { minLength: 1, maxLength: 12 },
    );
    fc.assert(
      fc.property(turns, fc.constantFrom(1_000, 10_000, REFRESH), (answers, refreshMs) => {
        let state = newCredential(0, refreshMs);
        const sent: number[] = [];
        let now = 0;
        // The answers come round again and again: a server that is wrong in the same way for hours.
        for (let turn = 0; turn < 6_000 && now < 3 * HOUR; turn++) {
          now = Math.max(now, plan(state).at);
          sent.push(now);
          state = next(state, { kind: "asked" }, now, 0);
          const answer = answers[turn % answers.length];
          if (answer !== undefined) state = next(state, answer.event, now, answer.random);
        }
        const limit = requestsPerHour(refreshMs);
        for (let first = 0; first + limit < sent.length; first++)
          assert.ok((sent[first + limit] ?? 0) - (sent[first] ?? 0) >= HOUR - 1);
      }),
      { numRuns: 150 },
    );
  });

  test("comes of a failing renewal: until 95 % nothing but renewals is asked for", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 10_000, max: 10 * HOUR }),
        fc.array(fc.double({ min: 0, max: 0.999, noNaN: true }), { minLength: 5, maxLength: 5 }),
        (durationMs, dice) => {
          let state = acquired(durationMs, true, dice[0] ?? 0);
          for (let turn = 0; turn < 200; turn++) {
            const { action, at } = plan(state);
            if (action === "acquire") {
              assert.ok(at >= 0.95 * durationMs);
              return;
            }
            assert.ok(at < 0.95 * durationMs);
            state = next(state, { kind: "asked" }, at, 0);
            state = next(state, { kind: "failed", isSlow: false }, at, dice[turn % 5] ?? 0);
          }
        },
      ),
    );
  });

  test("keeps a credential alive through honest answers: it is never held past its end", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 60_000, max: 10 * HOUR }),
        fc.integer({ min: 60_000, max: 100 * HOUR }),
        fc.double({ min: 0, max: 0.999, noNaN: true }),
        (ttl, maxTtl, random) => {
          let state = newCredential(0, REFRESH);
          let issued = 0;
          for (let turn = 0; turn < 100; turn++) {
            const { action, at } = plan(state);
            const end = expiryOf(state);
            if (end !== undefined) assert.ok(at <= end);
            state = next(state, { kind: "asked" }, at, random);
            if (action === "acquire") issued = at;
            const durationMs = Math.min(ttl, issued + maxTtl - at);
            const grant = { durationMs, renewable: true };
            state = next(
              state,
              { kind: action === "acquire" ? "acquired" : "renewed", grant },
              at,
              random,
            );
          }
        },
      ),
    );
  });
});
