import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { DAY_MS, NO_USAGE, dayEnd, savedFor, usageAt } from "#core/budget.ts";
import type { Usage } from "#core/budget.ts";
import { hold, permission } from "#core/permission.ts";
import type { Facts, Moment, Rules } from "#core/permission.ts";
import { FULL, take } from "#core/rate.ts";
import { windows } from "#core/window.ts";

const NOON = Date.parse("2026-11-22T12:00:00Z");
const DAY = Math.floor(NOON / DAY_MS);
const rules: Rules = {
  hold: false,
  downloadWindow: undefined,
  swapWindow: undefined,
  downloadBudget: undefined,
  restartSpacing: 600_000,
  holdLimit: 3_600_000,
};
const facts: Facts = {
  now: NOON,
  urgent: false,
  first: false,
  usage: { day: DAY, bytes: 0 },
  dayRanMs: 0,
  leasedUntil: null,
  heldMs: 0,
  sinceRestartMs: null,
};
const night = windows.parse("0 2 * * * 4h");
const at = (text: string): number => Date.parse(text);

function why(moment: Moment, stated: Partial<Rules>, known: Partial<Facts> = {}): unknown {
  const given = permission(moment, { ...rules, ...stated }, { ...facts, ...known });
  return given.go ? "go" : [given.reason, given.until];
}

describe("what an operator states", () => {
  test("is nothing by default, and then nothing is waited for", () => {
    assert.equal(why("download", {}), "go");
    assert.equal(why("swap", {}), "go");
  });

  test("as a hold stops both, for ever or until a time, urgent or not", () => {
    for (const moment of ["download", "swap"] as const)
      for (const urgent of [false, true]) {
        assert.deepEqual(why(moment, { hold: true }, { urgent }), ["held", null]);
        assert.deepEqual(why(moment, { hold: NOON + 1 }, { urgent }), ["held", NOON + 1]);
        assert.equal(why(moment, { hold: NOON }, { urgent }), "go");
      }
  });

  test("as a window is for what it says, and not for what is urgent", () => {
    const opens = at("2026-11-23T02:00:00Z");
    assert.deepEqual(why("download", { downloadWindow: night }), ["download_window", opens]);
    assert.equal(why("swap", { downloadWindow: night }), "go");
    assert.deepEqual(why("swap", { swapWindow: night }), ["swap_window", opens]);
    assert.equal(why("download", { swapWindow: night }), "go");
    assert.equal(why("swap", { swapWindow: night }, { urgent: true }), "go");
    const open = permission(
      "download",
      { ...rules, downloadWindow: night },
      { ...facts, now: opens },
    );
    assert.deepEqual(open, { go: true, until: at("2026-11-23T06:00:00Z") });
  });

  test("as a budget ends with the day, and is not for what is urgent", () => {
    const spent = { usage: { day: DAY, bytes: 1000 } };
    assert.equal(why("download", { downloadBudget: 1001 }, spent), "go");
    const midnight = at("2026-11-23T00:00:00Z");
    assert.deepEqual(why("download", { downloadBudget: 1000 }, spent), [
      "download_budget",
      midnight,
    ]);
    assert.equal(why("download", { downloadBudget: 1000 }, { ...spent, urgent: true }), "go");
    assert.equal(why("swap", { downloadBudget: 1000 }, spent), "go");
  });

  test("as a spacing keeps restarts apart, but for what is urgent", () => {
    const known = { sinceRestartMs: 599_000 };
    assert.deepEqual(why("swap", {}, known), ["spacing", NOON + 1_000]);
    assert.equal(why("swap", {}, { sinceRestartMs: 600_000 }), "go");
    assert.equal(why("swap", {}, { ...known, urgent: true }), "go");
    assert.equal(why("download", {}, known), "go");
  });

  test("about updates is not for the first release; what it states about bytes is", () => {
    const first = { first: true };
    assert.equal(why("download", { hold: true, downloadWindow: night }, first), "go");
    const spent = { ...first, usage: { day: DAY, bytes: 10 } };
    assert.ok(Array.isArray(why("download", { downloadBudget: 10 }, spent)));
  });

  test("as a hold is written as it was meant", () => {
    for (const text of ["true", "false", "2026-03-01T06:00:00Z"]) {
      const value = hold.parse(text);
      assert.ok(value !== undefined);
      assert.equal(hold.format(value), text);
    }
    for (const text of ["yes", "2026-03-01", "2026-02-30T06:00:00Z", ""])
      assert.equal(hold.parse(text), undefined);
  });
});

describe("a lease of the application", () => {
  test("holds a swap and no download, also what is urgent, until it ends", () => {
    const known = { leasedUntil: NOON + 5_000, urgent: true };
    assert.deepEqual(why("swap", {}, known), ["app_lease", NOON + 5_000]);
    assert.equal(why("download", {}, known), "go");
  });

  test("holds one release no longer than hold-limit", () => {
    const known = { leasedUntil: NOON + 7_200_000 };
    assert.deepEqual(why("swap", {}, { ...known, heldMs: 3_599_999 }), ["app_lease", NOON + 1]);
    assert.equal(why("swap", {}, { ...known, heldMs: 3_600_000 }), "go");
  });
});

describe("a wait", () => {
  test("that has an end is over then, if nothing else has come up, and not before", () => {
    const moments = fc.record({
      now: fc.integer({ min: NOON, max: NOON + 9 * DAY_MS }),
      bytes: fc.integer({ min: 0, max: 2000 }),
      leasedUntil: fc.option(fc.integer({ min: NOON, max: NOON + 9 * DAY_MS })),
      since: fc.option(fc.integer({ min: 0, max: 2_000_000 })),
      hold: fc.oneof(fc.constant(false), fc.integer({ min: NOON, max: NOON + 9 * DAY_MS })),
      moment: fc.constantFrom("download", "swap"),
    });
    const stated = { ...rules, downloadWindow: night, swapWindow: night, downloadBudget: 1000 };
    fc.assert(
      fc.property(moments, ({ now, bytes, leasedUntil, since, hold, moment }) => {
        const begin = { ...facts, now, usage: { day: Math.floor(now / DAY_MS), bytes } };
        /** The same site at a later time. */
        const later = (time: number): Facts => ({
          ...begin,
          now: time,
          usage: usageAt(begin.usage, time, time - now),
          dayRanMs: time - now,
          leasedUntil: leasedUntil !== null && leasedUntil > time ? leasedUntil : null,
          heldMs: time - now,
          sinceRestartMs: since === null ? null : since + time - now,
        });
        let time = now;
        for (let turn = 0; turn < 10; turn++) {
          const given = permission(moment, { ...stated, hold }, later(time));
          if (given.go) return;
          assert.ok(given.until !== null && given.until > time, JSON.stringify(given));
          const before = permission(moment, { ...stated, hold }, later(given.until - 1));
          assert.equal(before.go, false);
          time = given.until;
        }
        assert.fail("it waits for ever");
      }),
      { numRuns: 500 },
    );
  });
});

describe("the budget of a day", () => {
  const used: Usage = { day: DAY, bytes: 700 };

  test("is new on the next day, and not when the clock goes back", () => {
    assert.deepEqual(usageAt(used, NOON + DAY_MS, 0), { day: DAY + 1, bytes: 0 });
    for (const now of [NOON, NOON - DAY_MS, NOON - 300 * DAY_MS, 0])
      assert.deepEqual(usageAt(used, now, 0), used);
  });

  test("is new after as much time as a day has, where the clock was ahead and is not any more", () => {
    const ahead = { day: DAY + 300, bytes: 700 };
    assert.deepEqual(usageAt(ahead, NOON, DAY_MS - 1), ahead);
    assert.deepEqual(usageAt(ahead, NOON, DAY_MS), { day: DAY + 301, bytes: 0 });
    assert.equal(dayEnd(ahead, NOON, 1_000), NOON + DAY_MS - 1_000);
  });

  test("is never spent twice, whatever clocks do and however often the sidecar starts", () => {
    const event = fc.oneof(
      { weight: 6, arbitrary: fc.record({ bytes: fc.integer({ min: 1, max: 65_536 }) }) },
      { weight: 2, arbitrary: fc.record({ passMs: fc.integer({ min: 0, max: DAY_MS / 3 }) }) },
      { weight: 1, arbitrary: fc.record({ clock: fc.integer({ min: -400, max: 2 }) }) },
      { weight: 1, arbitrary: fc.constant({ crash: true as const }) },
    );
    const budget = 500_000;
    fc.assert(
      fc.property(fc.array(event, { maxLength: 200, size: "max" }), (events) => {
        let [real, wall, ran] = [0, NOON, 0];
        let usage: Usage = usageAt(NO_USAGE, wall, 0);
        let saved = usage;
        const spent = new Map<number, number>();
        for (const happened of events) {
          const after = usageAt(usage, wall, ran);
          if (after.day !== usage.day) ran = 0;
          usage = after;
          if ("bytes" in happened && usage.bytes < budget) {
            usage = { ...usage, bytes: usage.bytes + happened.bytes };
            if (usage.day !== saved.day || usage.bytes > saved.bytes)
              saved = savedFor(usage, budget);
            spent.set(usage.day, (spent.get(usage.day) ?? 0) + happened.bytes);
          }
          if ("passMs" in happened) {
            real += happened.passMs;
            wall += happened.passMs;
            ran += happened.passMs;
          }
          if ("clock" in happened) wall += happened.clock * DAY_MS;
          if ("crash" in happened) [usage, ran] = [saved, 0];
          assert.ok(saved.bytes >= usage.bytes || saved.day < usage.day);
        }
        for (const bytes of spent.values()) assert.ok(bytes < budget + 65_536, String(bytes));
        // Days that a clock made up are bounded by those that it went forward and those that passed.
        assert.ok(real >= 0);
      }),
      { numRuns: 300 },
    );
  });

  test("is saved ahead of what is spent, by a sixty-fourth of it and never past its end", () => {
    assert.deepEqual(savedFor(used, 64_000_000), { day: DAY, bytes: 700 + 1_000_000 });
    assert.deepEqual(savedFor(used, 100_000), { day: DAY, bytes: 700 + 65_536 });
    assert.deepEqual(savedFor(used, 1_000), { day: DAY, bytes: 1_000 });
    assert.deepEqual(savedFor({ day: DAY, bytes: 1_200 }, 1_000), { day: DAY, bytes: 1_200 });
    assert.equal(savedFor(used, 1e12).bytes, 700 + 4 * 1024 * 1024);
  });
});

describe("a rate", () => {
  test("is held to the byte over any time, but for the second that may come at once", () => {
    const chunk = fc.record({
      bytes: fc.integer({ min: 1, max: 200_000 }),
      idleMs: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 5_000 })),
    });
    const rates = fc.integer({ min: 1024, max: 10_000_000 });
    fc.assert(
      fc.property(rates, fc.array(chunk, { minLength: 1, maxLength: 60 }), (rate, chunks) => {
        let bucket = FULL;
        let now = 1_000;
        const came: { readonly at: number; readonly bytes: number }[] = [];
        for (const { bytes, idleMs } of chunks) {
          now += idleMs;
          const [after, waitMs] = take(bucket, bytes, now, rate);
          came.push({ at: now, bytes });
          bucket = after;
          now += waitMs;
        }
        for (const [first, { at: begin }] of came.entries()) {
          let sum = 0;
          for (const [index, { at, bytes }] of came.entries()) {
            if (index < first) continue;
            const allowed = rate + ((at - begin) * rate) / 1000;
            // What came last was waited for afterwards.
            assert.ok(sum <= allowed + 1e-3 * rate, `${sum} of ${allowed}`);
            sum += bytes;
          }
        }
      }),
      { numRuns: 300 },
    );
  });

  test("is used up: who never idles gets all of it", () => {
    let bucket = FULL;
    let now = 0;
    let sum = 0;
    for (let turn = 0; turn < 1_000; turn++) {
      const [after, waitMs] = take(bucket, 65_536, now, 100_000);
      bucket = after;
      now += waitMs;
      sum += 65_536;
    }
    assert.ok(Math.abs(sum / (now / 1000) / 100_000 - 1) < 0.01);
  });
});
