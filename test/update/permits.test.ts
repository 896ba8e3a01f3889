import assert from "node:assert/strict";
import { existsSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import type { Clock } from "#core/clock.ts";
import type { ChannelDocument } from "#core/channel-document.ts";
import { windows } from "#core/window.ts";
import { realClock } from "../support/real-clock.ts";
import { httpServer } from "../support/server.ts";
import type { UpdateStatus } from "../../sidecar/update/report.ts";
import { application, committed, openSite } from "./support/site.ts";
import type { Application, SiteOptions } from "./support/site.ts";
import { PLATFORM, noise, openWorld } from "./support/world.ts";
import type { Files, World } from "./support/world.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const KIB = 1024;

/** A clock that goes as real ones do, and may be put on besides. Waits of hours take milliseconds. */
interface SiteClock extends Clock {
  /** So much time has passed. */
  readonly pass: (ms: number) => void;
  /** Somebody sets the clock, and no time has passed. */
  readonly set: (byMs: number) => void;
}

/** Begins at noon of a day that is near enough for metadata that is signed today. */
function siteClock(): SiteClock {
  const begin = performance.now();
  const noon = Math.ceil(Date.now() / DAY) * DAY + 12 * HOUR;
  let passed = 0;
  let wrong = 0;
  return {
    now: () => noon + wrong + passed + performance.now() - begin,
    monotonic: () => passed + performance.now(),
    sleep: (ms, signal) => realClock.sleep(Math.min(ms, 5), signal),
    pass(ms) {
      passed += ms;
    },
    set(ms) {
      wrong += ms;
    },
  };
}

function files(mark: string, size: number): Files {
  return { health: "good\n", mark, "data/model.bin": noise(size + mark.length, size) };
}

function siteOf(world: World, options: Partial<SiteOptions> = {}): SiteOptions {
  const payload = join(world.folder, "payload");
  return { payload, url: world.origin.url, root: world.root, ...options };
}

function windowsOf(text: string): NonNullable<ReturnType<typeof windows.parse>> {
  const parsed = windows.parse(text);
  assert.ok(parsed !== undefined);
  return parsed;
}

const waitsFor =
  (moment: string, reason: string) =>
  ({ waiting }: UpdateStatus): boolean =>
    waiting?.moment === moment && waiting.reason === reason;

/** Bytes of blobs that the repository has sent. */
function sent(world: World): number {
  return world.origin.requests
    .filter(({ path }) => path.startsWith("blobs/"))
    .reduce((sum, { bytes }) => sum + bytes, 0);
}

function markOf(payload: string): string {
  return readFileSync(join(payload, "current/mark"), "utf8");
}

describe("a download window", () => {
  test("that closes ends the download that is under way, which goes on where it was when it opens", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one", 1_000));
    // So slow that a download is behind its rate by more than a minute, which are the only waits here that take long.
    const clock: SiteClock = {
      ...siteClock(),
      sleep: (ms, signal) => realClock.sleep(ms > MINUTE ? 200 : Math.min(ms, 5), signal),
    };
    const downloadWindow = windowsOf("0 12 * * * 1h");
    const settings = { downloadWindow, downloadRate: KIB };
    await using site = await openSite(siteOf(world, { clock, settings }));
    await site.until("the first release", committed("1.0.0"));
    world.origin.reset();
    const size = 600_000;
    await world.publish("1.1.0", files("two", size));
    await site.until("some bytes", ({ plan }) => (plan?.receivedBytes ?? 0) > 150_000);
    clock.pass(HOUR);
    const closed = await site.until("the close", waitsFor("download", "download_window"));
    assert.equal(closed.phase, "downloading");
    assert.equal(new Date(closed.waiting?.until ?? "").toISOString().slice(11, 16), "12:00");
    assert.equal(await site.metric("edgesync_sidecar_waiting", { reason: "download_window" }), 1);
    const before = site.agent.status().plan?.receivedBytes ?? 0;
    assert.ok(before < size, `${before} bytes have come`);
    await site.looked();
    assert.equal(site.agent.status().plan?.receivedBytes, before);
    assert.equal(markOf(site.payload), "one");
    clock.pass(23 * HOUR);
    await site.until("the second release", committed("1.1.0"));
    const again = world.origin.requests.filter(({ range }) => range !== undefined);
    assert.ok(again.length > 0);
    const all = site.agent.status().plan?.receivedBytes ?? 0;
    assert.ok(all < size + 128 * KIB, `${all} bytes for ${size}`);
    assert.equal(site.agent.status().waiting, null);
    assert.equal(await site.metric("edgesync_sidecar_waiting"), 0);
    assert.deepEqual(
      site.log
        .filter(({ message }) => message.startsWith("waiting"))
        .map(({ fields }) => fields.reason),
      ["download_window", undefined],
    );
  });

  test("is not waited for by a site that has nothing yet", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one", 1_000));
    const settings = { hold: true, downloadWindow: windowsOf("0 2 * * * 1h") };
    await using site = await openSite(siteOf(world, { clock: siteClock(), settings }));
    await site.until("the first release", committed("1.0.0"));
  });

  test("lets a newer release take the place of the one that waits", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one", 1_000));
    const clock = siteClock();
    const settings = { downloadWindow: windowsOf("0 2 * * * 1h") };
    await using site = await openSite(siteOf(world, { clock, settings }));
    await site.until("the first release", committed("1.0.0"));
    world.origin.reset();
    await world.publish("1.1.0", files("two", 300_000));
    await site.until("the wait", waitsFor("download", "download_window"));
    await world.publish("1.2.0", files("three", 1_000));
    await site.until("the newer one", ({ target }) => target?.version === "1.2.0");
    clock.pass(14 * HOUR + MINUTE);
    await site.until("the newer release", committed("1.2.0"));
    assert.ok(sent(world) < 100_000, "nothing of the one between was fetched");
  });
});

describe("a swap window", () => {
  test("keeps a release that has been fetched from the application until it opens", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one", 1_000));
    const clock = siteClock();
    const settings = { swapWindow: windowsOf("0 2 * * * 1h") };
    const options = siteOf(world, { clock, settings });
    {
      await using site = await openSite(options);
      await site.until("the first release", committed("1.0.0"));
      await world.publish("1.1.0", files("two", 1_000));
      const { phase } = await site.until("the wait", waitsFor("swap", "swap_window"));
      assert.deepEqual([phase, markOf(site.payload)], ["staged", "one"]);
      await site.looked();
      assert.equal(site.application.restarts(), 0);
    }
    // A site that starts anew waits for the same.
    await using site = await openSite(options);
    await site.until("the wait", waitsFor("swap", "swap_window"));
    clock.pass(14 * HOUR + MINUTE);
    await site.until("the second release", committed("1.1.0"));
    assert.equal(site.application.restarts(), 1);
  });
});

describe("a download budget", () => {
  test("stretches a release over days, whatever the clock does and however often the sidecar starts", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one", 1_000));
    const clock = siteClock();
    const budget = 192 * KIB;
    const settings = { downloadBudget: budget };
    const options = siteOf(world, { clock, settings });
    const size = 450_000;
    const spent = waitsFor("download", "download_budget");
    {
      await using site = await openSite(options);
      await site.until("the first release", committed("1.0.0"));
      world.origin.reset();
      await world.publish("1.1.0", files("two", size));
      const status = await site.until("the end of the budget", spent);
      assert.equal(status.budget?.limit, budget);
      assert.ok(status.budget.bytes >= budget && status.budget.bytes < budget + 64 * KIB);
      assert.equal(await site.metric("edgesync_sidecar_day_bytes"), status.budget.bytes);
      clock.set(-3 * DAY);
      await site.looked();
      assert.ok(spent(site.agent.status()), "a clock that is put back is no new day");
      clock.set(3 * DAY);
    }
    const saved = JSON.parse(readFileSync(join(options.payload, "usage.json"), "utf8")) as {
      bytes: number;
    };
    assert.ok(saved.bytes >= budget);
    let days = 1;
    {
      await using site = await openSite(options);
      await site.until("the end of the budget", spent);
      await site.looked();
      const received = (): number => site.agent.status().plan?.receivedBytes ?? 0;
      assert.equal(received(), 0, "a restart gives nothing");
      for (; !committed("1.1.0")(site.agent.status()) && days < 6; days++) {
        const before = received();
        clock.pass(DAY);
        await site.until(
          "the next day's share",
          (status) => committed("1.1.0")(status) || (spent(status) && received() > before),
        );
        assert.ok(received() - before < budget + 64 * KIB);
      }
      assert.equal(markOf(site.payload), "two");
    }
    assert.ok(days === 3 || days === 4, `${days} days`);
  });

  test("that cannot be read has been spent", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one", 1_000));
    const clock = siteClock();
    const options = siteOf(world, { clock, settings: { downloadBudget: 512 * KIB } });
    {
      await using site = await openSite(options);
      await site.until("the first release", committed("1.0.0"));
    }
    writeFileSync(join(options.payload, "usage.json"), '{"schema":1,"da');
    await world.publish("1.1.0", files("two", 1_000));
    await using site = await openSite(options);
    await site.until("the wait", waitsFor("download", "download_budget"));
    clock.pass(DAY);
    await site.until("the second release", committed("1.1.0"));
  });
});

describe("a download rate", () => {
  test("is held on the wire, and used", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one", 1_000));
    const rate = 200_000;
    const settings = { downloadRate: rate };
    await using site = await openSite(siteOf(world, { settings }));
    await site.until("the first release", committed("1.0.0"));
    const size = 600_000;
    await world.publish("1.1.0", files("two", size));
    const ofNew = ({ plan }: UpdateStatus): number =>
      plan?.version === "1.1.0" ? plan.receivedBytes : 0;
    // What may come at once has come.
    const status = await site.until("a second's worth", (now) => ofNew(now) >= rate);
    const begin = performance.now();
    await site.until("the release", ({ phase }) => phase !== "downloading");
    const seconds = (performance.now() - begin) / 1000;
    const least = (size - ofNew(status) - 64 * KIB) / rate;
    // A machine under load may take longer, and never less.
    assert.ok(seconds > least * 0.97, `${seconds} s, at least ${least}`);
    assert.ok(seconds < 2 * least + 2, `${seconds} s, and ${least} would do`);
  });
});

describe("a hold", () => {
  test("of the operator keeps a site as it is until its time, also from what is urgent", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one", 1_000));
    const clock = siteClock();
    const settings = { hold: Math.ceil(clock.now() / HOUR) * HOUR };
    await using site = await openSite(siteOf(world, { clock, settings }));
    await site.until("the first release", committed("1.0.0"));
    world.origin.reset();
    await world.release("1.1.0", files("two", 1_000));
    await world.forgeChannel(urgent("1.1.0", 2));
    await site.until("the wait", waitsFor("download", "held"));
    await site.looked();
    assert.equal(sent(world), 0);
    clock.pass(HOUR);
    await site.until("the second release", committed("1.1.0"));
  });

  test("of the application keeps a release from it until the lease is given back", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one", 1_000));
    let held = true;
    const lease = { owner: "till", since: 0, until: Date.now() + 100 * DAY };
    const holds = (): Promise<readonly (typeof lease)[]> => Promise.resolve(held ? [lease] : []);
    await using site = await openSite(siteOf(world, { holds, clock: siteClock() }));
    await site.until("the first release", committed("1.0.0"));
    await world.publish("1.1.0", files("two", 1_000));
    await site.until("the wait", waitsFor("swap", "app_lease"));
    await site.looked();
    assert.equal(site.application.restarts(), 0);
    held = false;
    await site.until("the second release", committed("1.1.0"));
  });

  test("of the application ends with hold-limit, counted across restarts of the sidecar", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one", 1_000));
    const clock = siteClock();
    const lease = { owner: "till", since: 0, until: clock.now() + 100 * DAY };
    const holds = (): Promise<readonly (typeof lease)[]> => Promise.resolve([lease]);
    const options = siteOf(world, { holds, clock, settings: { holdLimit: 2 * HOUR } });
    {
      await using site = await openSite(options);
      await site.until("the first release", committed("1.0.0"));
      await world.publish("1.1.0", files("two", 1_000));
      await site.until("the wait", waitsFor("swap", "app_lease"));
      clock.pass(HOUR);
      // That somebody sets the clock does not count.
      clock.set(5 * HOUR);
      await site.looked();
      assert.ok(waitsFor("swap", "app_lease")(site.agent.status()));
      clock.set(-5 * HOUR);
    }
    await using site = await openSite(options);
    await site.until("the wait", waitsFor("swap", "app_lease"));
    clock.pass(HOUR);
    await site.until("the second release", committed("1.1.0"));
    const told = site.log.filter(({ message }) => message.startsWith("held for longer"));
    assert.deepEqual(
      told.map(({ fields }) => [fields.owner, fields.version]),
      [["till", "1.1.0"]],
    );
  });
});

describe("an application that always says later", () => {
  test("has hold-limit for each, counted from when it was all that stood in the way", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one", 1_000));
    let asked = 0;
    await using busy = await httpServer((_request, response) => {
      asked += 1;
      response.writeHead(503, { "retry-after": "1" }).end();
    });
    const port = Number(new URL(busy.url).port);
    const clock = siteClock();
    let held = true;
    const settings = {
      hookPreDownload: { kind: "http", port, path: "/download" },
      hookPreSwap: { kind: "http", port, path: "/swap" },
      swapWindow: windowsOf("0 2 * * * 3h"),
      holdLimit: 2 * HOUR,
    } as const;
    await using site = await openSite(siteOf(world, { clock, settings, held: () => held }));
    await site.until("the first release", committed("1.0.0"));
    assert.equal(asked, 0, "while nothing runs nobody is asked");
    held = false;
    await world.publish("1.1.0", files("two", 1_000));
    await site.until("the first wait", waitsFor("download", "hook_later"));
    clock.pass(2 * HOUR);
    // Closed for longer than hold-limit, which is nothing that the application has done.
    await site.until("the window", waitsFor("swap", "swap_window"));
    clock.pass(12 * HOUR);
    await site.until("the second wait", waitsFor("swap", "hook_later"));
    await site.looked();
    assert.equal(site.application.restarts(), 0);
    clock.pass(2 * HOUR);
    await site.until("the second release", committed("1.1.0"));
  });
});

describe("a repair", () => {
  for (const [what, nameOf] of [
    ["a file", () => "current/data/model.bin"],
    ["the list of files", (payload: string) => `${readlinkSync(join(payload, "current"))}.json`],
  ] as const)
    test(`of ${what} fetches nothing while windows are closed, and then does`, async () => {
      await using world = await openWorld();
      await world.publish("1.0.0", files("one", 1_000));
      const clock = siteClock();
      const settings = { downloadWindow: windowsOf("0 2 * * * 1h"), scrubInterval: HOUR };
      await using site = await openSite(siteOf(world, { clock, settings }));
      await site.until("the first release", committed("1.0.0"));
      const lost = join(site.payload, nameOf(site.payload));
      rmSync(lost);
      world.origin.reset();
      clock.pass(2 * HOUR);
      const waits = ({ scrub }: UpdateStatus): boolean => scrub?.error?.code === "DOWNLOAD_WAITS";
      await site.until("the damage", waits);
      assert.equal(sent(world), 0);
      clock.pass(12 * HOUR + MINUTE);
      await site.until("the repair", () => existsSync(lost));
    });
});

function urgent(version: string, sequence: number): ChannelDocument {
  const releases = [{ platform: PLATFORM, version }];
  return { schema: 1, app: "web", channel: "stable", sequence, releases, urgency: "urgent" };
}

describe("what is urgent", () => {
  test("waits for no window, no budget and no spacing, also when it becomes so while it waits", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one", 1_000));
    const clock = siteClock();
    const night = windowsOf("0 2 * * * 1h");
    const settings = { downloadWindow: night, swapWindow: night, downloadBudget: 64 * KIB };
    const app = restartedJustNow(join(world.folder, "payload"), clock);
    await using site = await openSite(siteOf(world, { clock, settings, application: app }));
    await site.until("the first release", committed("1.0.0"));
    await world.publish("1.1.0", files("two", 300_000));
    await site.until("the wait", waitsFor("download", "download_window"));
    await world.forgeChannel(urgent("1.1.0", 3));
    await site.until("the second release", committed("1.1.0"));
    await world.release("1.2.0", files("three", 300_000));
    await world.forgeChannel(urgent("1.2.0", 4));
    await site.until("the third release", committed("1.2.0"));
  });
});

/** Says when it was last restarted, as the lever does. */
function restartedJustNow(payload: string, clock: Clock): Application {
  const app = application(payload);
  let at: number | undefined;
  return {
    ...app,
    async restart(signal) {
      await app.restart(signal);
      at = clock.monotonic();
    },
    sinceRestartMs: () => (at === undefined ? null : clock.monotonic() - at),
  };
}

describe("the spacing of restarts", () => {
  test("lets a release wait that comes too soon after another, and never the way back", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one", 1_000));
    const clock = siteClock();
    const app = restartedJustNow(join(world.folder, "payload"), clock);
    await using site = await openSite(siteOf(world, { clock, application: app }));
    await site.until("the first release", committed("1.0.0"));
    await world.publish("1.1.0", files("two", 1_000));
    await site.until("the second release", committed("1.1.0"));
    await world.publish("1.2.0", { ...files("three", 1_000), health: "bad\n" });
    await site.until("the wait", waitsFor("swap", "spacing"));
    await site.looked();
    assert.equal(site.application.restarts(), 1);
    clock.pass(10 * MINUTE);
    await site.until(
      "the rollback",
      ({ blocked, phase }) => blocked !== null && phase === "committed",
    );
    assert.equal(markOf(site.payload), "two");
    assert.equal(site.application.restarts(), 3);
  });
});

describe("a person", () => {
  test("has what was rolled back tried again, and looks without waiting for the next look", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one", 1_000));
    const settings = { pollInterval: HOUR };
    await using site = await openSite(siteOf(world, { settings }));
    await site.until("the first release", committed("1.0.0"));
    await world.publish("1.1.0", { ...files("two", 1_000), health: "bad\n" });
    site.agent.look();
    const { blocked } = await site.until("the rollback", (status) => status.blocked !== null);
    assert.equal(blocked?.version, "1.1.0");
    await site.until("the end", ({ phase }) => phase === "committed");
    const before = site.application.restarts();
    site.agent.retry();
    await site.until("another trial", () => site.application.restarts() > before);
  });
});
