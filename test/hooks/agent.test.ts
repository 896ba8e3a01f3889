import assert from "node:assert/strict";
import { readlinkSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { Settings } from "#core/settings.ts";
import { openHolds } from "../../sidecar/application/hold.ts";
import { closedPort } from "../support/server.ts";
import { journalOf } from "../update/support/invariants.ts";
import { committed, openSite } from "../update/support/site.ts";
import type { Site, SiteOptions } from "../update/support/site.ts";
import { changed, noise, openWorld } from "../update/support/world.ts";
import type { World } from "../update/support/world.ts";
import { fastClock, openAsked } from "./support.ts";
import type { Asked } from "./support.ts";

const MODEL = noise(11, 5_000);

/** One world, in which every site begins with the last release that was published before it. */
describe("an application with hooks", () => {
  let world: World;
  let minor = 0;
  let sites = 0;
  before(async () => {
    world = await openWorld();
    await publish();
  });
  after(() => world[Symbol.asyncDispose]());

  async function publish(health = "good"): Promise<string> {
    minor += 1;
    const version = `1.${minor}.0`;
    await world.publish(version, { health, "model.bin": changed(MODEL, 10, version) });
    return version;
  }

  /** A site that has a release, and the next one is not there yet. */
  async function settled(
    settings: (asked: Asked) => Partial<Settings>,
    more: Partial<SiteOptions> = {},
  ): Promise<{ asked: Asked; site: Site; first: string } & AsyncDisposable> {
    const first = `1.${minor}.0`;
    const asked = await openAsked();
    const site = await openSite({
      payload: join(world.folder, `site-${(sites += 1)}`),
      url: world.origin.url,
      root: world.root,
      ...more,
      settings: { pollInterval: 100, ...settings(asked), ...more.settings },
    });
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

  const all = ({ target }: Asked): Partial<Settings> => ({
    hookPreDownload: target,
    hookPreSwap: target,
    hookPostSwap: target,
    hookHealth: target,
    hookPostCommit: target,
    hookPostRollback: target,
  });

  test("is not asked whether the first release may be fetched: nothing runs that could answer", async () => {
    await using setup = await settled(all);
    const { asked, first } = setup;
    const calls = asked.of("pre-download").filter(({ version }) => version === first);
    assert.deepEqual(calls, []);
  });

  test("is asked and told in this order, each time about the same release", async () => {
    await using setup = await settled(all);
    const { asked, site, first } = setup;
    const version = await publish();
    await site.until("the release", committed(version));
    await site.looked();
    // Of the first release the application may be told late.
    const calls = asked.calls.filter((call) => call.version === version);
    const order = calls.map(({ hook }) => hook).filter((hook, at, list) => hook !== list[at - 1]);
    assert.deepEqual(order, ["pre-download", "pre-swap", "post-swap", "health", "post-commit"]);
    for (const call of calls) assert.deepEqual([call.from, call.sequence], [first, minor]);
  });

  test("can refuse a release before it is fetched: not a byte is, until a person says so", async () => {
    await using setup = await settled(all);
    const { asked, site, first } = setup;
    asked.answer = ({ hook }) =>
      hook === "pre-download" ? { status: 409, text: "roaming" } : { status: 204 };
    world.origin.reset();
    const version = await publish();
    const { blocked } = await site.until("the refusal", (status) => status.blocked !== null);
    assert.deepEqual([blocked?.version, blocked?.reason], [version, "hook_refused"]);
    await site.looked();
    assert.equal(asked.of("pre-download").filter((call) => call.version === version).length, 1);
    assert.equal(world.origin.requests.filter(({ path }) => path.startsWith("blobs/")).length, 0);
    assert.equal(site.agent.status().release?.version, first);
    asked.answer = () => ({ status: 204 });
    site.agent.retry();
    await site.until("the release after all", committed(version));
  });

  test("can refuse a release before it is swapped in: it is not restarted for it", async () => {
    await using setup = await settled(all);
    const { asked, site, first } = setup;
    asked.answer = ({ hook }) => ({ status: hook === "pre-swap" ? 500 : 204 });
    const version = await publish();
    const { blocked } = await site.until("the refusal", (status) => status.blocked !== null);
    assert.deepEqual([blocked?.version, blocked?.reason], [version, "hook_refused"]);
    await site.looked();
    assert.equal(site.agent.status().release?.version, first);
    assert.equal(site.application.restarts(), 0);
    asked.answer = () => ({ status: 204 });
    const next = await publish();
    await site.until("the next release", committed(next));
  });

  test("can refuse a release that it has got: it gets the one before back", async () => {
    await using setup = await settled(all);
    const { asked, site, first } = setup;
    asked.answer = ({ hook }) => ({
      status: hook === "post-swap" ? 422 : 204,
      text: "wrong model",
    });
    const version = await publish();
    const { blocked } = await site.until("the refusal", (status) => status.blocked !== null);
    assert.deepEqual([blocked?.version, blocked?.reason], [version, "hook_refused"]);
    await site.until("the release before", committed(first));
    await site.looked();
    assert.equal(site.application.running(), readlinkSync(join(site.payload, "current")));
    assert.equal(site.application.restarts(), 2);
    const [told] = asked.of("post-rollback");
    assert.deepEqual([told?.version, told?.from], [first, version]);
    assert.deepEqual(
      asked.of("post-commit").filter((call) => call.version === version),
      [],
    );
  });

  test("can say that a release is not well, beside its probes", async () => {
    await using setup = await settled(all);
    const { asked, site } = setup;
    asked.answer = ({ hook }) => ({ status: hook === "health" ? 500 : 204 });
    await publish();
    const { blocked } = await site.until("the rollback", (status) => status.blocked !== null);
    assert.equal(blocked?.reason, "health_failed");
  });

  test("can put a swap off, for as long as it says", async () => {
    await using setup = await settled(all);
    const { asked, site } = setup;
    let busy = 2;
    const at: number[] = [];
    asked.answer = ({ hook }) => {
      if (hook !== "pre-swap") return { status: 204 };
      at.push(performance.now());
      return busy-- > 0 ? { status: 503, headers: { "retry-after": "1" } } : { status: 204 };
    };
    const version = await publish();
    const { waiting } = await site.until("the wait", (status) => status.waiting !== null);
    assert.ok(Date.parse(waiting?.until ?? "") > Date.parse(waiting?.since ?? ""));
    assert.equal(site.application.restarts(), 0);
    await site.until("the release", committed(version));
    // And not at each look at the channel, of which there were ten meanwhile.
    const [first = 0, second = 0, third = 0] = at;
    assert.ok(second - first >= 950 && third - second >= 950 && at.length === 3, at.join());
  });

  test("that is dead does not keep its cure away for ever", async () => {
    const dead = { kind: "http", port: await closedPort(), path: "/" } as const;
    await using setup = await settled(() => ({ hookPreDownload: dead, hookPreSwap: dead }), {
      clock: fastClock(1_000),
      settings: { pollInterval: 60_000, trialDuration: 5_000, trialTimeout: 600_000 },
    });
    const { site } = setup;
    const begun = performance.now();
    const version = await publish();
    await site.until("the release", committed(version));
    assert.ok((performance.now() - begun) * 1_000 >= 1_200_000, "ten minutes for each of the two");
    const said = site.log.filter(
      ({ message, fields }) => message === "hook called" && fields.version === version,
    );
    assert.deepEqual(
      said
        .filter(({ level }) => level === "info")
        .map(({ fields }) => [fields.hook, fields.answer]),
      [
        ["pre-download", "go"],
        ["pre-swap", "go"],
      ],
    );
  });

  test("that holds or puts off a release for ever is overruled after hold-limit, and before it is not", async () => {
    const clock = fastClock(2_000);
    const log = { debug() {}, info() {}, warn() {}, error() {} };
    const volume = undefined;
    const book = openHolds({ clock, log, volume, folder: undefined, pod: undefined });
    await using setup = await settled(({ target }) => ({ hookPreSwap: target }), {
      clock,
      holds: book.list,
      settings: {
        pollInterval: 60_000,
        trialDuration: 5_000,
        trialTimeout: 600_000,
        holdLimit: 3_600_000,
      },
    });
    const { asked, site } = setup;
    asked.answer = ({ hook }) => ({ status: hook === "pre-swap" ? 503 : 204 });
    await book.put("stuck", { forMs: 86_400_000, reason: undefined });
    const version = await publish();
    await site.until("the hold", ({ waiting }) => waiting?.reason === "app_lease");
    const begun = clock.monotonic();
    await site.until("the release", committed(version));
    assert.ok(clock.monotonic() - begun >= 3_500_000);
    const said = site.log.filter(({ fields }) => fields.owner === "stuck");
    assert.equal(said.length, 1);
  });

  test("where a hook cannot be asked keeps what it has until that is mended, and says so", async () => {
    await using setup = await settled(({ target }) => ({ hookPreDownload: target }));
    const { asked, site, first } = setup;
    asked.answer = () => ({ status: 404 });
    const version = await publish();
    const { waiting } = await site.until("the wait", (status) => status.waiting !== null);
    assert.deepEqual(
      [waiting?.reason, waiting?.failure?.check, waiting?.failure?.target],
      ["hook_broken", "pre-download", `http:${asked.port}/hooks`],
    );
    await site.looked();
    const { blocked, release } = site.agent.status();
    assert.deepEqual([blocked, release?.version], [null, first]);
    assert.equal(await site.metric("edgesync_sidecar_waiting", { reason: "hook_broken" }), 1);
    const said = site.log.filter(({ level }) => level === "error");
    assert.deepEqual(
      said.map(({ message }) => message),
      ["a hook cannot be asked", "waiting until that is mended"],
    );
    asked.answer = () => ({ status: 204 });
    site.agent.retry();
    await site.until("the release", committed(version));
  });

  test("that never answers after a swap loses the release when the trial is over", async () => {
    const dead = { kind: "http", port: await closedPort(), path: "/" } as const;
    await using setup = await settled(() => ({ hookPostSwap: dead }), {
      settings: { trialTimeout: 200 },
    });
    const { site } = setup;
    await publish();
    const { blocked } = await site.until("the rollback", (status) => status.blocked !== null);
    assert.equal(blocked?.reason, "trial_timeout");
    const { check, target, result } = blocked?.failure ?? {};
    assert.deepEqual([check, target, result], ["post-swap", `http:${dead.port}/`, "ECONNREFUSED"]);
    // It is told also after a restart of the sidecar: the journal holds it.
    assert.deepEqual(journalOf(site.payload).channels["web/stable"]?.blocked, blocked);
  });

  test("has the half a minute that a hook has to say whether a release is right", async () => {
    const clock = fastClock(50);
    await using setup = await settled(({ target }) => ({ hookPostSwap: target }), {
      clock,
      settings: { pollInterval: 60_000, trialDuration: 5_000, trialTimeout: 300_000 },
    });
    const { asked, site } = setup;
    asked.answer = async () => {
      await clock.sleep(15_000, new AbortController().signal);
      return { status: 204 };
    };
    const version = await publish();
    site.agent.look();
    await site.until("the release", committed(version));
  });

  test("is told what it was to be told also when it does not run yet when the sidecar comes up", async () => {
    let held = true;
    await using asked = await openAsked();
    await using site = await openSite({
      payload: join(world.folder, `site-${(sites += 1)}`),
      url: world.origin.url,
      root: world.root,
      settings: { pollInterval: 20, hookPostCommit: asked.target },
      held: () => held,
    });
    await site.until("the first release", committed(`1.${minor}.0`));
    // More often than a notice is given up after.
    for (let round = 0; round < 12; round++) await site.looked();
    assert.equal(asked.of("post-commit").length, 0);
    held = false;
    await site.until("the notice", () => asked.of("post-commit").length === 1);
  });

  test("that never hears a notice goes on getting releases", async () => {
    const dead = { kind: "http", port: await closedPort(), path: "/" } as const;
    await using setup = await settled(() => ({ hookPostCommit: dead }));
    const { site } = setup;
    for (let round = 0; round < 2; round++) {
      const version = await publish();
      await site.until("the release", committed(version));
    }
  });
});
