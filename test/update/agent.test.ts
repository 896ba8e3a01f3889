import assert from "node:assert/strict";
import { existsSync, readFileSync, readdirSync, statSync } from "node:fs";
import { chmod, readdir, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { parseReleaseDocument } from "#core/release-document.ts";
import { authority } from "../support/certificates.ts";
import { realClock } from "../support/real-clock.ts";
import { initRepository } from "../../publisher/init.ts";
import { openKeyring } from "../../publisher/keys.ts";
import { openUpdateAgent } from "../../sidecar/update/agent.ts";
import { application, committed, openSite, siteSettings } from "./support/site.ts";
import type { Application, SiteOptions } from "./support/site.ts";
import { PLATFORM, changed, noise, openWorld } from "./support/world.ts";
import type { Files, World } from "./support/world.ts";

const MODEL = noise(7, 300_000);
const TEXT = "unchanged\n".repeat(50);

/** A release that differs in a few bytes of a large file and in a small one. */
function files(mark: string, health = "good"): Files {
  return {
    health,
    "bin/run": { executable: `#!/bin/sh\necho ${mark}\n` },
    "data/model.bin": changed(MODEL, 1000, mark),
    "data/same.txt": TEXT,
    latest: { link: "bin/run" },
  };
}

function siteOf(world: World, more: Partial<SiteOptions> = {}): SiteOptions {
  const payload = join(world.folder, "site");
  return { payload, url: world.origin.url, root: world.root, ...more };
}

function markOf(payload: string): string {
  return readFileSync(join(payload, "current/data/model.bin")).toString("latin1", 1000, 1003);
}

function blobRequests(world: World): number {
  return world.origin.requests.filter(({ path }) => path.startsWith("blobs/")).length;
}

describe("an update agent", () => {
  test("installs the first release without a trial, then follows the channel by delta", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    await using site = await openSite(siteOf(world));
    const first = await site.until("the first release", committed("1.0.0"));
    assert.equal(site.application.restarts(), 0);
    assert.equal(site.agent.installed(), true);
    assert.equal(first.sequence, 1);
    const current = join(site.payload, "current");
    assert.deepEqual(readFileSync(join(current, "data/model.bin")), changed(MODEL, 1000, "one"));
    assert.equal(statSync(join(current, "bin/run")).mode & 0o777, 0o555);
    assert.equal(readFileSync(join(current, "latest"), "utf8"), "#!/bin/sh\necho one\n");
    const kept = statSync(join(current, "data/same.txt")).ino;

    await world.publish("1.1.0", files("two"));
    await site.until("the second release", committed("1.1.0"));
    await site.looked();
    assert.equal(site.application.restarts(), 1);
    assert.equal(site.application.running(), readdirLink(site.payload));
    assert.equal(markOf(site.payload), "two");
    assert.equal(statSync(join(current, "data/same.txt")).ino, kept);
    const { plan } = site.agent.status();
    assert.ok(plan !== null && plan.downloadBytes < 5_000 && plan.savedBytes > 290_000);
    assert.equal(plan.downloadBytes, plan.receivedBytes);
    assert.equal(readdirSync(join(site.payload, "banks")).length, 2);
    assert.equal(await site.metric("edgesync_sidecar_commits_total"), 2);
    const saved = await site.metric("edgesync_sidecar_saved_bytes_total");
    assert.equal(saved, plan.savedBytes);
  });

  test("asks for next to nothing when nothing is new", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    await using site = await openSite(siteOf(world));
    await site.until("the release", committed("1.0.0"));
    await site.looked();
    world.origin.reset();
    await site.looked();
    const asked = new Set(
      world.origin.requests.map(({ path, status, bytes }) => `${path} ${status} ${bytes}`),
    );
    assert.deepEqual([...asked].toSorted(), [
      "metadata/2.root.json 404 0",
      "metadata/timestamp.json 304 0",
    ]);
  });

  test("goes back from a release that is not healthy, never tries it again, and takes the next", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    await using site = await openSite(siteOf(world));
    await site.until("the first release", committed("1.0.0"));
    await world.publish("1.1.0", files("bad", "bad"));
    const state = await site.until("the rollback", (status) => status.blocked !== null);
    assert.deepEqual([state.blocked?.version, state.blocked?.reason], ["1.1.0", "health_failed"]);
    await site.until("the old release", committed("1.0.0"));
    assert.equal(markOf(site.payload), "one");
    assert.equal(site.application.running(), readdirLink(site.payload));
    world.origin.reset();
    await site.looked();
    assert.equal(blobRequests(world), 0);
    assert.equal(site.application.restarts(), 2);
    const reason = { reason: "health_failed" };
    assert.equal(await site.metric("edgesync_sidecar_rollbacks_total", reason), 1);
    await world.publish("1.2.0", files("two"));
    await site.until("the next release", committed("1.2.0"));
    assert.equal(site.agent.status().blocked, null);
  });

  test("goes back from a release that keeps starting", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    await using site = await openSite(siteOf(world, { settings: { trialDuration: 5_000 } }));
    await site.until("the first release", committed("1.0.0"));
    await world.publish("1.1.0", files("bad", "crashing"));
    const state = await site.until("the rollback", (status) => status.blocked !== null);
    assert.equal(state.blocked?.reason, "too_many_starts");
  });

  test("goes back to an older version only when the channel says so, signed", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    await using site = await openSite(siteOf(world));
    await site.until("the first release", committed("1.0.0"));
    await world.publish("1.1.0", files("two"));
    await site.until("the second release", committed("1.1.0"));
    const releases = [{ platform: PLATFORM, version: "1.0.0" }];
    const document = { schema: 1, app: "web", channel: "stable", sequence: 3, releases } as const;
    await world.forgeChannel(document);
    const refused = await site.until(
      "the refusal",
      ({ error }) => error?.code === "RELEASE_DOWNGRADE",
    );
    assert.deepEqual([refused.release?.version, refused.sequence], ["1.1.0", 3]);
    await world.forgeChannel({ ...document, sequence: 4, downgrade: true });
    await site.until("the downgrade", committed("1.0.0"));
    assert.equal(markOf(site.payload), "one");
  });

  test("adopts a new number for what it has without fetching or restarting anything", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    await using site = await openSite(siteOf(world));
    await site.until("the first release", committed("1.0.0"));
    world.origin.reset();
    await world.channel("1.0.0");
    await site.until("the number", (status) => status.release?.sequence === 2);
    await site.looked();
    assert.equal(blobRequests(world), 0);
    assert.equal(site.application.restarts(), 0);
  });

  test("waits with a trial until the main container may run", async () => {
    let held = true;
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    await using site = await openSite(siteOf(world, { held: () => held, clock: quickClock() }));
    await site.until("the first release", committed("1.0.0"));
    await world.publish("1.1.0", files("two"));
    await site.until("the staged release", (status) => status.phase === "staged");
    await world.publish("1.2.0", files("thr"));
    await site.until(
      "the newer one in its place",
      ({ phase, target }) => phase === "staged" && target?.version === "1.2.0",
    );
    assert.equal(markOf(site.payload), "one");
    assert.equal(site.application.restarts(), 0);
    held = false;
    await site.until("the newest release", committed("1.2.0"));
    assert.equal(site.application.restarts(), 1);
  });

  test("resumes a trial after it was restarted itself", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    const options = siteOf(world);
    const app = application(options.payload);
    {
      await using site = await openSite({
        ...options,
        application: app,
        settings: { trialDuration: 60_000 },
      });
      await site.until("the first release", committed("1.0.0"));
      await world.publish("1.1.0", files("two"));
      await site.until("the trial", (status) => status.trial?.stage === "watching");
    }
    await using site = await openSite({ ...options, application: app });
    assert.deepEqual([site.agent.status().phase, site.agent.status().trial?.resumed], ["trial", 1]);
    assert.equal(markOf(site.payload), "two");
    await site.until("the commit", committed("1.1.0"));
    assert.equal(app.restarts(), 1);
  });

  for (const stage of ["restarting", "watching"] as const)
    test(`does not hold it against a release on trial that its pod may not start after a power cut: ${stage}`, async () => {
      await using world = await openWorld();
      await world.publish("1.0.0", files("one"));
      const options = siteOf(world);
      {
        const app = application(options.payload);
        const stuck = (signal: AbortSignal): Promise<void> =>
          new Promise((_, reject) => {
            // The site may be closed between the swap and this.
            if (signal.aborted) reject(signal.reason as Error);
            signal.addEventListener("abort", () => reject(signal.reason as Error));
          });
        const cut = stage === "restarting" ? { ...app, restart: stuck } : app;
        const settings = { trialDuration: 60_000 };
        await using site = await openSite({ ...options, application: cut, settings });
        await site.until("the first release", committed("1.0.0"));
        await world.publish("1.1.0", files("two"));
        await site.until("the trial", (status) => status.trial?.stage === stage);
      }
      let held = true;
      let looks = 0;
      let passed = 0;
      const clock = { ...realClock, monotonic: () => passed + realClock.monotonic() };

      const app = application(options.payload);
      const starting: Application = {
        ...app,
        check: (signal) => (held ? Promise.resolve("unhealthy") : app.check(signal)),
      };
      const settings = { trialTimeout: 600_000 };
      await using site = await openSite({
        ...options,
        clock: { ...clock, sleep: (ms, signal) => realClock.sleep(Math.min(ms, 5), signal) },
        application: starting,
        settings,
        held: () => {
          looks += 1;
          return held;
        },
      });
      await site.until("a look at the gate", () => looks > 0);
      for (let round = 0; round < 3; round++) {
        passed += 3_600_000;
        const before = looks;
        await site.until("another look at the gate", () => looks > before + 5);
        assert.equal(site.agent.status().phase, "trial");
      }
      held = false;
      if (stage === "watching") app.crash();
      await site.until("the commit", committed("1.1.0"));
      assert.equal(site.agent.status().blocked, null);
    });

  test("takes over a volume that a later start finds, and goes on without the network", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    {
      await using site = await openSite(siteOf(world));
      await site.until("the first release", committed("1.0.0"));
    }
    world.origin.fail(/./, { fault: "status", status: 503 }, 1_000_000);
    await using site = await openSite(siteOf(world));
    assert.deepEqual([site.agent.installed(), site.agent.recovered()], [true, true]);
    const state = await site.until("the error", (status) => status.error !== null);
    assert.equal(state.error?.code, "ORIGIN_UNAVAILABLE");
    assert.equal(markOf(site.payload), "one");
    world.origin.reset();
    await site.until("the link", (status) => status.error === null);
  });

  test("works over TLS, and trusts no other authority than its own", async () => {
    const ca = authority();
    await using world = await openWorld(ca.issue(["localhost"]));
    await world.publish("1.0.0", files("one"));
    {
      await using site = await openSite(siteOf(world, { ca: authority("another").cert }));
      const state = await site.until("the error", (status) => status.error !== null);
      assert.equal(state.error?.code, "TLS_UNTRUSTED");
    }
    await using site = await openSite(siteOf(world, { ca: ca.cert }));
    await site.until("the release", committed("1.0.0"));
  });

  test("needs the settings of a payload", async () => {
    await using world = await openWorld();
    const options = siteOf(world);
    const settings = { ...siteSettings(options), trustRootFile: undefined };
    const deps = { settings, workload: application(options.payload) };
    await assert.rejects(openUpdateAgent(deps as never), { code: "CONFIG_INVALID" });
  });
});

describe("what is not to be trusted is not adopted, and what runs goes on", () => {
  /** A site with 1.0.0, for which something is then wrong; it must say so and stay as it is. */
  async function refused(
    spoil: (world: World) => Promise<Partial<SiteOptions> | void>,
    code: string,
  ): Promise<void> {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    {
      await using site = await openSite(siteOf(world));
      await site.until("the first release", committed("1.0.0"));
    }
    const more = (await spoil(world)) ?? {};
    await using site = await openSite(siteOf(world, more));
    const state = await site.until("the error", (status) => status.error !== null);
    assert.equal(state.error?.code, code);
    await site.looked();
    assert.equal(site.agent.status().release?.version, "1.0.0");
    assert.equal(markOf(site.payload), "one");
    assert.equal(site.application.restarts(), 0);
    assert.ok(site.log.some(({ level, fields }) => level === "warn" && fields.code === code));
  }

  test("a tampered blob", () =>
    refused(async (world) => {
      await world.publish("1.1.0", files("two"));
      world.origin.fail(/^blobs/, { fault: "flipped", at: 30 }, 1_000_000);
    }, "DIGEST_MISMATCH"));

  test("a tampered manifest", () =>
    refused(async (world) => {
      await world.publish("1.1.0", files("two"));
      const folder = join(world.repository, "targets/releases/web/1.1.0");
      const [name = ""] = readdirSync(folder);
      const { manifest } = parseReleaseDocument(readFileSync(join(folder, name)));
      const blob = new RegExp(manifest.full.sha256);
      world.origin.fail(blob, { fault: "flipped", at: 99 }, 1_000_000);
    }, "DIGEST_MISMATCH"));

  test("metadata that another key signed", () =>
    refused(async (world) => {
      await world.publish("1.1.0", files("two"));
      const keyring = openKeyring(join(world.folder, "other-keys"), undefined);
      const root = await initRepository(join(world.folder, "other"), keyring, Date.now());
      return { root };
    }, "METADATA_UNTRUSTED"));

  test("metadata that has expired", () =>
    refused(async (world) => {
      await world.publish("1.1.0", files("two"));
      return { clock: { ...realClock, now: () => Date.now() + 60 * 86_400_000 } };
    }, "METADATA_EXPIRED"));

  test("a channel whose number goes back", () =>
    refused(async (world) => {
      await world.release("1.1.0", files("two"));
      await world.channel("1.0.0");
      {
        await using site = await openSite(siteOf(world));
        await site.until("the number", (status) => status.sequence === 2);
      }
      const releases = [{ platform: PLATFORM, version: "1.1.0" }];
      await world.forgeChannel({ schema: 1, app: "web", channel: "stable", sequence: 1, releases });
    }, "RELEASE_ROLLBACK"));

  test("a channel without a release for this platform", () =>
    refused(async (world) => {
      const document = { schema: 1, app: "web", channel: "stable", sequence: 2 } as const;
      await world.forgeChannel({ ...document, releases: [] });
    }, "RELEASE_NOT_FOUND"));

  test("the document of another channel", () =>
    refused(async (world) => {
      const document = { schema: 1, app: "web", channel: "edge", sequence: 2 } as const;
      await world.forgeChannel({
        ...document,
        releases: [{ platform: PLATFORM, version: "1.0.0" }],
      });
    }, "RELEASE_INVALID"));

  test("a release that only whole files could bring, where the policy does not allow them", () =>
    refused(async (world) => {
      for (const version of ["1.1.0", "1.2.0", "1.3.0", "1.4.0"])
        await world.publish(version, files(version.slice(0, 3)));
      return { settings: { fullFallback: { kind: "never" } } };
    }, "FALLBACK_REFUSED"));

  test("a release for which there is no room", () =>
    refused(async (world) => {
      await world.publish("1.1.0", files("two"));
      return { settings: { payloadSize: 1_000_000 } };
    }, "DISK_FULL"));

  test("a damaged release costs its bytes once, not at every look, and the next one is taken at once", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    await using site = await openSite(siteOf(world));
    await site.until("the first release", committed("1.0.0"));
    world.origin.reset();
    world.origin.fail(/^blobs/, { fault: "flipped", at: 30 }, 1_000_000);
    await world.publish("1.1.0", files("two"));
    await site.until("the error", (status) => status.error?.code === "DIGEST_MISMATCH");
    await site.looked();
    await site.looked();
    assert.equal(blobRequests(world), 1);
    assert.equal(site.agent.status().error?.code, "DIGEST_MISMATCH");
    world.origin.reset();
    await world.publish("1.2.0", files("thr"));
    await site.until("the next release", committed("1.2.0"));
    await site.until("the all-clear", (status) => status.error === null);
  });
});

describe("a journal that cannot be read", () => {
  test("stops updates and nothing else; put aside, the site begins anew from what it has", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    const options = siteOf(world);
    {
      await using site = await openSite(options);
      await site.until("the first release", committed("1.0.0"));
    }
    const journal = join(options.payload, "state.json");
    await writeFile(journal, '{"schema":1,"phase":"comm');
    const before = await readdir(options.payload, { recursive: true });
    await world.publish("1.1.0", files("two"));
    await using site = await openSite(options);
    const { error } = await site.until(
      "the error",
      (status) => status.error?.code === "JOURNAL_INVALID",
    );
    assert.ok(error?.message.includes(join(site.payload, "state.json")), "the file is named");
    assert.deepEqual([site.agent.installed(), site.agent.recovered()], [true, true]);
    assert.equal(site.agent.status().phase, "unknown");
    assert.deepEqual(await readdir(options.payload, { recursive: true }), before);
    assert.equal(markOf(options.payload), "one");
    await rename(journal, `${journal}.broken`);
    await site.until("the release", committed("1.1.0"));
    const { plan } = site.agent.status();
    assert.ok(plan !== null, "there is a plan");
    const { keep, delta } = plan.ways;
    assert.ok(keep.contents > 0 && delta.contents > 0, JSON.stringify(plan));
  });
});

describe("a bank that is damaged", () => {
  test("gives a release what is whole in it; the rest is fetched", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    const options = siteOf(world);
    {
      await using site = await openSite(options);
      await site.until("the first release", committed("1.0.0"));
    }
    for (const path of ["current/data/same.txt", "current/data/model.bin"]) {
      const file = join(options.payload, path);
      await chmod(file, 0o644);
      const bytes = readFileSync(file);
      bytes[5] = 0;
      await writeFile(file, bytes);
    }
    await world.publish("1.1.0", files("two"));
    await using site = await openSite(options);
    await site.until("the second release", committed("1.1.0"));
    assert.equal(readFileSync(join(options.payload, "current/data/same.txt"), "utf8"), TEXT);
    assert.equal(markOf(options.payload), "two");
    assert.ok(existsSync(join(options.payload, "current/health")));
  });
});

function readdirLink(payload: string): string {
  return `banks/${readdirSync(join(payload, "banks")).find((name) => !name.endsWith(".json"))}`;
}

/** Waits of seconds in the agent take milliseconds. */
function quickClock(): typeof realClock {
  return { ...realClock, sleep: (ms, signal) => realClock.sleep(Math.min(ms, 5), signal) };
}
