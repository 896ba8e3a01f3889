import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import type { ChannelDocument, Rollout } from "#core/channel-document.ts";
import {
  courseOf,
  isTurn,
  lookDelayMs,
  nextVersion,
  shareAt,
  siteNumber,
  turnOf,
} from "#core/rollout.ts";
import type { Course, Standing } from "#core/rollout.ts";

const SITES = 100_000;
const START = Date.parse("2026-03-01T06:00:00Z");
const HOUR = 3_600_000;
const schedule: Rollout = {
  start: "2026-03-01T06:00:00Z",
  duration: 86_400,
  percent: 100,
  paused: false,
  salt: "7",
  from: [{ platform: "linux-x64", version: "1.3.0" }],
};
const ticket = { site: "store-0042", app: "web", channel: "stable", salt: "7" };

function numbers(name: (index: number) => string, salt = "7"): Float64Array {
  return Float64Array.from({ length: SITES }, (_, index) =>
    siteNumber({ ...ticket, site: name(index), salt }),
  );
}

const NAMINGS: Readonly<Record<string, (index: number) => string>> = {
  "counted names": (index) => `store-${index}`,
  "addresses of nodes": (index) => `ip-10-${index >> 16}-${(index >> 8) & 255}-${index & 255}`,
  "random names": (index) => createHash("md5").update(String(index)).digest("hex"),
};

const anySchedule = fc.record({
  start: fc.constant(schedule.start),
  duration: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 30 * 86_400 })),
  percent: fc.oneof(
    fc.constantFrom(0, 100, 0.01),
    fc.double({ min: 0, max: 100, noNaN: true, noDefaultInfinity: true }),
  ),
});
const anyNumber = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });

describe("a site's number", () => {
  test("is the same on every machine", () => {
    // Made with another language's SHA-256.
    assert.equal(siteNumber(ticket), 0.4245472664753691);
    assert.equal(siteNumber({ ...ticket, site: "Straße-7" }), 0.46685349778628416);
  });

  test("depends on site, app, channel and salt, and on where one ends and the next begins", () => {
    const others = [
      { ...ticket, site: "store-0043" },
      { ...ticket, app: "api" },
      { ...ticket, channel: "edge" },
      { ...ticket, salt: "8" },
      { site: "a", app: "bc", channel: "stable", salt: "7" },
      { site: "ab", app: "c", channel: "stable", salt: "7" },
    ];
    assert.equal(new Set([ticket, ...others].map(siteNumber)).size, others.length + 1);
  });

  test("is in [0,1), whatever the names are", () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (site, salt) => {
        const number = siteNumber({ ...ticket, site, salt });
        assert.ok(number >= 0 && number < 1);
      }),
    );
  });

  for (const [naming, name] of Object.entries(NAMINGS))
    test(`spreads 100,000 sites with ${naming} so that the share follows the schedule within 1 %`, () => {
      const sorted = numbers(name).toSorted();
      const installed = (share: number): number => {
        let low = 0;
        let high = SITES;
        while (low < high) {
          const middle = (low + high) >> 1;
          if ((sorted[middle] ?? 1) < share) low = middle + 1;
          else high = middle;
        }
        return low / SITES;
      };
      fc.assert(
        fc.property(anySchedule, fc.integer({ min: -HOUR, max: 31 * 24 * HOUR }), (plan, at) => {
          const share = shareAt(plan, START + at);
          assert.ok(Math.abs(installed(share) - share) < 0.01);
        }),
        { numRuns: 2_000 },
      );
    });

  test("gives another order with another salt: who was early is not early again", () => {
    const name = NAMINGS["counted names"] ?? String;
    const [first, second] = [numbers(name, "7"), numbers(name, "8")];
    const early = first.reduce((sum, number) => sum + Number(number < 0.1), 0);
    const twice = first.reduce(
      (sum, number, index) => sum + Number(number < 0.1 && (second[index] ?? 1) < 0.1),
      0,
    );
    assert.ok(Math.abs(twice / early - 0.1) < 0.02, `${twice} of ${early}`);
  });
});

describe("a turn", () => {
  test("is the first millisecond at which the share passes the number, or never", () => {
    fc.assert(
      fc.property(anySchedule, anyNumber, (plan, number) => {
        const turn = turnOf(plan, number);
        if (turn === null) assert.ok(number >= plan.percent / 100);
        else {
          assert.ok(isTurn(plan, number, turn));
          assert.ok(!isTurn(plan, number, turn - 1) || turn === START);
        }
        assert.equal(isTurn(plan, number, START + 40 * 24 * HOUR), turn !== null);
      }),
      { numRuns: 5_000 },
    );
  });

  test("comes for nobody before the start, and for all of the percent at once without a duration", () => {
    const plan = { ...schedule, duration: 0, percent: 25 };
    assert.equal(shareAt(plan, START - 1), 0);
    assert.equal(shareAt(plan, START), 0.25);
    assert.equal(turnOf(plan, 0.2), START);
    assert.equal(turnOf(plan, 0.25), null);
  });

  test("once come stays come while time goes on", () => {
    fc.assert(
      fc.property(anySchedule, anyNumber, fc.nat(), fc.nat(), (plan, number, at, later) => {
        if (isTurn(plan, number, START + at)) assert.ok(isTurn(plan, number, START + at + later));
      }),
    );
  });
});

function documentOf(rollout: Partial<Rollout> | undefined): ChannelDocument {
  return {
    schema: 1,
    app: "web",
    channel: "stable",
    sequence: 7,
    releases: [{ platform: "linux-x64", version: "1.4.0" }],
    ...(rollout === undefined ? {} : { rollout: { ...schedule, ...rollout } }),
  };
}

const here = { site: "store-0042", platform: "linux-x64" };
const OLD: Standing = { version: "1.3.0", begun: null };
const NOTHING: Standing = { version: null, begun: null };

function course(rollout: Partial<Rollout> | undefined, standing: Standing, now: number): Course {
  return courseOf(documentOf(rollout), here, standing, now);
}

describe("a site in a roll-out", () => {
  const before = START + HOUR;
  const after = START + 20 * HOUR;

  test("waits for its turn with what it has, and knows when it comes", () => {
    const { version, place } = course({}, OLD, before);
    assert.equal(version, null);
    assert.equal(place?.waiting, "rollout_not_yet");
    assert.equal(place.number, siteNumber(ticket));
    assert.equal(place.turn, turnOf(schedule, place.number));
    assert.ok(place.turn !== null && place.turn > before && place.turn < after);
  });

  test("installs from its turn on", () => {
    const { version, begins, place } = course({}, OLD, after);
    assert.deepEqual([version, begins, place?.waiting], ["1.4.0", "7", null]);
  });

  test("that has nothing installs what was there before, and nothing where nothing was", () => {
    assert.equal(course({}, NOTHING, before).version, "1.3.0");
    assert.equal(course({}, NOTHING, after).version, "1.4.0");
    assert.equal(course({ paused: true }, NOTHING, after).version, "1.3.0");
    assert.equal(course({ from: [] }, NOTHING, before).version, null);
  });

  test("that the percent does not reach says so, and that a pause is one", () => {
    const beyond = course({ percent: 30 }, OLD, after);
    assert.deepEqual(
      [beyond.version, beyond.place?.waiting, beyond.place?.turn],
      [null, "rollout_not_included", null],
    );
    const paused = course({ paused: true }, OLD, after);
    assert.deepEqual(
      [paused.version, paused.place?.waiting, paused.place?.turn],
      [null, "rollout_paused", null],
    );
  });

  test("goes at once without a roll-out, and not at all where its platform has no release", () => {
    assert.deepEqual(course(undefined, OLD, before), {
      wanted: "1.4.0",
      version: "1.4.0",
      begins: null,
      place: null,
    });
    assert.throws(
      () => courseOf(documentOf({}), { ...here, platform: "linux-arm64" }, OLD, before),
      {
        code: "RELEASE_NOT_FOUND",
      },
    );
  });

  /** Whatever is done to the schedule, in any order, at any time. */
  const change = fc.record({
    afterMs: fc.integer({ min: 0, max: 12 * HOUR }),
    percent: fc.double({ min: 0, max: 100, noNaN: true }),
    duration: fc.integer({ min: 0, max: 10 * 86_400 }),
    paused: fc.boolean(),
  });

  test("never leaves a release that it has or has begun, whatever becomes of the schedule; only a pause stops what is begun", () => {
    fc.assert(
      fc.property(
        fc.string({ minLength: 1 }),
        fc.array(change, { maxLength: 30 }),
        (site, changes) => {
          let now = START;
          let standing: Standing = OLD;
          for (const [turn, { afterMs, ...plan }] of changes.entries()) {
            now += afterMs;
            const { version, begins } = courseOf(
              documentOf(plan),
              { ...here, site },
              standing,
              now,
            );
            if (standing.version === "1.4.0") assert.equal(version, "1.4.0");
            else if (plan.paused) assert.equal(version, null);
            else if (standing.begun !== null) assert.equal(version, "1.4.0");
            // Every third look it has come to an end with it.
            const done = version !== null && turn % 3 === 2;
            standing = { version: done ? version : standing.version, begun: begins };
          }
        },
      ),
    );
  });

  test("keeps what it has when the percent is lowered, and those without it stay without", () => {
    const has: Standing = { version: "1.4.0", begun: null };
    assert.equal(course({ percent: 1 }, has, after).version, "1.4.0");
    assert.equal(course({ percent: 1 }, OLD, after).version, null);
  });
});

describe("the way to a release", () => {
  const orders: Readonly<Record<string, number>> = {
    "1.1.0": 1,
    "1.2.0": 2,
    "1.3.0": 3,
    "1.4.0": 4,
  };
  const orderOf = (version: string): number | undefined => orders[version];

  test("leads through the minimum from what is older, and only from there", () => {
    const document = { minimum: "1.2.0" };
    assert.equal(nextVersion(document, "1.1.0", "1.4.0", orderOf), "1.2.0");
    assert.equal(nextVersion(document, "1.2.0", "1.4.0", orderOf), "1.4.0");
    assert.equal(nextVersion(document, "1.3.0", "1.4.0", orderOf), "1.4.0");
    assert.equal(nextVersion(document, null, "1.4.0", orderOf), "1.4.0");
    assert.equal(nextVersion(document, "0.9.0", "1.4.0", orderOf), "1.2.0", "no longer listed");
    assert.equal(nextVersion({ minimum: "1.4.0" }, "1.3.0", "1.3.0", orderOf), "1.3.0", "there");
  });

  test("does not lead back without the signed word", () => {
    assert.throws(() => nextVersion({}, "1.4.0", "1.3.0", orderOf), { code: "RELEASE_DOWNGRADE" });
    assert.equal(nextVersion({ downgrade: true }, "1.4.0", "1.3.0", orderOf), "1.3.0");
    assert.equal(nextVersion({}, "0.9.0", "1.3.0", orderOf), "1.3.0");
  });

  test("comes to an end", () => {
    const version = fc.constantFrom("0.9.0", ...Object.keys(orders));
    fc.assert(
      fc.property(version, version, version, (has, wanted, minimum) => {
        const document = { minimum, downgrade: true } as const;
        const once = nextVersion(document, has, wanted, orderOf);
        const twice = nextVersion(document, once, wanted, orderOf);
        assert.equal(nextVersion(document, twice, wanted, orderOf), wanted);
      }),
    );
  });
});

describe("the next look", () => {
  const timing = { now: START, intervalMs: 900_000, random: () => 0.5 };

  test("is brought forward to the turn, never put off by it, and never all at once", () => {
    const turn = START + 60_000;
    assert.equal(lookDelayMs(800_000, { turn: null, schedule }, timing), 800_000);
    assert.equal(lookDelayMs(800_000, { turn, schedule }, timing), 60_000 + 45_000);
    assert.equal(lookDelayMs(50_000, { turn, schedule }, timing), 50_000);
    const steep = { ...schedule, duration: 0 };
    assert.equal(lookDelayMs(800_000, { turn, schedule: steep }, timing), 800_000);
    const seldom = { ...timing, intervalMs: 24 * HOUR };
    assert.equal(lookDelayMs(20 * HOUR, { turn, schedule: steep }, seldom), 60_000 + 450_000);
  });

  test("of a fleet with the same turn is spread, where sites look seldom", () => {
    const steep = { ...schedule, duration: 0 };
    const looks = Array.from({ length: 9_000 }, (_, index) => {
      const random = (): number => (index + 0.5) / 9_000;
      return lookDelayMs(
        HOUR,
        { turn: START, schedule: steep },
        { now: START, intervalMs: 24 * HOUR, random },
      );
    });
    const busiest = Math.max(
      ...Object.values(Object.groupBy(looks, (ms) => Math.floor(ms / 60_000))).map(
        (list) => list?.length ?? 0,
      ),
    );
    assert.ok(busiest <= 600, String(busiest));
  });
});
