/** A disk that forgets, under a real agent: everything is as signed again, or the site says why not. */
import assert from "node:assert/strict";
import { closeSync, openSync, readFileSync, readSync, statSync } from "node:fs";
import {
  chmod,
  cp,
  link,
  mkdir,
  readlink,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { after, before, beforeEach, describe, test } from "node:test";
import { EdgeSyncError } from "#core/errors.ts";
import type { Damage } from "#core/scrub.ts";
import { MEMORY, temporaryFolder } from "../support/temporary.ts";
import { nodeDisk } from "../../sidecar/disk/durable.ts";
import type { Disk } from "../../sidecar/disk/durable.ts";
import { checkVolume } from "../update/support/invariants.ts";
import type { Site } from "../update/support/site.ts";
import { openWorld } from "../update/support/world.ts";
import type { World } from "../update/support/world.ts";
import { SIZE, bankOf, files, flip, installed, keepBank, scraps, scrubbing } from "./support.ts";

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
  const [text, same] = ["text", "same"].map((name) => join(bankOf(payload), "data/deep", name));
  // Equal files are links to each other, which a copy does not keep.
  await rm(same ?? "");
  await link(text ?? "", same ?? "");
  world.origin.reset();
});

const blobs = (): number =>
  world.origin.requests.filter(({ path }) => path.startsWith("blobs")).length;
const fetched = (): number =>
  world.origin.requests.reduce(
    (sum, { path, bytes }) => (path.startsWith("blobs") ? sum + bytes : sum),
    0,
  );

/** A pass that found nothing has begun and ended after everything that went before. */
async function clean(site: Site): Promise<void> {
  const from = site.agent.status().scrub?.lastPass ?? "";
  for (let turn = 0; turn < 2; turn++) {
    const last = turn === 0 ? from : (site.agent.status().scrub?.lastPass ?? "");
    await site.until("a pass", ({ scrub }) => scrub !== null && (scrub.lastPass ?? "") > last);
  }
}

/** What may befall a bank, and what the scrub calls it. */
const DAMAGES: Readonly<Record<string, readonly [Damage, (bank: string) => unknown]>> = {
  "a flipped bit": ["content", (bank) => flip(join(bank, "data/model.bin"), 222_222)],
  "a flipped bit in a file with two names": [
    "content",
    (bank) => flip(join(bank, "data/deep/text"), 5),
  ],
  "a file that has lost its end": ["content", (bank) => truncate(join(bank, "data/model.bin"), 9)],
  "a file that is gone": ["missing", (bank) => rm(join(bank, "data/model.bin"))],
  "a directory that is gone": [
    "missing",
    (bank) => rm(join(bank, "data"), { recursive: true, maxRetries: 5 }),
  ],
  "a file where there should be a directory": [
    "kind",
    async (bank) => {
      await rm(join(bank, "data/deep"), { recursive: true, maxRetries: 5 });
      await writeFile(join(bank, "data/deep"), "x");
    },
  ],
  "a directory where there should be a file": [
    "kind",
    async (bank) => {
      await rm(join(bank, "version"));
      await mkdir(join(bank, "version/x"), { recursive: true });
    },
  ],
  "a file more": ["extra", (bank) => writeFile(join(bank, "data/more"), "x")],
  "a directory more": ["extra", (bank) => mkdir(join(bank, "more/and/more"), { recursive: true })],
  "a link to elsewhere": [
    "target",
    async (bank) => {
      await rm(join(bank, "latest"));
      await symlink("version", join(bank, "latest"));
    },
  ],
  "a link that is gone": ["missing", (bank) => rm(join(bank, "latest"))],
  "a link out of the bank in a file's place": [
    "kind",
    async (bank) => {
      await rm(join(bank, "version"));
      await symlink("/etc/hostname", join(bank, "version"));
    },
  ],
  "a file that nobody may read": ["mode", (bank) => chmod(join(bank, "data/model.bin"), 0)],
  "a program that nobody may run": ["mode", (bank) => chmod(join(bank, "bin/run"), 0o444)],
  "a directory that nobody may enter": ["mode", (bank) => chmod(join(bank, "data"), 0o600)],
};

describe("a scrub", () => {
  for (const [what, [kind, damage]] of Object.entries(DAMAGES))
    test(`mends ${what}, and says so`, async () => {
      await damage(bankOf(payload));
      {
        await using site = await scrubbing(world, payload);
        await clean(site);
        const { scrub, phase } = site.agent.status();
        assert.equal(phase, "committed");
        assert.equal(scrub?.damaged, 0);
        assert.equal(scrub.error, null);
        assert.ok(scrub.repaired > 0);
        assert.ok((await site.metric("edgesync_sidecar_scrub_damage_total", { kind })) > 0);
        assert.ok(site.log.some(({ message }) => message === "installed release repaired"));
        assert.equal(site.application.restarts(), 0);
      }
      await checkVolume(payload);
      const bank = bankOf(payload);
      assert.equal((await stat(join(bank, "data/model.bin"))).mode & 0o777, 0o444);
      assert.equal((await stat(join(bank, "bin/run"))).mode & 0o777, 0o555);
      const [text, same] = ["text", "same"].map((name) => statSync(join(bank, "data/deep", name)));
      assert.equal(text?.ino, same?.ino);
      assert.deepEqual(scraps(payload), []);
    });

  test("brings the list of files again when it is damaged", async () => {
    await truncate(`${bankOf(payload)}.json`, 50);
    flip(join(bankOf(payload), "data/model.bin"), 7);
    {
      await using site = await scrubbing(world, payload);
      await clean(site);
    }
    await checkVolume(payload);
  });

  test("asks for nothing and changes nothing where all is well", async () => {
    const path = join(bankOf(payload), "data/model.bin");
    const { ino, mtimeMs } = statSync(path);
    await using site = await scrubbing(world, payload);
    await clean(site);
    assert.equal(blobs(), 0);
    assert.equal(site.agent.status().scrub?.repaired, 0);
    assert.ok((await site.metric("edgesync_sidecar_scrub_bytes_total")) >= 2 * SIZE);
    assert.deepEqual([statSync(path).ino, statSync(path).mtimeMs], [ino, mtimeMs]);
  });

  test("leaves the damaged file to who has it open, and gives its name to a new one", async () => {
    const path = join(bankOf(payload), "data/model.bin");
    flip(path, 100);
    const open = openSync(path, "r");
    const bad = readFileSync(path);
    {
      await using site = await scrubbing(world, payload);
      await clean(site);
    }
    const still = Buffer.alloc(bad.length);
    readSync(open, still, 0, still.length, 0);
    closeSync(open);
    assert.ok(still.equals(bad));
    assert.ok(!readFileSync(path).equals(bad));
  });

  test("takes a good copy of another bank before it asks the network", async () => {
    await using site = await scrubbing(world, payload, { settings: { scrubInterval: 200 } });
    await site.looked();
    const bank = bankOf(payload);
    const other = join(payload, "banks/0.9.0-0123456789ab");
    await copyBank(bank, other);
    flip(join(bank, "data/model.bin"), 100);
    await clean(site);
    assert.equal(blobs(), 0);
    assert.equal(site.agent.status().scrub?.damaged, 0);
  });

  test("asks the network when the file is damaged in both banks, because it is one", async () => {
    await using site = await scrubbing(world, payload, { settings: { scrubInterval: 200 } });
    await site.looked();
    const bank = bankOf(payload);
    const other = join(payload, "banks/0.9.0-0123456789ab");
    await copyBank(bank, other);
    await rm(join(other, "data/model.bin"));
    await link(join(bank, "data/model.bin"), join(other, "data/model.bin"));
    flip(join(bank, "data/model.bin"), 100);
    await clean(site);
    assert.ok(blobs() > 0);
    assert.ok(fetched() >= SIZE);
  });

  test("waits for the network, with the release that there is, and says so", async () => {
    flip(join(bankOf(payload), "data/model.bin"), 100);
    world.origin.fail(/^blobs/, { fault: "status", status: 503 }, Number.POSITIVE_INFINITY);
    {
      await using site = await scrubbing(world, payload);
      const { scrub, error, release } = await site.until(
        "an error",
        ({ scrub: now }) => now !== null && now.error !== null,
      );
      assert.equal(scrub?.error?.code, "ORIGIN_UNAVAILABLE");
      assert.equal(scrub.damaged, 1);
      assert.equal(error, null);
      assert.equal(release?.version, "1.0.0");
      assert.equal(await site.metric("edgesync_sidecar_scrub_damaged"), 1);
      world.origin.reset();
      await clean(site);
      assert.equal(await site.metric("edgesync_sidecar_scrub_damaged"), 0);
    }
    await checkVolume(payload);
  });

  test("fetches no whole file where the policy forbids that, and says so", async () => {
    flip(join(bankOf(payload), "data/model.bin"), 100);
    const settings = { fullFallback: { kind: "never" } } as const;
    await using site = await scrubbing(world, payload, { settings });
    const { scrub } = await site.until(
      "an error",
      ({ scrub: now }) => now !== null && now.error !== null,
    );
    assert.equal(scrub?.error?.code, "FALLBACK_REFUSED");
    assert.equal(scrub.damaged, 1);
    assert.equal(blobs(), 0);
  });

  test("keeps to its rate, over many pauses", async () => {
    const RATE = 500_000;
    const began = performance.now();
    await using site = await scrubbing(world, payload, { settings: { scrubRate: RATE } });
    for (let sample = 0; sample < 5; sample++) {
      await delay(50);
      const bytes = await site.metric("edgesync_sidecar_scrub_bytes_total");
      const allowed = ((performance.now() - began) / 1000) * RATE + 128 * 1024;
      assert.ok(bytes <= allowed, `${bytes} of ${allowed} bytes`);
    }
    await site.until("a pass", ({ scrub }) => scrub !== null && scrub.lastPass !== null);
    const seconds = (performance.now() - began) / 1000;
    assert.ok(seconds >= (SIZE * 0.9) / RATE, `${seconds} s`);
  });

  test("does nothing while a release is on trial", async () => {
    await using own = await openWorld();
    await own.publish("1.0.0", files("1.0.0"));
    const volume = await installed(own, "1.0.0");
    const settings = { trialDuration: 60_000, trialTimeout: 60_000 };
    await using site = await scrubbing(own, volume, { settings });
    await clean(site);
    await own.publish("2.0.0", files("2.0.0"));
    await site.until("the trial", ({ phase }) => phase === "trial");
    flip(join(bankOf(volume), "data/model.bin"), 100);
    const bytes = await site.metric("edgesync_sidecar_scrub_bytes_total");
    await delay(300);
    assert.equal(await site.metric("edgesync_sidecar_scrub_bytes_total"), bytes);
    assert.equal(site.agent.status().phase, "trial");
  });

  test("mends by a delta what was updated by one, from the bank before", async () => {
    await using own = await openWorld();
    await own.publish("1.0.0", files("1.0.0"));
    const volume = await installed(own, "1.0.0");
    const restore = await keepBank(volume);
    await own.publish("2.0.0", files("2.0.0"));
    const settings = { scrubInterval: 200, fullFallback: { kind: "never" } } as const;
    await using site = await scrubbing(own, volume, { settings });
    await site.until(
      "the update",
      ({ phase, release }) => phase === "committed" && release?.version === "2.0.0",
    );
    await site.looked();
    restore();
    own.origin.reset();
    flip(join(bankOf(volume), "data/model.bin"), 100);
    await clean(site);
    const bytes = own.origin.requests.reduce(
      (sum, item) => sum + (item.path.startsWith("blobs") ? item.bytes : 0),
      0,
    );
    assert.ok(bytes > 0 && bytes < 10_000, `${bytes} bytes`);
    assert.equal(await readlink(join(bankOf(volume), "latest")), "data/model.bin");
  });

  test("verifies the rest where much cannot be mended, and counts each thing once", async () => {
    await using own = await openWorld();
    const names = Array.from({ length: 70 }, (_, index) => `data/${index + 10}`);
    const many = Object.fromEntries(names.map((name) => [name, name]));
    await own.publish("1.0.0", { health: "good", ...many, "z/link": { link: "../health" } });
    const volume = await installed(own, "1.0.0");
    const bank = bankOf(volume);
    for (const name of names) await rm(join(bank, name));
    await rm(join(bank, "z/link"));
    own.origin.fail(/^blobs/, { fault: "status", status: 503 }, Number.POSITIVE_INFINITY);
    {
      await using site = await scrubbing(own, volume);
      const attempts = (): number =>
        site.log.filter(({ message }) => message === "installed release not repaired").length;
      await site.until("the attempts", ({ scrub }) => scrub?.damaged === 70 && attempts() > 3);
      assert.equal(await readlink(join(bank, "z/link")), "../health");
      const kind = { kind: "missing" };
      assert.equal(await site.metric("edgesync_sidecar_scrub_damage_total", kind), 71);
      own.origin.reset();
      await clean(site);
      assert.equal(site.agent.status().scrub?.repaired, 71);
    }
    await checkVolume(volume);
  });

  test("does not stop at what it cannot mend, and tries it again", async () => {
    const path = join(bankOf(payload), "bin/run");
    let mayChange = false;
    const disk: Disk = {
      ...nodeDisk,
      async chmod(file, mode) {
        if (file === path && !mayChange) throw new EdgeSyncError("DISK_FAILED", "not permitted");
        await nodeDisk.chmod(file, mode);
      },
    };
    await chmod(path, 0o444);
    flip(join(bankOf(payload), "data/model.bin"), 100);
    await using site = await scrubbing(world, payload, { disk });
    const stuck = await site.until(
      "an error",
      ({ scrub }) => scrub?.repaired === 1 && scrub.error !== null,
    );
    assert.equal(stuck.scrub?.error?.code, "DISK_FAILED");
    assert.equal(stuck.scrub.damaged, 1);
    mayChange = true;
    await clean(site);
    assert.equal(await site.metric("edgesync_sidecar_scrub_damage_total", { kind: "mode" }), 1);
    assert.equal(site.agent.status().scrub?.repaired, 2);
  });

  test("goes on where something is left behind that cannot be removed", async () => {
    const leftover = join(payload, "banks/other.building-1");
    await mkdir(leftover);
    const disk: Disk = {
      ...nodeDisk,
      async removeTree(path) {
        if (path === leftover) throw new EdgeSyncError("DISK_FAILED", `${path}: not permitted`);
        await nodeDisk.removeTree(path);
      },
    };
    flip(join(bankOf(payload), "data/model.bin"), 100);
    await using site = await scrubbing(world, payload, { disk });
    await site.until("the repair", ({ scrub }) => scrub?.repaired === 1);
    const told = site.log.filter(({ message }) => message.startsWith("cannot remove what"));
    assert.equal(told.length, 1);
    await site.looked();
    assert.ok(site.log.some(({ message }) => message.startsWith("still cannot remove")));
  });

  test("is not done where the pod does not want it", async () => {
    flip(join(bankOf(payload), "data/model.bin"), 100);
    await using site = await scrubbing(world, payload, { settings: { scrubInterval: 0 } });
    await site.looked();
    assert.equal(site.agent.status().scrub, null);
    assert.equal(await site.metric("edgesync_sidecar_scrub_bytes_total"), 0);
  });
});

async function copyBank(from: string, to: string): Promise<void> {
  await cp(from, to, { recursive: true, verbatimSymlinks: true });
  await cp(`${from}.json`, `${to}.json`);
}
