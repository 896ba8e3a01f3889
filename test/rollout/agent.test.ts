import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import type { ChannelDocument, Rollout } from "#core/channel-document.ts";
import type { Clock } from "#core/clock.ts";
import { siteNumber } from "#core/rollout.ts";
import { realClock } from "../support/real-clock.ts";
import { journalOf } from "../update/support/invariants.ts";
import { committed, openSite } from "../update/support/site.ts";
import type { Site, SiteOptions } from "../update/support/site.ts";
import { PLATFORM, noise, openWorld } from "../update/support/world.ts";
import type { Files, World } from "../update/support/world.ts";
import { openStall } from "./stall.ts";

const SITE = "store-0042";
/** Number of that site with the salt below: it comes in the middle. */
const NUMBER = siteNumber({ site: SITE, app: "web", channel: "stable", salt: "2" });

function files(mark: string, size = 1_000): Files {
  return { health: "good", mark, data: noise(mark.length + size, size) };
}

function siteOf(world: World, more: Partial<SiteOptions> = {}): SiteOptions {
  const payload = join(world.folder, "site");
  const { settings, ...rest } = more;
  return {
    payload,
    url: world.origin.url,
    root: world.root,
    settings: { site: SITE, ...settings },
    ...rest,
  };
}

function isoSeconds(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
}

/** Over long ago, and for everybody, but for what is said otherwise. */
function rolloutOf(more: Partial<Rollout> = {}): Rollout {
  const from = [{ platform: PLATFORM, version: "1.0.0" }];
  const start = "2026-01-01T00:00:00Z";
  return { start, duration: 0, percent: 100, paused: false, salt: "2", from, ...more };
}

function documentOf(version: string, more: Partial<ChannelDocument>): ChannelDocument {
  const releases = [{ platform: PLATFORM, version }];
  return { schema: 1, app: "web", channel: "stable", sequence: 2, releases, ...more };
}

/** A world with 1.0.0 in the channel, and 1.1.0 beside it. */
async function openTwo(second = files("two")): Promise<World> {
  const world = await openWorld();
  await world.publish("1.0.0", files("one"));
  await world.release("1.1.0", second);
  return world;
}

async function installed(site: Site): Promise<void> {
  await site.until("the first release", committed("1.0.0"));
}

const waiting = (reason: string) => (status: ReturnType<Site["agent"]["status"]>) =>
  status.rollout?.waiting === reason;

describe("a site in a roll-out", () => {
  test("waits while the percent does not reach it, goes when it does, and stays when it is lowered again", async () => {
    await using world = await openTwo();
    await using site = await openSite(siteOf(world));
    await installed(site);
    const below = rolloutOf({ percent: NUMBER * 100 - 1 });
    await world.forgeChannel(documentOf("1.1.0", { rollout: below }));
    await site.until("waiting", waiting("rollout_not_included"));
    await site.looked();
    const status = site.agent.status();
    assert.equal(status.site, SITE);
    assert.deepEqual(status.rollout, {
      version: "1.1.0",
      number: NUMBER,
      turn: null,
      waiting: "rollout_not_included",
    });
    assert.deepEqual([status.release?.version, status.sequence, status.error], ["1.0.0", 2, null]);
    const labels = { reason: "rollout_not_included" };
    assert.equal(await site.metric("edgesync_sidecar_waiting", labels), 1);
    assert.equal(await site.metric("edgesync_sidecar_rollout_number"), NUMBER);
    assert.ok(
      site.log.some(
        ({ message, fields }) =>
          message === "waiting in the roll-out" && fields.reason === labels.reason,
      ),
    );

    const above = rolloutOf({ percent: NUMBER * 100 + 1 });
    await world.forgeChannel(documentOf("1.1.0", { rollout: above }));
    await site.until("the second release", committed("1.1.0"));
    await world.forgeChannel(documentOf("1.1.0", { rollout: below }));
    await site.looked();
    assert.equal(site.agent.status().release?.version, "1.1.0");
    assert.equal(await site.metric("edgesync_sidecar_waiting", labels), 0);
    assert.equal(site.application.restarts(), 1);
  });

  test("that has nothing installs what was there before, and goes on when its turn comes", async () => {
    await using world = await openTwo();
    await world.forgeChannel(documentOf("1.1.0", { rollout: rolloutOf({ percent: 0 }) }));
    await using site = await openSite(siteOf(world));
    await installed(site);
    assert.equal(site.agent.status().rollout?.waiting, "rollout_not_included");
    await world.forgeChannel(documentOf("1.1.0", { rollout: rolloutOf() }));
    await site.until("the second release", committed("1.1.0"));
    assert.equal(site.agent.status().sequence, 2);
  });

  test("that has nothing, where nothing was before, installs nothing and says why", async () => {
    await using world = await openTwo();
    await world.forgeChannel(
      documentOf("1.1.0", { rollout: rolloutOf({ paused: true, from: [] }) }),
    );
    await using site = await openSite(siteOf(world));
    await site.until("waiting", waiting("rollout_paused"));
    await site.looked();
    assert.equal(site.agent.status().phase, "idle");
    assert.equal(site.agent.installed(), false);
  });

  test("goes by the trusted time where its own clock is wrong, and not by a clock that is ahead", async () => {
    await using world = await openTwo();
    const hour = 3_600_000;
    const clockAt = (now: number): Clock => ({ ...realClock, now: () => now });
    const over = rolloutOf({ start: isoSeconds(Date.now() - hour) });
    await world.forgeChannel(documentOf("1.1.0", { rollout: over }));
    const behind = { clock: clockAt(Date.parse("2020-01-01T00:00:00Z")) };
    {
      await using site = await openSite(siteOf(world, behind));
      await site.until("the second release", committed("1.1.0"));
    }
    const later = rolloutOf({ start: isoSeconds(Date.now() + hour), salt: "3" });
    await world.release("1.2.0", files("three"));
    await world.forgeChannel(documentOf("1.2.0", { sequence: 3, rollout: later }));
    const ahead = { clock: clockAt(Date.now() + 500 * 24 * hour) };
    await using site = await openSite(siteOf(world, ahead));
    await site.until("waiting", waiting("rollout_not_yet"));
  });

  test("looks when its turn comes, not only at the next poll", async () => {
    await using world = await openTwo();
    // Three polls fit into the schedule; the turn is two seconds ahead.
    const duration = 60;
    const start = isoSeconds(Date.now() + 2_000 - NUMBER * duration * 1000);
    await world.forgeChannel(documentOf("1.1.0", { rollout: rolloutOf({ start, duration }) }));
    await using site = await openSite(siteOf(world, { settings: { pollInterval: 20_000 } }));
    await installed(site);
    const { rollout } = site.agent.status();
    assert.equal(rollout?.waiting, "rollout_not_yet");
    assert.equal(
      Math.floor(Date.parse(rollout.turn ?? "") / 1000),
      Math.floor(Date.parse(start) / 1000 + NUMBER * duration),
    );
    assert.equal(
      await site.metric("edgesync_sidecar_rollout_turn_timestamp_seconds"),
      Date.parse(rollout.turn ?? "") / 1000,
    );
    await site.until("the second release", (status) => status.release?.version === "1.1.0");
    assert.ok(Date.now() >= Date.parse(rollout.turn ?? ""));
  });
});

describe("a pause", () => {
  const SIZE = 400_000;
  const CUT = 150_000;

  test("stops a download at the next look, which goes on after it without fetching a byte twice", async () => {
    await using world = await openTwo(files("two", SIZE));
    await using stall = await openStall(world.origin.url, CUT);
    await using site = await openSite(siteOf(world, { url: stall.url }));
    await installed(site);
    await world.forgeChannel(documentOf("1.1.0", { rollout: rolloutOf() }));
    await site.until("half of it", ({ plan }) => (plan?.receivedBytes ?? 0) >= CUT);
    assert.equal(site.agent.status().phase, "downloading");

    await world.forgeChannel(documentOf("1.1.0", { rollout: rolloutOf({ paused: true }) }));
    await site.until("the pause", waiting("rollout_paused"));
    await site.until("the end of the download", committed("1.0.0"));
    stall.open();
    await site.looked();
    const half = Math.max(...stall.passed());
    assert.equal(half, CUT);
    assert.equal(site.agent.status().error, null);

    await world.forgeChannel(documentOf("1.1.0", { rollout: rolloutOf() }));
    await site.until("the second release", committed("1.1.0"));
    assert.equal(Math.max(...stall.passed()), SIZE);
  });

  test("keeps a staged release from being swapped, also by a sidecar that starts anew, and costs nothing", async () => {
    await using world = await openTwo();
    let held = false;
    const options = siteOf(world, { held: () => held });
    {
      await using site = await openSite(options);
      await installed(site);
      held = true;
      await world.forgeChannel(documentOf("1.1.0", { rollout: rolloutOf() }));
      await site.until("staging", ({ phase }) => phase === "staged");
      await world.forgeChannel(documentOf("1.1.0", { rollout: rolloutOf({ paused: true }) }));
      await site.until("the pause", waiting("rollout_paused"));
      await site.looked();
      held = false;
      await site.looked();
      assert.equal(site.agent.status().phase, "staged");
    }
    world.origin.reset();
    await using site = await openSite(options);
    await site.until("the pause", waiting("rollout_paused"));
    await site.looked();
    assert.equal(site.application.restarts(), 0);
    await world.forgeChannel(documentOf("1.1.0", { rollout: rolloutOf() }));
    await site.until("the second release", committed("1.1.0"));
    const blobs = world.origin.requests.filter(({ path }) => path.startsWith("blobs/"));
    assert.deepEqual(blobs, []);
  });

  test("that came while the sidecar was away is seen before a staged release is swapped", async () => {
    await using world = await openTwo();
    const payload = join(world.folder, "site");
    {
      await using site = await openSite(siteOf(world, { held: () => journaled(payload) }));
      await installed(site);
      await world.forgeChannel(documentOf("1.1.0", { rollout: rolloutOf() }));
      await site.until("staging", ({ phase }) => phase === "staged");
    }
    await world.forgeChannel(documentOf("1.1.0", { rollout: rolloutOf({ paused: true }) }));
    await using site = await openSite(siteOf(world));
    await site.until("the pause", waiting("rollout_paused"));
    await site.looked();
    assert.equal(site.application.restarts(), 0);
    assert.equal(site.agent.status().release?.version, "1.0.0");
  });

  test("lets a site that is cut off go on with what it has staged", async () => {
    await using world = await openTwo();
    const payload = join(world.folder, "site");
    {
      await using site = await openSite(siteOf(world, { held: () => journaled(payload) }));
      await installed(site);
      await world.forgeChannel(documentOf("1.1.0", { rollout: rolloutOf() }));
      await site.until("staging", ({ phase }) => phase === "staged");
    }
    await using site = await openSite(siteOf(world, { url: "http://127.0.0.1:1" }));
    await site.until("the second release", ({ release }) => release?.version === "1.1.0");
  });
});

test("a release that the channel has left while it was fetched is not swapped any more", async () => {
  await using world = await openTwo(files("two", 400_000));
  await world.release("1.2.0", files("three"));
  await using stall = await openStall(world.origin.url, 150_000);
  await using site = await openSite(siteOf(world, { url: stall.url }));
  await installed(site);
  await world.forgeChannel(documentOf("1.1.0", {}));
  await site.until("half of it", ({ plan }) => (plan?.receivedBytes ?? 0) >= 150_000);
  await world.forgeChannel(documentOf("1.2.0", { sequence: 3 }));
  await site.looked();
  assert.equal(site.agent.status().phase, "downloading");
  stall.open();
  await site.until("the third release", committed("1.2.0"));
  assert.equal(site.application.restarts(), 1);
});

/** Whether the first release is there, so that from then on nothing is swapped. */
function journaled(payload: string): boolean {
  return journalOf(payload).phase !== "idle";
}

describe("the way to a release", () => {
  test("leads through the minimum, each step with its own trial, and not for sites that are past it", async () => {
    await using world = await openTwo();
    await world.release("1.2.0", files("three"));
    await using site = await openSite(siteOf(world));
    await installed(site);
    await world.forgeChannel(documentOf("1.2.0", { minimum: "1.1.0" }));
    await site.until("the third release", committed("1.2.0"));
    const committedVersions = site.log
      .filter(({ message }) => message === "release committed")
      .map(({ fields }) => fields.version);
    assert.deepEqual(committedVersions, ["1.0.0", "1.1.0", "1.2.0"]);
    assert.equal(site.application.restarts(), 2);
    await using fresh = await openSite(siteOf(world, { payload: join(world.folder, "fresh") }));
    await fresh.until("the third release", committed("1.2.0"));
    assert.equal(fresh.application.restarts(), 0);
  });
});

describe("the name of a site", () => {
  test("is what it is told, else its node's, else its own, which outlives the sidecar and a torn file", async () => {
    await using world = await openTwo();
    const nameWith = async (
      settings: NonNullable<SiteOptions["settings"]>,
    ): Promise<string | null> => {
      await using site = await openSite({ ...siteOf(world), settings });
      return (await site.until("a look", (status) => status.lastLook !== null)).site;
    };
    assert.equal(await nameWith({ site: "here", nodeName: "node-7" }), "here");
    assert.equal(await nameWith({ nodeName: "node-7" }), "node-7");
    const own = await nameWith({});
    assert.match(own ?? "", /^[0-9a-f-]{36}$/);
    assert.equal(await nameWith({}), own);
    const file = join(world.folder, "site/site");
    assert.equal(readFileSync(file, "utf8"), `${own}\n`);
    await writeFile(file, "\0\0\0");
    const next = await nameWith({});
    assert.match(next ?? "", /^[0-9a-f-]{36}$/);
    assert.equal(await nameWith({}), next);
  });
});
