/** A disk that has lost what the application sees, under a real agent that goes on: all is there again, or the site says why not. */
import assert from "node:assert/strict";
import { existsSync, readFileSync, readlinkSync } from "node:fs";
import { cp, mkdir, readdir, rename, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, beforeEach, describe, test } from "node:test";
import { windows } from "#core/window.ts";
import { MEMORY, temporaryFolder } from "../support/temporary.ts";
import { nodeDisk } from "../../sidecar/disk/durable.ts";
import { openStore } from "../../sidecar/payload/store.ts";
import { checkVolume } from "../update/support/invariants.ts";
import { committed, openSite } from "../update/support/site.ts";
import type { Site } from "../update/support/site.ts";
import { openWorld } from "../update/support/world.ts";
import type { World } from "../update/support/world.ts";
import { bankOf, files, installed, scrubbing } from "./support.ts";

let world: World;
let memory: Awaited<ReturnType<typeof temporaryFolder>>;
let base: string;
let payload: string;
let count = 0;
before(async () => {
  memory = await temporaryFolder(MEMORY);
  world = await openWorld();
  await world.publish("1.0.0", files("1.0.0"));
  base = await installed(world, "1.0.0");
});
after(async () => {
  await memory[Symbol.asyncDispose]();
  await world[Symbol.asyncDispose]();
});
beforeEach(async () => {
  payload = join(memory.path, String(count++));
  await cp(base, payload, { recursive: true, verbatimSymlinks: true });
  world.origin.reset();
});

const lost = (site: Site, kind: string): Promise<number> =>
  site.metric("edgesync_sidecar_scrub_damage_total", { kind });

/** Until the disk's loss has been noticed. */
async function noticed(site: Site, kind: string): Promise<void> {
  for (let turn = 0; turn < 12_000 && (await lost(site, kind)) === 0; turn++) await site.looked();
  assert.ok((await lost(site, kind)) > 0, kind);
}

/** At once: what is being repaired cannot be emptied. */
async function lose(bank: string, gone = join(bank, "../../..", `gone-${count}`)): Promise<void> {
  await rename(bank, gone);
  await rm(gone, { recursive: true, maxRetries: 5 });
}

const OTHER = "banks/0.9.0-0123456789ab";

const LOSSES: Readonly<Record<string, (current: string) => unknown>> = {
  "is gone": (current) => rm(current),
  "points nowhere": async (current) => {
    await rm(current);
    await symlink("banks/9.9.9-000000000000", current);
  },
  "points out of the volume": async (current) => {
    await rm(current);
    await symlink("/etc", current);
  },
  "points to another bank": async (current) => {
    await cp(bankOf(payload), join(payload, OTHER), { recursive: true });
    await rm(current);
    await symlink(OTHER, current);
  },
  "is a file": async (current) => {
    await rm(current);
    await writeFile(current, "x");
  },
  "is a folder": async (current) => {
    await rm(current);
    await mkdir(join(current, "x"), { recursive: true });
  },
};

describe("a site whose link", () => {
  for (const [what, lose] of Object.entries(LOSSES))
    test(`${what} makes it name the committed bank again, and says so`, async () => {
      const current = join(payload, "current");
      const before = readlinkSync(current);
      await using site = await scrubbing(world, payload, { settings: { scrubInterval: 0 } });
      await site.looked();
      await lose(current);
      await noticed(site, "current");
      await site.until("the link", () => existsSync(join(current, "health")));
      assert.equal(readlinkSync(current), before);
      assert.ok(site.log.some(({ message }) => message === "installed release is damaged"));
      assert.ok(site.log.some(({ message }) => message === "installed release repaired"));
      assert.equal(site.application.restarts(), 0);
      assert.equal(site.agent.installed(), true);
    });

  test("is lost while a release waits to be swapped has it again before", async () => {
    await using own = await openWorld();
    await own.publish("1.0.0", files("1.0.0"));
    const volume = await installed(own, "1.0.0");
    await using site = await scrubbing(own, volume, { settings: { hold: true } });
    await own.publish("2.0.0", files("2.0.0"));
    await site.until("the wait", ({ waiting }) => waiting !== null);
    await rm(join(volume, "current"));
    await site.until("the link", () => existsSync(join(volume, "current/health")));
    assert.match(readlinkSync(join(volume, "current")), /1\.0\.0/);
  });

  test("is gone at its start says that as well", async () => {
    await rm(join(payload, "current"));
    await using site = await scrubbing(world, payload);
    assert.equal(await lost(site, "current"), 1);
    assert.equal(site.agent.installed(), true);
  });
});

describe("a site whose bank is gone", () => {
  test("is not ready, builds it anew, and needs no restart of its application", async () => {
    const bank = bankOf(payload);
    {
      await using site = await scrubbing(world, payload);
      await site.looked();
      world.origin.fail(/^blobs/, { fault: "status", status: 503 }, Number.POSITIVE_INFINITY);
      await lose(bank);
      await site.until("the error", ({ scrub }) => scrub?.error?.code === "ORIGIN_UNAVAILABLE");
      assert.equal(site.agent.installed(), false);
      assert.equal(site.agent.status().phase, "committed");
      assert.equal(site.agent.status().release, null);
      assert.equal(await lost(site, "bank"), 1);
      assert.equal(await site.metric("edgesync_sidecar_scrub_damaged"), 1);
      assert.ok(!existsSync(bank));
      world.origin.reset();
      // The bank is seen as soon as it has its name, a moment before the repair is counted.
      await site.until(
        "the bank",
        ({ release, scrub }) => release !== null && scrub?.error === null,
      );
      assert.ok(existsSync(join(payload, "current/health")));
      assert.equal(await site.metric("edgesync_sidecar_scrub_damaged"), 0);
      assert.equal(site.agent.status().scrub?.error, null);
      assert.equal(site.application.restarts(), 0);
    }
    await checkVolume(payload);
    assert.equal(bankOf(payload), bank);
  });

  test("takes another bank before it asks the network, also where nothing is verified", async () => {
    await using site = await scrubbing(world, payload, {
      settings: { scrubInterval: 0, fullFallback: { kind: "never" } },
    });
    await site.looked();
    const bank = bankOf(payload);
    await cp(bank, join(payload, OTHER), { recursive: true, verbatimSymlinks: true });
    await cp(`${bank}.json`, join(payload, `${OTHER}.json`));
    world.origin.reset();
    await lose(bank);
    await noticed(site, "bank");
    await site.until("the bank", ({ release }) => release !== null);
    assert.equal(world.origin.requests.filter(({ path }) => path.startsWith("blobs")).length, 0);
    assert.equal(readFileSync(join(payload, "current/version"), "utf8"), "1.0.0");
  });

  test("keeps to the policy, and to another bank that the link names meanwhile", async () => {
    const bank = bankOf(payload);
    await using site = await scrubbing(world, payload, {
      settings: { fullFallback: { kind: "never" } },
    });
    await site.looked();
    await mkdir(join(payload, OTHER));
    await rm(join(payload, "current"));
    await rename(bank, join(memory.path, `kept-${count}`));
    await symlink(OTHER, join(payload, "current"));
    await site.until("the error", ({ scrub }) => scrub?.error?.code === "FALLBACK_REFUSED");
    await site.looked();
    assert.equal(readlinkSync(join(payload, "current")), OTHER);
    await rename(join(memory.path, `kept-${count}`), bank);
    await site.until("the release", committed("1.0.0"));
    assert.equal(bankOf(payload), bank);
  });

  test("builds it from the list of files that the repository has, where that is gone too", async () => {
    await using site = await scrubbing(world, payload);
    await site.looked();
    await lose(join(payload, "banks"), join(memory.path, `gone-${count}`));
    await noticed(site, "bank");
    await site.until("the bank", ({ release }) => release !== null);
    assert.ok(existsSync(join(payload, "current/health")));
  });

  test("commits what is staged, having nothing to go back to", async () => {
    await using own = await openWorld();
    await own.publish("1.0.0", files("1.0.0"));
    const volume = await installed(own, "1.0.0");
    const bank = bankOf(volume);
    const swapWindow = windows.parse(`0 ${(new Date().getUTCHours() + 12) % 24} * * * 1h`);
    await using site = await scrubbing(own, volume, { settings: { swapWindow } });
    await own.publish("2.0.0", files("2.0.0"));
    await site.until("the wait", ({ waiting }) => waiting?.moment === "swap");
    await lose(bank);
    await site.until("the commit", committed("2.0.0"));
    assert.match(bankOf(volume), /2\.0\.0/);
  });

  test("does not wait for the window of the next release to have it again", async () => {
    await using own = await openWorld();
    await own.publish("1.0.0", files("1.0.0"));
    const volume = await installed(own, "1.0.0");
    const bank = bankOf(volume);
    const seedDir = join(own.folder, "seed");
    await cp(bank, seedDir, { recursive: true, verbatimSymlinks: true });
    const downloadWindow = windows.parse(`0 ${(new Date().getUTCHours() + 12) % 24} * * * 1h`);
    await using site = await scrubbing(own, volume, { settings: { downloadWindow, seedDir } });
    await own.publish("2.0.0", files("2.0.0"));
    await site.until("the wait", ({ waiting }) => waiting?.moment === "download");
    await lose(bank);
    await noticed(site, "bank");
    await site.until("the bank", ({ release }) => release !== null);
    assert.equal(readFileSync(join(volume, "current/version"), "utf8"), "1.0.0");
    assert.equal(site.agent.status().waiting?.moment, "download");
  });

  test("says so at its start, and installs what its channel names", async () => {
    await lose(bankOf(payload));
    const { url } = world.origin;
    await using site = await openSite({ payload, url, root: world.root });
    assert.equal(await lost(site, "bank"), 1);
    await site.until("the release", committed("1.0.0"));
  });
});

test("a link that names a bank is never made to name one that is gone", async () => {
  const store = await openStore(payload, nodeDisk);
  const before = await store.current();
  await assert.rejects(store.activate("9.9.9-000000000000"), { code: "DISK_FAILED" });
  assert.equal(await store.current(), before);
});

test("a site whose volume has lost everything has it again, with what it knew", async () => {
  await using site = await scrubbing(world, payload);
  await site.looked();
  const journal = readFileSync(join(payload, "state.json"), "utf8");
  for (const name of await readdir(payload))
    await rm(join(payload, name), { recursive: true, force: true });
  await noticed(site, "journal");
  await site.until("the bank", ({ release }) => release !== null);
  assert.ok(existsSync(join(payload, "current/health")));
  assert.equal(readFileSync(join(payload, "state.json"), "utf8"), journal);
});
