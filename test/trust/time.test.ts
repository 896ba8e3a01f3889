import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { NO_SKEW, clockSkew } from "#core/clock-skew.ts";
import type { ClockSkew } from "#core/clock-skew.ts";
import { refresh } from "#core/trust/refresh.ts";
import type { TimeMemory, TrustedSet } from "#core/trust/refresh.ts";
import { fetchTarget } from "#core/trust/target.ts";
import { formatFloor, judgeTime, parseFloor, raised, worthSaving } from "#core/trust/time.ts";
import type { Anchor } from "#core/trust/time.ts";
import { LATER, NOW, TARGET, makeKey, makeWorld, never, signedBy } from "./world.ts";
import type { World } from "./world.ts";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const EXPIRED = { code: "METADATA_EXPIRED" };

function isoOf(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
}

interface Site {
  /** A look at the repository at a time of the wall clock and of the process. */
  look(wall: number, monotonic?: number): Promise<TrustedSet>;
  readonly memory: TimeMemory;
  /** The process ends and begins anew; what is stored stays. */
  restart(): Site;
}

function siteOf(world: World, skew: ClockSkew = NO_SKEW): Site {
  const memory: TimeMemory = { expiries: new Map() };
  return {
    memory,
    look(wall, monotonic = 0) {
      const timing = { skew, monotonic, memory };
      return refresh({ ...world.deps, now: wall, timing }, never);
    },
    restart: () => siteOf(world, skew),
  };
}

/** Publishes a timestamp that was issued, and expires, at times of its own. */
function publishAt(world: World, version: number, issued: unknown, expires: number): void {
  world.publish(
    { timestamp: version },
    {
      timestamp: (signed) => ({
        ...signed,
        ...(issued === undefined ? {} : { "x-edgesync-issued": issued }),
        expires: isoOf(expires),
      }),
    },
  );
}

/** Replaces the key of the timestamp by one that root names from its next version on. */
function rotateTimestampKey(world: World, version: number): void {
  world.keys.timestamp = makeKey();
  world.publishRoot(version);
}

describe("the time floor", () => {
  test("is what the newest timestamp says of when it was signed, also after a restart", async () => {
    const world = makeWorld();
    publishAt(world, 1, isoOf(NOW), NOW + 14 * DAY);
    const site = siteOf(world);
    await site.look(NOW + HOUR);
    assert.equal((await site.look(NOW + HOUR)).time.floor, NOW);
    assert.equal((await site.restart().look(NOW + HOUR)).time.floor, NOW);
    publishAt(world, 2, isoOf(NOW + 2 * DAY), NOW + 16 * DAY);
    await site.look(NOW + 3 * DAY);
    assert.equal((await site.restart().look(NOW + 3 * DAY)).time.floor, NOW + 2 * DAY);
  });

  test("counts where the clock is behind it, and makes expire what the clock would let live on", async () => {
    const world = makeWorld();
    publishAt(world, 1, isoOf(NOW), NOW + DAY);
    await siteOf(world).look(NOW);
    // A battery is empty: 1970.
    const site = siteOf(world);
    const { time } = await site.look(0);
    assert.deepEqual([time.now, time.suspect], [NOW, "clock_behind"]);
    // The process runs for two days, and the repository is frozen.
    await assert.rejects(site.look(2 * DAY, 2 * DAY), EXPIRED);
  });

  test("cannot be talked back: a later timestamp with an earlier time of issue changes nothing", async () => {
    const world = makeWorld();
    publishAt(world, 1, isoOf(NOW), NOW + 14 * DAY);
    const site = siteOf(world);
    await site.look(NOW);
    publishAt(world, 2, isoOf(0), NOW + 14 * DAY);
    await site.look(NOW);
    assert.equal((await site.look(0)).time.floor, NOW);
    assert.equal((await site.restart().look(0)).time.floor, NOW);
  });

  for (const [what, issued] of [
    ["nothing", undefined],
    ["a number", NOW],
    ["words", "tomorrow"],
    ["a date without a time", "2026-11-22"],
    ["a list", ["2026-11-22T12:00:00Z"]],
    ["a day that does not exist", "2026-13-45T99:00:00Z"],
  ] as const)
    test(`is not raised by ${what} in place of a time of issue`, async () => {
      const world = makeWorld();
      publishAt(world, 1, issued, NOW + 14 * DAY);
      const site = siteOf(world);
      await site.look(NOW);
      assert.equal((await site.look(NOW)).time.floor, undefined);
    });

  test("never moves past the signed expiry that came with it, whatever the time of issue claims", async () => {
    const world = makeWorld();
    publishAt(world, 1, "2100-01-01T00:00:00Z", NOW + DAY);
    const site = siteOf(world, { ...NO_SKEW, timestamp: DAY });
    await site.look(NOW);
    const { time } = await site.look(NOW, 30 * 60_000);
    assert.equal(time.floor, NOW + DAY);
    assert.equal((await site.restart().look(NOW)).time.floor, NOW + DAY);
  });

  test("of a stolen timestamp key ends with the key: a new root makes the clock count again", async () => {
    const world = makeWorld();
    const site = siteOf(world);
    publishAt(world, 1, isoOf(NOW), NOW + 14 * DAY);
    await site.look(NOW);
    // The thief signs that it is 2090, which makes all else expire.
    publishAt(world, 2, "2090-01-01T00:00:00Z", Date.parse("2100-01-01T00:00:00Z"));
    await site.look(NOW);
    await assert.rejects(site.look(NOW), EXPIRED);
    await assert.rejects(site.restart().look(NOW), EXPIRED);
    rotateTimestampKey(world, 2);
    publishAt(world, 3, isoOf(NOW), NOW + 14 * DAY);
    assert.equal((await site.look(NOW)).time.now, NOW);
    assert.equal((await site.look(NOW)).time.floor, NOW);
    assert.equal((await site.restart().look(NOW)).time.floor, NOW);
  });

  test("outlives a rotation of other keys", async () => {
    const world = makeWorld();
    publishAt(world, 1, isoOf(NOW), NOW + 14 * DAY);
    const site = siteOf(world);
    await site.look(NOW);
    world.files.set("metadata/2.root.json", signedBy(world.root(2), world.keys.root));
    assert.equal((await site.restart().look(0)).time.floor, NOW);
  });

  test("heals when its file is torn, from the timestamp that is stored", async () => {
    const world = makeWorld();
    publishAt(world, 1, isoOf(NOW), NOW + 14 * DAY);
    await siteOf(world).look(NOW);
    for (const bytes of ["", "{", "[]", '{"schema":1,"time":5,"limit":1,"keyids":[]}']) {
      world.stored.set("time-floor", Buffer.from(bytes));
      assert.equal((await siteOf(world).look(0)).time.floor, NOW);
    }
  });

  test("only grows with each timestamp, and is the same when it was written and read", () => {
    const keyids = ["k"];
    const stamps = fc.array(
      fc.record({
        issued: fc.option(fc.integer({ min: 0, max: 4_000 }), { nil: undefined }),
        life: fc.integer({ min: 0, max: 500 }),
        pause: fc.integer({ min: 0, max: 300 }),
      }),
      { maxLength: 20 },
    );
    fc.assert(
      fc.property(stamps, (list) => {
        let anchor: Anchor | undefined;
        let monotonic = 0;
        let floor = -Infinity;
        for (const { issued, life, pause } of list) {
          monotonic += pause;
          const expires = (issued ?? 0) + life;
          const timestamp = {
            version: 1,
            expires,
            issued,
            snapshot: { version: 1 },
          };
          anchor = raised(anchor, timestamp, { keyids, threshold: 1 }, monotonic);
          const judged = judgeTime(0, anchor, monotonic, NO_SKEW);
          assert.ok((judged.floor ?? -Infinity) >= floor);
          floor = judged.floor ?? floor;
          assert.ok(anchor === undefined || floor <= anchor.limit);
        }
        const saved = anchor && worthSaving(anchor, undefined, monotonic);
        if (saved !== undefined) assert.deepEqual(parseFloor(formatFloor(saved)), saved);
      }),
    );
  });
});

describe("a suspected clock", () => {
  const floor = (time: number): Anchor => ({ time, limit: Infinity, keyids: [], at: 0 });

  test("is one that is behind the floor by more than clocks differ", () => {
    const suspect = (wall: number): string | null =>
      judgeTime(wall, floor(NOW), 0, NO_SKEW).suspect;
    assert.equal(suspect(NOW), null);
    assert.equal(suspect(NOW - 5 * 60_000), null);
    assert.equal(suspect(NOW - 5 * 60_000 - 1), "clock_behind");
    assert.equal(suspect(NOW + 400 * DAY), null);
    assert.equal(suspect(NOW + 400 * DAY + 1), "clock_ahead");
  });

  test("far ahead makes nothing expire by itself", async () => {
    const world = makeWorld();
    publishAt(world, 1, isoOf(NOW), NOW + 14 * DAY);
    const site = siteOf(world);
    await site.look(NOW);
    const { time } = await site.look(NOW + 4_000 * DAY);
    assert.deepEqual([time.now, time.suspect], [NOW, "clock_ahead"]);
    // What has expired by the floor has expired all the same.
    await assert.rejects(site.look(NOW + 4_000 * DAY, 15 * DAY), EXPIRED);
  });

  test("ahead by less is believed: adoption stops", async () => {
    const world = makeWorld();
    publishAt(world, 1, isoOf(NOW), NOW + 14 * DAY);
    const site = siteOf(world);
    await site.look(NOW);
    await assert.rejects(site.look(NOW + 100 * DAY), EXPIRED);
  });

  test("is believed where nothing has told the time yet", async () => {
    const world = makeWorld();
    publishAt(world, 1, isoOf(NOW), NOW + 14 * DAY);
    await assert.rejects(siteOf(world).look(NOW + 4_000 * DAY), EXPIRED);
    assert.equal((await siteOf(world).look(0)).time.suspect, null);
  });

  test("does not grow younger or older by the passing of monotonic time", () => {
    const { now } = judgeTime(NOW - DAY, floor(NOW), HOUR, NO_SKEW);
    assert.equal(now, NOW + HOUR);
  });
});

describe("the allowance for skew", () => {
  const end = Date.parse(LATER);

  test("lets each role live on for as long as is set for it, and no longer", async () => {
    for (const name of ["timestamp", "snapshot", "targets", "root"] as const) {
      const world = makeWorld(NOW, isoOf(end + 1_000 * DAY));
      const short = (signed: Record<string, unknown>): object => ({ ...signed, expires: LATER });
      world.publish({}, name === "root" ? {} : { [name]: short });
      if (name === "root")
        world.files.set(
          "metadata/2.root.json",
          signedBy(world.root(2, { expires: LATER }), world.keys.root),
        );
      const site = siteOf(world, { ...NO_SKEW, [name]: HOUR });
      await site.look(end + HOUR - 1);
      await assert.rejects(site.look(end + HOUR), EXPIRED);
      await assert.rejects(siteOf(world).look(end), EXPIRED);
    }
  });

  test("of targets is that of delegated roles, too", async () => {
    const world = makeWorld(NOW, isoOf(end + 1_000 * DAY));
    world.publish({}, { app: (signed) => ({ ...signed, expires: LATER }) });
    for (const [at, skew] of [
      [end + HOUR - 1, HOUR],
      [end + HOUR, HOUR],
    ] as const) {
      const trusted = await siteOf(world, { ...NO_SKEW, targets: skew }).look(at);
      const found = fetchTarget(trusted, TARGET, 1_000, world.deps, never);
      if (at < end + skew) await found;
      else await assert.rejects(found, EXPIRED);
    }
  });

  test("is one duration, or one for each role", () => {
    const day = { root: DAY, timestamp: DAY, snapshot: DAY, targets: DAY };
    assert.deepEqual(clockSkew.parse("24h"), day);
    assert.deepEqual(clockSkew.parse("0s"), NO_SKEW);
    assert.deepEqual(clockSkew.parse("timestamp=1h, 24h"), { ...day, timestamp: HOUR });
    assert.deepEqual(clockSkew.parse("root=1h,timestamp=1h,snapshot=1h,targets=24h"), {
      root: HOUR,
      timestamp: HOUR,
      snapshot: HOUR,
      targets: DAY,
    });
    for (const bad of [
      "",
      "1 day",
      "timestamp=1h",
      "24h,1h",
      "24h,app=1h",
      "24h,root=1h,root=2h",
      "721h",
      "24h,",
    ])
      assert.equal(clockSkew.parse(bad), undefined, bad);
    const ms = fc.integer({ min: 0, max: 720 * HOUR });
    fc.assert(
      fc.property(
        fc.record(
          { root: ms, timestamp: ms, snapshot: ms, targets: ms },
          { noNullPrototype: true },
        ),
        (skew) => {
          assert.deepEqual(clockSkew.parse(clockSkew.format(skew)), skew);
        },
      ),
    );
  });
});
