import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { parseCron } from "#core/cron.ts";
import { instantsOf, offsetAt, offsetsAbout } from "#core/time-zone.ts";
import { openingOf, windows } from "#core/window.ts";
import type { Window } from "#core/window.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

function windowsOf(text: string): readonly Window[] {
  const parsed = windows.parse(text);
  assert.ok(parsed !== undefined, text);
  return parsed;
}

/** What is open when, as times in UTC: each opening and its end between two times. */
function openings(text: string, from: string, to: string): readonly string[] {
  const list = windowsOf(text);
  const iso = (ms: number): string => new Date(ms).toISOString().slice(5, 16);
  const found: string[] = [];
  let now = Date.parse(from);
  while (now < Date.parse(to)) {
    const { open, until } = openingOf(list, now);
    if (open) found.push(`${iso(now)} to ${iso(until)}`);
    now = until;
  }
  return found;
}

describe("a window", () => {
  for (const [text, why] of [
    ["0 2 * * *", "without a duration"],
    ["0 2 * * * 4h Europe/Berlim", "in a time zone that does not exist"],
    ["0 2 * * * 4h +02:00", "in an offset, which is no time zone"],
    ["60 2 * * * 4h", "at a minute that does not exist"],
    ["0 24 * * * 4h", "at an hour that does not exist"],
    ["0 2 30 2 * 4h", "on the 30th of February"],
    ["0 2 * * 8 4h", "on an eighth day of the week"],
    ["0 5-2 * * * 4h", "from a later hour to an earlier one"],
    ["0 */0 * * * 4h", "every no hours"],
    ["0 2/4 * * * 4h", "with a step and no range"],
    ["0 2 * * * 0s", "for no time"],
    ["0 2 * * * 200h", "for longer than a week"],
    ["0 2 * * * 4h UTC and more", "and more"],
    ["0 2 * * * 4h;", "and nothing"],
    ["@daily 4h", "by a name of cron's"],
  ] as const)
    test(`${why} is refused: ${text}`, () => assert.equal(windows.parse(text), undefined));

  for (const [text, named] of [
    ["", /nothing/],
    ["0 2 * * *", /duration is missing/],
    ["0 2 * * 4h", /4 fields .* five .* day of the week/],
    ["@daily 4h", /@daily/],
    ["0 2 * * * 4h Europe/Berlim", /"Europe\/Berlim" .* Europe\/Berlin\?/],
    ["0 2 * * * 4h +02:00", /"\+02:00" is an offset/],
    ["60 2 * * * 4h", /minute "60" .* 0 to 59/],
    ["0 24 * * * 4h", /hour "24" .* 0 to 23/],
    ["0 2 30 2 * 4h", /day 30 of month 2 never comes/],
    ["0 2 * 13 * 4h", /month "13" .* 1 to 12, jan to dec/],
    ["0 2 * * 8 4h", /day of the week "8" .* 0 to 7/],
    ["0 22-5 * * * 4h", /hour "22-5" .* 22-23,0-5/],
    ["0 2/4 * * * 4h", /hour "2\/4" .* 2-23\/4/],
    ["0 2 * * * 4", /"4".* unit, as in 4s, 4m or 4h/],
    ["0 2 * * * 200h", /"200h".* 168h/],
    ["0 2 * * * 2d", /"2d".* 24h/],
    ["0 2 * * * 4h UTC 0 3 * * * 4h", /"0" is too much .* ;/],
    ["0 2 * * * 4h; 0 2 * * * 4h Mars", /window 2: "Mars"/],
    ["0 2 * * * 4h;", /window 2: .*nothing/],
  ] as const)
    test(`that is refused has the part named that is wrong: ${text}`, () => {
      assert.equal(windows.parse(text), undefined);
      const problem = windows.problem?.(text) ?? "";
      assert.match(problem, named);
      const [, example = ""] = / right would be (.*)$/.exec(problem) ?? [];
      assert.notEqual(windows.parse(example), undefined, "what is shown instead is right");
    });

  test("is written as it was meant", () => {
    for (const text of [
      "0 2 * * 1-5 4h Europe/Berlin",
      "*/15 8-18/2 1,15 jan-mar mon,FRI 1h30m; 0 0 * * * 30m",
    ])
      assert.equal(windows.format(windowsOf(text)), text);
    assert.equal(windows.format(windowsOf(" 0  2 * * * 240m UTC ")), "0 2 * * * 4h");
  });

  test("opens when its cron says, for its duration", () => {
    const text = "30 22 * * 1-5 4h";
    assert.deepEqual(openings(text, "2026-11-20T12:00Z", "2026-11-25T00:00Z"), [
      "11-20T22:30 to 11-21T02:30",
      "11-23T22:30 to 11-24T02:30",
      "11-24T22:30 to 11-25T02:30",
    ]);
  });

  test("beside another makes one of both where they touch or overlap", () => {
    const text = "0 1 * * * 2h; 0 2 * * * 2h; 0 4 * * * 1h; 0 20 * * * 1h";
    assert.deepEqual(openings(text, "2026-11-20T00:00Z", "2026-11-21T00:00Z"), [
      "11-20T01:00 to 11-20T05:00",
      "11-20T20:00 to 11-20T21:00",
    ]);
  });

  test("on days of the month and of the week is open on either, as cron has it", () => {
    const text = "0 0 13 * 5 1h";
    const days = openings(text, "2026-11-01T00:00Z", "2026-11-20T00:00Z").map((line) =>
      line.slice(3, 5),
    );
    assert.deepEqual(days, ["06", "13"]);
    const other = openings("0 0 14 * 5 1h", "2026-11-01T00:00Z", "2026-11-20T00:00Z");
    assert.equal(other.length, 3);
  });

  test("on the 29th of February is waited for, also when no leap year is near", () => {
    const { until } = openingOf(windowsOf("0 0 29 2 * 1h"), Date.parse("2096-03-01T00:00Z"));
    assert.equal(new Date(until).toISOString(), "2104-02-29T00:00:00.000Z");
  });
});

describe("a window in local time, when clocks are put forward", () => {
  // Europe/Berlin goes from 02:00 to 03:00 on 29 March 2026, at 01:00 UTC.
  test("opens after the time that does not come has been passed over", () => {
    const text = "30 2 * * * 1h Europe/Berlin";
    assert.deepEqual(openings(text, "2026-03-28T00:00Z", "2026-03-31T00:00Z"), [
      "03-28T01:30 to 03-28T02:30",
      "03-29T01:00 to 03-29T02:00",
      "03-30T00:30 to 03-30T01:30",
    ]);
  });

  test("stays open for its duration as time passes", () => {
    const text = "0 1 * * * 4h Europe/Berlin";
    assert.deepEqual(openings(text, "2026-03-28T12:00Z", "2026-03-29T12:00Z"), [
      "03-29T00:00 to 03-29T04:00",
    ]);
  });

  test("opens every hour that there is, where it is for every hour", () => {
    const text = "30 * * * * 1m Europe/Berlin";
    assert.equal(openings(text, "2026-03-29T00:00Z", "2026-03-29T04:00Z").length, 4);
  });
});

describe("a window in local time, when clocks are put back", () => {
  // Europe/Berlin goes from 03:00 to 02:00 on 25 October 2026, at 01:00 UTC.
  test("opens once, the first time", () => {
    const text = "30 2 * * * 10m Europe/Berlin";
    assert.deepEqual(openings(text, "2026-10-24T12:00Z", "2026-10-26T12:00Z"), [
      "10-25T00:30 to 10-25T00:40",
      "10-26T01:30 to 10-26T01:40",
    ]);
  });

  test("opens every hour that passes, where it is for every hour", () => {
    const text = "30 * * * * 1m Europe/Berlin";
    assert.equal(openings(text, "2026-10-24T23:00Z", "2026-10-25T03:00Z").length, 4);
  });
});

test("half an hour, and days that are skipped, are time zones too", () => {
  // Lord Howe moves by half an hour: on 4 October 2026 from 02:00 to 02:30.
  const howe = "15 2 * * * 1h Australia/Lord_Howe";
  assert.deepEqual(openings(howe, "2026-10-03T12:00Z", "2026-10-04T12:00Z"), [
    "10-03T15:30 to 10-03T16:30",
  ]);
  // Samoa had no 30 December 2011.
  const apia = "0 12 30 12 * 1h Pacific/Apia";
  assert.deepEqual(openings(apia, "2011-12-29T00:00Z", "2012-01-02T00:00Z"), [
    "12-30T10:00 to 12-30T11:00",
  ]);
});

const ZONES = [
  "UTC",
  "Europe/Berlin",
  "America/New_York",
  "America/St_Johns",
  "Asia/Kolkata",
  "Australia/Lord_Howe",
  "Africa/Casablanca",
  "Pacific/Chatham",
] as const;
const zone = fc.constantFrom(...ZONES);
const minute = fc
  .integer({ min: Date.parse("2025-01-01") / MINUTE, max: Date.parse("2028-01-01") / MINUTE })
  .map((number) => number * MINUTE);
/** Near the days on which clocks are put in most of the zones. */
const busy = fc
  .tuple(
    fc.constantFrom("2026-03-29", "2026-10-25", "2026-03-08", "2026-11-01", "2026-04-05"),
    fc.integer({ min: -2880, max: 2880 }),
  )
  .map(([day, offset]) => Date.parse(day) + offset * MINUTE);
const instant = fc.oneof(minute, busy);
const field = (max: number): fc.Arbitrary<string> =>
  fc.oneof(
    fc.constant("*"),
    fc.integer({ min: 0, max }).map(String),
    fc.integer({ min: 2, max: 20 }).map((step) => `*/${step}`),
  );
const restricted = fc.record({
  minute: field(59),
  hour: fc.integer({ min: 0, max: 23 }),
  durationM: fc.integer({ min: 1, max: 600 }),
  zone,
});

describe("for any window", () => {
  test("in hours that really pass, it is open when a start of cron's is not longer ago than its duration", () => {
    const moments = fc.record({
      minute: field(59),
      hour: field(23),
      durationM: fc.integer({ min: 1, max: 90 }),
      zone,
      now: instant,
    });
    fc.assert(
      fc.property(moments, ({ minute, hour, durationM, zone, now }) => {
        const cron = parseCron([minute, hour, "*", "*", "*"]);
        // Where the hour is stated, days on which clocks are put are another matter.
        const calm = offsetAt(zone, now - 2 * DAY) === offsetAt(zone, now + 2 * DAY);
        fc.pre(cron !== undefined && (cron.anyHour || calm));
        let open = false;
        for (let ago = 0; ago < durationM && !open; ago++) {
          const local = new Date(now - ago * MINUTE + offsetAt(zone, now - ago * MINUTE));
          open = cron.minutes.has(local.getUTCMinutes()) && cron.hours.has(local.getUTCHours());
        }
        const list = windowsOf(`${minute} ${hour} * * * ${durationM}m ${zone}`);
        assert.equal(openingOf(list, now).open, open);
      }),
      { numRuns: 120 },
    );
  });

  test("what it says of its next change is so: nothing changes before, and then it does", () => {
    fc.assert(
      fc.property(restricted, instant, ({ minute, hour, durationM, zone }, now) => {
        const list = windowsOf(`${minute} ${hour} * * * ${durationM}m ${zone}`);
        const { open, until } = openingOf(list, now);
        assert.ok(until > now);
        assert.equal(openingOf(list, until - 1).open, open);
        assert.equal(openingOf(list, Math.floor((now + until) / 2)).open, open);
        assert.equal(openingOf(list, until).open, !open);
      }),
      { numRuns: 500 },
    );
  });

  test("at a stated time, it opens once on each local day, however clocks are put", () => {
    const once = fc.record({
      hour: fc.integer({ min: 0, max: 23 }),
      minute: fc.integer({ min: 0, max: 59 }),
      zone,
    });
    fc.assert(
      fc.property(once, instant, ({ hour, minute, zone }, from) => {
        const list = windowsOf(`${minute} ${hour} * * * 1m ${zone}`);
        const starts: number[] = [];
        for (let now = from; starts.length < 5;) {
          const { open, until } = openingOf(list, now);
          if (!open) starts.push(until);
          now = until;
        }
        for (const [index, start] of starts.entries()) {
          const local = start + offsetAt(zone, start);
          const wanted = (hour * 60 + minute) * MINUTE;
          const late = (local - wanted) % DAY;
          // Late only where the time was passed over.
          if (late !== 0) assert.ok(late <= HOUR && timesOf(zone, local - late).length === 0);
          const before = starts[index - 1];
          if (before !== undefined)
            assert.equal(
              Math.floor(local / DAY) - Math.floor((before + offsetAt(zone, before)) / DAY),
              1,
            );
        }
      }),
      { numRuns: 300 },
    );
  });

  test("local times have the instants that show them, and a gap ends where clocks have been put", () => {
    fc.assert(
      fc.property(zone, instant, (name, now) => {
        const local = now + offsetAt(name, now);
        assert.ok(timesOf(name, local).includes(now));
        for (const time of timesOf(name, local)) assert.equal(time + offsetAt(name, time), local);
        const ahead = local + 30 * MINUTE;
        if (timesOf(name, ahead).length > 0) return;
        const { at } = offsetsAbout(name, Math.floor(ahead / DAY) * DAY);
        assert.ok(at - 1 + offsetAt(name, at - 1) < ahead && at + offsetAt(name, at) > ahead);
      }),
      { numRuns: 1_000 },
    );
  });
});

function timesOf(name: string, local: number): readonly number[] {
  return instantsOf(offsetsAbout(name, Math.floor(local / DAY) * DAY), local);
}
