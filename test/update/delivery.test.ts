import assert from "node:assert/strict";
import { existsSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { SIDECAR_METRICS } from "#core/metrics.ts";
import type { OnUpdate } from "#core/on-update.ts";
import { createMetrics } from "#core/telemetry.ts";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { openWorkload } from "../../sidecar/application/workload.ts";
import { openAsked } from "../hooks/support.ts";
import type { Asked } from "../hooks/support.ts";
import { fastClock } from "../hooks/support.ts";
import { realClock } from "../support/real-clock.ts";
import { journalOf } from "./support/invariants.ts";
import { application, committed, openSite, siteSettings } from "./support/site.ts";
import type { Application, Site, SiteOptions } from "./support/site.ts";
import { PLATFORM, openWorld } from "./support/world.ts";
import type { World } from "./support/world.ts";

const silent = { debug() {}, info() {}, warn() {}, error() {} };

/** Every site begins with the last release that was published before it. */
describe("an application that cannot be told of a release", () => {
  let world: World;
  let minor = 0;
  let sites = 0;
  before(async () => {
    world = await openWorld();
    await publish();
  });
  after(() => world[Symbol.asyncDispose]());

  async function publish(): Promise<string> {
    minor += 1;
    const version = `1.${minor}.0`;
    await world.publish(version, { health: "good", version });
    return version;
  }

  /** An application that is told as `on-update` says, by the real ways. */
  function told(options: SiteOptions, onUpdate: OnUpdate): Application {
    const settings = siteSettings({ ...options, settings: { ...options.settings, onUpdate } });
    const registry = new Registry();
    const metrics = createMetrics(SIDECAR_METRICS, { Counter, Gauge, Histogram }, registry);
    const workload = openWorkload({
      settings,
      clock: options.clock ?? realClock,
      random: () => 0,
      log: silent,
      metrics,
    });
    return { ...application(options.payload), ...workload, healthPeriodMs: 5 };
  }

  async function settled(
    settings: (asked: Asked) => SiteOptions["settings"],
    clock = fastClock(200),
  ): Promise<{ asked: Asked; site: Site; first: string } & AsyncDisposable> {
    const first = `1.${minor}.0`;
    const asked = await openAsked();
    const options: SiteOptions = {
      payload: join(world.folder, `told-${(sites += 1)}`),
      url: world.origin.url,
      root: world.root,
      clock,
      settings: {
        pollInterval: 30_000,
        trialDuration: 5_000,
        trialTimeout: 400_000,
        health: { kind: "none" },
        ...settings(asked),
      },
    };
    const reload = { kind: "http", port: asked.port, path: "/reload?key=secret" } as const;
    const site = await openSite({ ...options, application: told(options, reload) });
    await site.until("the first release", committed(first));
    return {
      asked,
      site,
      first,
      async [Symbol.asyncDispose]() {
        await site[Symbol.asyncDispose]();
        await asked[Symbol.asyncDispose]();
      },
    };
  }

  test("of a rollback is told of the release that cures it: the channel is looked at all the while", async () => {
    await using setup = await settled(({ target }) => ({ hookPostSwap: target }));
    const { asked, site, first } = setup;
    let deaf = false;
    asked.answer = ({ hook, version }) => {
      if (hook !== "post-swap") return { status: deaf ? 500 : 204 };
      deaf = version === failing;
      return { status: deaf ? 409 : 204, text: "wrong model" };
    };
    const failing = await publish();
    await site.until("the rollback", ({ phase }) => phase === "rolling-back");
    await site.looked();
    await site.looked();
    const { release, blocked } = site.agent.status();
    assert.deepEqual(
      [release?.version, blocked?.version, blocked?.reason],
      [first, failing, "hook_refused"],
    );
    assert.deepEqual(
      [blocked?.failure?.check, blocked?.failure?.result],
      ["post-swap", "HTTP status 409: wrong model"],
    );
    const { mayRun = [], ...state } = journalOf(site.payload) as { mayRun?: readonly unknown[] };
    assert.deepEqual([mayRun, "failed" in state], [[], true]);
    // What it runs is still there while the cure is fetched and tried.
    const bank = readlinkSync(join(site.payload, "current")).replace(/[^/]*$/, "");
    asked.answer = ({ hook, version }) => ({
      status: hook !== "post-swap" && version === first ? 500 : 204,
    });
    const cure = await publish();
    await site.until("the cure", committed(cure));
    assert.ok(existsSync(join(site.payload, bank)));
    assert.equal(site.agent.status().blocked, null);
  });

  test("and a person's retry is done, not only promised", async () => {
    await using setup = await settled(({ target }) => ({ hookPostSwap: target }));
    const { asked, site } = setup;
    let refusing = true;
    asked.answer = ({ hook }) => ({
      status: refusing
        ? hook === "post-swap"
          ? 409
          : asked.of("post-swap").length
            ? 500
            : 204
        : 204,
    });
    const version = await publish();
    await site.until("the rollback", ({ phase }) => phase === "rolling-back");
    refusing = false;
    site.agent.retry();
    await site.until("the release", committed(version));
  });

  test("that nothing of it reached is not the release's fault: it is kept, and tried again when a person says so", async () => {
    await using setup = await settled(() => ({}));
    const { asked, site, first } = setup;
    asked.answer = () => ({ status: 404, text: "no such page" });
    const version = await publish();
    const { blocked } = await site.until("the rollback", ({ phase }) => phase === "rolling-back");
    assert.deepEqual([blocked?.version, blocked?.reason], [version, "not_delivered"]);
    assert.deepEqual(
      [blocked?.failure?.check, blocked?.failure?.target],
      ["on-update", `http:${asked.port}/reload`],
    );
    assert.match(blocked?.failure?.result ?? "", /^HTTP status 404: nothing/);
    const failed = site.log.find(({ message }) => message === "trial failed, going back");
    assert.equal(failed?.fields.result, blocked?.failure?.result);
    asked.answer = () => ({ status: 204 });
    const { waiting, release } = await site.until(
      "the wait",
      (status) => status.phase === "staged" && status.waiting !== null,
    );
    assert.deepEqual([waiting?.reason, release?.version], ["not_delivered", first]);
    const minutes = (Date.parse(waiting?.until ?? "") - Date.parse(waiting?.since ?? "")) / 60_000;
    assert.ok(minutes > 10 && minutes < 17, `${minutes} minutes`);
    world.origin.reset();
    site.agent.retry();
    await site.until("the release", committed(version));
    const fetched = world.origin.requests.filter(({ path }) => path.startsWith("blobs/"));
    assert.deepEqual(fetched, [], "not a byte of it is fetched again");
  });

  test("that nothing of it reached is tried again by itself after a while", async () => {
    await using setup = await settled(() => ({ pollInterval: 600_000 }), fastClock(400));
    const { asked, site } = setup;
    asked.answer = () => ({ status: 404 });
    const version = await publish();
    site.agent.look();
    await site.until("the rollback", ({ phase }) => phase === "rolling-back");
    asked.answer = () => ({ status: 204 });
    await site.until("the release", committed(version));
  });

  test("but that has answered no is not asked again and again: the release is blocked", async () => {
    await using setup = await settled(() => ({}));
    const { asked, site, first } = setup;
    asked.answer = () => ({ status: 500, text: "cannot load it" });
    await publish();
    const { blocked } = await site.until("the rollback", ({ phase }) => phase === "rolling-back");
    assert.deepEqual(
      [blocked?.reason, blocked?.failure?.result],
      ["trial_timeout", "HTTP status 500: cannot load it"],
    );
    asked.answer = () => ({ status: 204 });
    await site.until("the release before", committed(first));
    await site.looked();
    assert.equal(site.agent.status().phase, "committed");
  });

  /** Last: it takes the channel's sequence number far ahead. */
  test("of a rollback is told of it as soon as that is possible, also while the channel is paused", async () => {
    await using setup = await settled(({ target }) => ({
      hookPreSwap: target,
      hookPostSwap: target,
    }));
    const { asked, site, first } = setup;
    let deaf = false;
    asked.answer = ({ hook, version }) => {
      if (hook === "post-swap") deaf = true;
      if (hook === "post-swap") return { status: 409 };
      if (hook === "pre-swap") return { status: version === cure ? 503 : 204 };
      return { status: deaf ? 500 : 204 };
    };
    let cure = "";
    await publish();
    await site.until("the rollback", ({ phase }) => phase === "rolling-back");
    cure = `1.${minor + 1}.0`;
    await publish();
    await site.until("the cure, which waits", ({ phase }) => phase === "staged");
    const mayRun = (): unknown => (journalOf(site.payload) as { mayRun?: unknown }).mayRun;
    assert.notEqual(mayRun(), undefined);
    await world.forgeChannel({
      schema: 1,
      app: "web",
      channel: "stable",
      sequence: 1_000,
      releases: [{ platform: PLATFORM, version: cure }],
      rollout: {
        start: "2026-01-01T00:00:00Z",
        duration: 0,
        percent: 100,
        paused: true,
        salt: "2",
        from: [{ platform: PLATFORM, version: first }],
      },
    });
    await site.until("the pause", ({ rollout }) => rollout?.waiting === "rollout_paused");
    await site.looked();
    deaf = false;
    await site.until("that it was told", () => mayRun() === undefined);
    assert.equal(site.agent.status().phase, "staged");
  });
});
