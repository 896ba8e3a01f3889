/** Sites whose clocks are wrong, with real repositories: what the time stops, and what it never stops. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { clockSkew } from "#core/clock-skew.ts";
import type { Clock } from "#core/clock.ts";
import { openKeyring } from "../../publisher/keys.ts";
import { renew } from "../../publisher/publish.ts";
import { openRepository } from "../../publisher/repository.ts";
import { realClock } from "../support/real-clock.ts";
import { committed, openSite } from "./support/site.ts";
import type { Site, SiteOptions } from "./support/site.ts";
import { openWorld } from "./support/world.ts";
import type { Files, World } from "./support/world.ts";

const DAY = 86_400_000;

function files(mark: string): Files {
  return { health: "good", mark };
}

function siteOf(world: World, more: Partial<SiteOptions> = {}): SiteOptions {
  const payload = join(world.folder, "site");
  return { payload, url: world.origin.url, root: world.root, ...more };
}

/** The machine's clock, off by what `offset` says at the moment. */
function wrongClock(offset: () => number): Clock {
  return { ...realClock, now: () => Date.now() + offset() };
}

function markOf(site: Site): string {
  return readFileSync(join(site.payload, "current/mark"), "utf8");
}

describe("a clock that is wrong", () => {
  test("behind is seen from the repository's signed time, and new releases go on to come", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    const clock = wrongClock(() => -Date.now());
    await using site = await openSite(siteOf(world, { clock }));
    const status = await site.until(
      "the suspicion",
      ({ time, phase }) => time.clockSuspect === "clock_behind" && phase === "committed",
    );
    assert.ok(Math.abs(Date.parse(status.time.now ?? "") - Date.now()) < 60_000);
    assert.equal(status.time.floor?.slice(0, 4), String(new Date().getUTCFullYear()));
    // The metrics follow at the end of the look that found it out.
    await site.looked();
    const reason = "clock_behind";
    assert.equal(await site.metric("edgesync_sidecar_clock_suspect", { reason }), 1);
    const floor = await site.metric("edgesync_sidecar_time_floor_timestamp_seconds");
    assert.ok(Math.abs(floor - Date.now() / 1000) < 60);
    assert.equal(site.log.filter(({ fields }) => fields.reason === reason).length, 1);
    await world.publish("1.1.0", files("two"));
    await site.until("the second release", committed("1.1.0"));
  });

  test("far ahead stops nothing, is said, and is forgotten when it is set right", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    let offset = 0;
    await using site = await openSite(siteOf(world, { clock: wrongClock(() => offset) }));
    await site.until("the first release", committed("1.0.0"));
    offset = 20 * 365 * DAY;
    await site.until("the suspicion", ({ time }) => time.clockSuspect === "clock_ahead");
    await world.publish("1.1.0", files("two"));
    await site.until("the second release", committed("1.1.0"));
    await site.looked();
    const reason = "clock_ahead";
    assert.equal(await site.metric("edgesync_sidecar_clock_suspect", { reason }), 1);
    offset = 0;
    await site.until("trust in the clock", ({ time }) => time.clockSuspect === null);
    await site.looked();
    assert.equal(await site.metric("edgesync_sidecar_clock_suspect", { reason }), 0);
    assert.ok(site.log.some(({ message }) => message === "the clock is plausible again"));
  });

  test("is still known to be behind after a restart", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    {
      await using site = await openSite(siteOf(world));
      await site.until("the first release", committed("1.0.0"));
    }
    await using site = await openSite(siteOf(world, { clock: wrongClock(() => -365 * DAY) }));
    const status = await site.until("the first look", ({ lastLook }) => lastLook !== null);
    assert.equal(status.time.clockSuspect, "clock_behind");
  });
});

describe("expiry", () => {
  test("stops adoption and never what runs, says which role, and ends when it is signed anew", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    let offset = 0;
    await using site = await openSite(siteOf(world, { clock: wrongClock(() => offset) }));
    await site.until("the first release", committed("1.0.0"));
    const starts = site.application.restarts();
    offset = 20 * DAY;
    const stale = await site.until("expiry", ({ error }) => error?.code === "METADATA_EXPIRED");
    assert.deepEqual(stale.time.expired, ["timestamp"]);
    await world.publish("1.1.0", files("two"));
    await site.looked();
    assert.deepEqual(
      [site.agent.status().release?.version, markOf(site), site.application.restarts()],
      ["1.0.0", "one", starts],
    );
    assert.equal(site.agent.installed(), true);
    const expires = "edgesync_sidecar_metadata_expiry_timestamp_seconds";
    const timestamp = await site.metric(expires, { role: "timestamp" });
    assert.ok(timestamp > 0 && timestamp < (Date.now() + offset) / 1000);
    assert.ok(site.log.some(({ fields }) => fields.code === "METADATA_EXPIRED"));
    {
      const later = Date.now() + offset;
      await using open = await openRepository(world.repository, later);
      await renew(open, openKeyring(join(world.folder, "keys"), undefined), later);
    }
    await site.until("the second release", committed("1.1.0"));
    await site.until("no error", ({ error }) => error === null);
    assert.deepEqual(site.agent.status().time.expired, []);
    await site.looked();
    for (const role of ["root", "targets", "channel.web.stable", "app.web"])
      assert.ok((await site.metric(expires, { role })) > Date.now() / 1000, role);
  });

  test("waits for the allowance for skew, a day by default", async () => {
    for (const [skew, late, code] of [
      ["24h", 14.9, undefined],
      ["24h", 15.1, "METADATA_EXPIRED"],
      ["24h,timestamp=1h", 14.9, "METADATA_EXPIRED"],
    ] as const) {
      await using world = await openWorld();
      await world.publish("1.0.0", files("one"));
      const settings = { clockSkew: clockSkew.parse(skew) ?? assert.fail(skew) };
      const clock = wrongClock(() => late * DAY);
      await using site = await openSite(siteOf(world, { settings, clock }));
      if (code === undefined) await site.until("the release", committed("1.0.0"));
      else await site.until("the refusal", ({ error }) => error?.code === code);
    }
  });

  test("in the middle of a trial does not end the trial", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    let offset = 0;
    const settings = { trialDuration: 400 };
    const clock = wrongClock(() => offset);
    await using site = await openSite(siteOf(world, { settings, clock }));
    await site.until("the first release", committed("1.0.0"));
    await world.publish("1.1.0", files("two"));
    await site.until("the trial", ({ phase }) => phase === "trial");
    offset = 100 * DAY;
    await site.until("the commit", committed("1.1.0"));
  });
});
