import assert from "node:assert/strict";
import { cp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { describe, test } from "node:test";
import { openKeyring } from "../../publisher/keys.ts";
import { loadState } from "../../publisher/state.ts";
import { makeTimestamp, sign, targetFile, toBytes } from "../../publisher/metadata.ts";
import { findSigners, publish } from "../../publisher/publish.ts";
import { openRepository } from "../../publisher/repository.ts";
import { committed, openSite } from "../update/support/site.ts";
import { openWorld } from "../update/support/world.ts";
import { openSites, sidecar } from "./clients.ts";
import { run } from "./shell.ts";
import { edgesync, makePublisher } from "./world.ts";
import type { Publisher } from "./world.ts";

const HOOK = new URL("kill-at-rename.ts", import.meta.url).href;

async function makeFull(): Promise<Publisher> {
  const publisher = await makePublisher();
  await publisher.add("1", { file: "one" });
  await publisher.add("2", { file: "two" });
  await publisher.set("1");
  return publisher;
}

function folders({ repository, keys }: Publisher): readonly string[] {
  return ["--repository", repository, "--keys", keys];
}

/** The ids of the keys that sign for a role. */
async function keysOf(repository: string, role: string): Promise<readonly string[]> {
  const { root, targets } = await loadState(repository);
  const top = Object.entries(root.signed.roles).find(([name]) => name === role)?.[1];
  const delegated = targets.signed.delegations?.roles.find(({ name }) => name === role);
  return top?.keyids ?? delegated?.keyids ?? [];
}

describe("a role whose key is rotated", () => {
  for (const role of ["timestamp", "snapshot", "targets", "root", "app.web", "channel.web.stable"])
    test(`${role}: has the new key alone, and sites of both makes follow`, async () => {
      await using publisher = await makeFull();
      const { repository, keys, folder } = publisher;
      await using sites = await openSites(repository, join(folder, "oracle"));
      assert.equal(await sites.look(), "1");
      const [old] = await keysOf(repository, role);
      const type = role === "snapshot" ? "ecdsa" : "ed25519";
      const { json } = await run(["key", "rotate", role, "--type", type, ...folders(publisher)]);
      const now = await keysOf(repository, role);
      assert.equal(now.length, 1);
      assert.notEqual(now[0], old);
      assert.deepEqual(json["key"], {
        id: now[0],
        name:
          role === "timestamp" || role === "snapshot" || role === "targets" || role === "root"
            ? `${role}.2`
            : `${role}.4`,
        type,
      });
      assert.equal(await sites.look(), "1");
      // The old key can go; everything is published with the new one.
      await rm(join(keys, `${role}.pem`));
      await publisher.set("2");
      assert.equal(await sites.look(), "2");
      assert.equal((await edgesync(["verify", repository])).status, 0);
    });

  test("is rotated again, by the version that brings the key", async () => {
    await using publisher = await makeFull();
    for (const name of ["timestamp.2", "timestamp.3"]) {
      const { json } = await run(["key", "rotate", "timestamp", ...folders(publisher)]);
      assert.deepEqual(Object(json["key"]).name, name);
    }
  });

  test("needs the key of its delegator, and without it none is made", async () => {
    await using publisher = await makeFull();
    const { keys } = publisher;
    await rm(join(keys, "root.pem"));
    await rm(join(keys, "targets.pem"));
    const before = await readdir(keys);
    for (const role of ["timestamp", "app.web"])
      await assert.rejects(run(["key", "rotate", role, ...folders(publisher)]), {
        code: "KEY_INVALID",
      });
    await assert.rejects(run(["key", "rotate", "app.nobody", ...folders(publisher)]), {
      code: "USAGE",
      message: /app\.web/,
    });
    assert.deepEqual(await readdir(keys), before);
  });

  test("can get back when its key was lost", async () => {
    await using publisher = await makeFull();
    const { repository, keys, folder } = publisher;
    await using sites = await openSites(repository, join(folder, "oracle"));
    assert.equal(await sites.look(), "1");
    for (const role of ["snapshot", "timestamp", "channel.web.stable"])
      await rm(join(keys, `${role}.pem`));
    await assert.rejects(publisher.set("2"), { code: "KEY_INVALID" });
    // One root for both, so that what each of them signs is signed.
    const file = join(folder, "root.2.json");
    const rotate = ["--rotate", "snapshot", "--rotate", "timestamp"];
    await run(["root", "prepare", file, ...rotate, ...folders(publisher)]);
    await run(["root", "sign", file, "--keys", keys]);
    await run(["root", "publish", file, ...folders(publisher)]);
    await run(["key", "rotate", "channel.web.stable", ...folders(publisher)]);
    await publisher.set("2");
    assert.equal(await sites.look(), "2");
  });
});

describe("a site", () => {
  test("installs what is published after every key of the repository has been replaced", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", { health: "good" });
    const payload = join(world.folder, "site");
    await using site = await openSite({ payload, url: world.origin.url, root: world.root });
    await site.until("the first release", committed("1.0.0"));
    const here = ["--repository", world.repository, "--keys", join(world.folder, "keys")];
    const roles = ["timestamp", "snapshot", "targets", "root", "app.web", "channel.web.stable"];
    for (const role of roles) await run(["key", "rotate", role, ...here]);
    await site.looked();
    for (const role of roles) await rm(join(world.folder, "keys", `${role}.pem`));
    await world.publish("1.1.0", { health: "good", more: "of it" });
    await site.until("the second release", committed("1.1.0"));
  });
});

describe("a stolen timestamp key", () => {
  test("with which versions were driven up stops nobody once it is rotated", async () => {
    await using publisher = await makeFull();
    const { repository, keys, folder } = publisher;
    const sites = [
      await openSites(repository, join(folder, "oracle")),
      await openSites(repository, join(folder, "oracle-2")),
    ];
    await using cleanup = new AsyncDisposableStack();
    for (const site of sites) cleanup.use(site);
    const path = join(repository, "metadata", "timestamp.json");
    const good = await readFile(path);
    const { timestamp } = await loadState(repository);
    const set = await openKeyring(keys, undefined).load();
    const stolen = set.keys.filter(({ name }) => name === "timestamp");
    const forged = makeTimestamp(1_000_000, timestamp.signed.meta["snapshot.json"], Date.now());
    await writeFile(path, toBytes(await sign(forged, stolen)));
    for (const site of sites) assert.equal(await site.look(), "1");
    await writeFile(path, good);
    await publisher.set("2");
    for (const site of sites) await assert.rejects(site.look());

    await run(["key", "rotate", "timestamp", ...folders(publisher)]);
    for (const site of sites) assert.equal(await site.look(), "2");
    // What the thief signs counts no more.
    const now = await readFile(path);
    await writeFile(path, toBytes(await sign({ ...forged, version: 2_000_000 }, stolen)));
    for (const site of sites) await assert.rejects(site.look());
    await writeFile(path, now);
    for (const site of sites) assert.equal(await site.look(), "2");
  });

  test("with which the numbers for versions were used up in the repository itself leaves numbers", async () => {
    await using publisher = await makeFull();
    const { repository, keys } = publisher;
    const { timestamp } = await loadState(repository);
    const set = await openKeyring(keys, undefined).load();
    const stolen = set.keys.filter(({ name }) => name === "timestamp");
    const forged = { ...timestamp.signed, version: Number.MAX_SAFE_INTEGER };
    await writeFile(
      join(repository, "metadata", "timestamp.json"),
      toBytes(await sign(forged, stolen)),
    );
    const site = await sidecar(repository);
    assert.equal(await site.look(), "1");
    await run(["key", "rotate", "timestamp", ...folders(publisher)]);
    await publisher.set("2");
    assert.equal(await site.look(), "2");
    assert.equal((await loadState(repository)).timestamp.signed.version, 2);
  });
});

describe("a publisher that is killed while it rotates a key", () => {
  for (const role of ["timestamp", "channel.web.stable"])
    test(`${role}: leaves a repository that every site can follow, and the next one completes`, async () => {
      await using publisher = await makeFull();
      const { folder } = publisher;
      const old = await keysOf(publisher.repository, role);
      let at = 1;
      for (; at < 20; at++) {
        const [repository, keys] = [join(folder, `copy-${at}`), join(folder, `keys-${at}`)];
        await cp(publisher.repository, repository, { recursive: true });
        await cp(publisher.keys, keys, { recursive: true });
        const options = ["--repository", repository, "--keys", keys];
        const site = await sidecar(repository);
        assert.equal(await site.look(), "1");
        const ran = await edgesync(["key", "rotate", role, ...options], {
          env: { KILL_AT: `${at} after` },
          node: ["--import", HOOK],
        });
        if (ran.signal === null) break;
        // One that has been there before, and one that is new.
        assert.equal(await site.look(), "1", `at ${at}`);
        assert.equal(await (await sidecar(repository)).look(), "1", `at ${at}`);
        const set = ["channel", "set", "web/stable", "2", ...options];
        const isChanged = JSON.stringify(await keysOf(repository, role)) !== JSON.stringify(old);
        if (!isChanged) await run(["key", "rotate", role, ...options]);
        await run(set);
        assert.equal(await site.look(), "2", `at ${at}`);
        assert.notDeepEqual(await keysOf(repository, role), old);
        const made = (await readdir(keys)).filter((name) => name.startsWith(`${role}.`));
        assert.equal(made.length, 4, made.join(" "));
        assert.deepEqual((await readdir(repository)).toSorted(), ["blobs", "metadata", "targets"]);
      }
      // Snapshot and timestamp at least; for a root also the folder that prepares it.
      assert.ok(at >= 4 && at < 20, `${at}`);
    });
});

describe("a role with 10,000 targets", () => {
  test("is changed in well under a second", async () => {
    await using publisher = await makeFull();
    const { repository, keys } = publisher;
    const entry = targetFile(Buffer.from("a manifest"), { order: 1 });
    const many = Array.from({ length: 10_000 }, (_, index) => [
      `releases/web/1.${index}.0/linux-arm64.json`,
      entry,
    ]);
    const keyring = openKeyring(keys, undefined);
    {
      await using open = await openRepository(repository, Date.now());
      const signers = await findSigners(open, keyring, "app.web");
      const before = open.roles.get("app.web");
      assert.ok(before);
      const roles = new Map(open.roles).set("app.web", {
        ...before,
        signed: { ...before.signed, targets: Object.fromEntries(many) },
      });
      const change = { role: "app.web", paths: [], targets: [] };
      await publish({ ...open, roles }, keyring, signers, change, Date.now());
    }
    const started = process.cpuUsage();
    await using open = await openRepository(repository, Date.now());
    const signers = await findSigners(open, keyring, "app.web");
    const path = "releases/web/2.0.0/linux-arm64.json";
    const targets = [{ path, bytes: Buffer.from("another"), custom: { order: 2 } }];
    await publish(open, keyring, signers, { role: "app.web", paths: [], targets }, Date.now());
    const { user, system } = process.cpuUsage(started);
    const ms = (user + system) / 1000;
    const listed = (await loadState(repository)).roles.get("app.web")?.signed.targets ?? {};
    assert.equal(Object.keys(listed).length, 10_001);
    // Of processor time, which other tests do not take part in.
    assert.ok(ms < 1000, `${ms} ms`);
  });
});
