import assert from "node:assert/strict";
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { existsSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, test } from "node:test";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { exportBundle } from "../../publisher/export.ts";
import { openKeyring } from "../../publisher/keys.ts";
import { openRepository } from "../../publisher/repository.ts";
import { silent } from "../../publisher/work.ts";
import { nodeDisk } from "../../sidecar/disk/durable.ts";
import { openSeed } from "../../sidecar/payload/seed.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { committed, openSite } from "../update/support/site.ts";
import type { SiteOptions } from "../update/support/site.ts";
import { changed, noise, openWorld, PLATFORM } from "../update/support/world.ts";
import type { Files, World } from "../update/support/world.ts";

const MODEL = noise(3, 200_000);
const TABLE = noise(4, 150_000);
const never = new AbortController().signal;

function files(mark: string): Files {
  return { health: "good", "model.bin": changed(MODEL, 500, mark), "table.bin": TABLE };
}

/** Puts files on what stands for a volume of the pod. */
async function seedOf(
  world: World,
  content: Readonly<Record<string, Buffer | string>>,
): Promise<string> {
  const folder = join(world.folder, "seed");
  for (const [path, bytes] of Object.entries(content)) {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), bytes);
  }
  return folder;
}

function siteWith(world: World, seedDir: string): SiteOptions {
  const payload = join(world.folder, "site");
  return { payload, url: world.origin.url, root: world.root, settings: { seedDir } };
}

function blobBytes(world: World): number {
  const blobs = world.origin.requests.filter(({ path }) => path.startsWith("blobs/"));
  return blobs.reduce((sum, { bytes }) => sum + bytes, 0);
}

describe("a seed of plain files", () => {
  test("spares a first installation what it holds, and whole files for which it has the base of a delta", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    await world.publish("1.1.0", files("two"));
    // The model of the release before, under another name, and a file as it is.
    const seed = await seedOf(world, {
      "old/weights": changed(MODEL, 500, "one"),
      "any/name": TABLE,
      "notes.txt": "something else",
    });
    world.origin.reset();
    await using site = await openSite(siteWith(world, seed));
    const status = await site.until("the release", committed("1.1.0"));
    assert.ok(blobBytes(world) < 10_000, `${blobBytes(world)} bytes of ${status.plan?.fullBytes}`);
    assert.deepEqual([status.plan?.ways.keep.contents, status.plan?.ways.delta.contents], [1, 1]);
    const current = join(site.payload, "current");
    assert.deepEqual(readFileSync(join(current, "model.bin")), changed(MODEL, 500, "two"));
    assert.deepEqual(readFileSync(join(current, "table.bin")), TABLE);
    const [copy, own] = [join(current, "table.bin"), join(seed, "any/name")].map((path) =>
      statSync(path),
    );
    assert.notEqual(copy?.ino, own?.ino, "it is copied: the volume may go with the pod");
  });

  test("that changes after it was looked at costs the bytes that it would have saved", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    const seed = await seedOf(world, { model: changed(MODEL, 500, "one"), table: TABLE });
    let spoiled = false;
    const disk = {
      ...nodeDisk,
      async create(path: string, mode: number) {
        // By now the seed has been read, and nothing copied yet.
        if (!spoiled && path.includes(".building-")) {
          spoiled = true;
          await writeFile(join(seed, "table"), noise(9, TABLE.length));
        }
        return await nodeDisk.create(path, mode);
      },
    };
    world.origin.reset();
    await using site = await openSite({ ...siteWith(world, seed), disk });
    await site.until("the release", committed("1.0.0"));
    assert.deepEqual(readFileSync(join(site.payload, "current/table.bin")), TABLE);
    assert.ok(spoiled && blobBytes(world) > TABLE.length && blobBytes(world) < 1.5 * TABLE.length);
    // That file, and one of four bytes.
    assert.equal(site.agent.status().plan?.whole.no_delta?.contents, 2);
  });

  test("finds files of a ConfigMap and in folders, by digest, and nothing that is none of it", async () => {
    await using folder = await temporaryFolder();
    const at = (path: string): string => join(folder.path, path);
    await mkdir(at("..2026_01_01"));
    await writeFile(at("..2026_01_01/rules"), "rules");
    await symlink("..2026_01_01", at("..data"));
    await symlink("..data/rules", at("rules"));
    await symlink("/etc/hostname", at("host"));
    await mkdir(at("deep/er"), { recursive: true });
    await writeFile(at("deep/er/file"), "deep");
    await writeFile(at("bundle.tar"), "bundle");
    await mkdir(at("unpacked/metadata"), { recursive: true });
    await writeFile(at("unpacked/metadata/timestamp.json"), "{}");
    const log = { debug() {}, info() {}, warn() {}, error() {} };
    const found = await openSeed(folder.path, { disk: nodeDisk, log }).files(never);
    const find = (text: string): string | undefined =>
      found.get(createHash("sha256").update(text).digest("hex"));
    assert.equal(find("rules"), at("rules"));
    assert.equal(find("deep"), at("deep/er/file"));
    for (const text of ["bundle", "{}", readFileSync("/etc/hostname", "utf8")])
      assert.equal(find(text), undefined);
  });
});

describe("a seed that is none", () => {
  test("keeps nobody waiting by a pipe, and is not left by a link", async () => {
    await using folder = await temporaryFolder();
    const seed = join(folder.path, "seed");
    await mkdir(join(seed, "..data"), { recursive: true });
    await writeFile(join(folder.path, "outside"), "outside");
    await symlink("..data/../../outside", join(seed, "out"));
    const pipe = join(seed, "..data", "pipe");
    execFileSync("mkfifo", [pipe]);
    await symlink("..data/pipe", join(seed, "key"));
    const log = { debug() {}, info() {}, warn() {}, error() {} };
    const digest = createHash("sha256").update("outside").digest("hex");
    const found = await openSeed(seed, { disk: nodeDisk, log }).files(AbortSignal.timeout(20_000));
    assert.equal(found.get(digest), undefined);
    await assert.rejects(nodeDisk.openRead(pipe), { code: "DISK_FAILED" });
  });
});

describe("a seed with a bundle", () => {
  test("gives the first release without any network", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    const seed = await seedOf(world, {});
    await mkdir(seed, { recursive: true });
    {
      await using repository = await openRepository(world.repository, Date.now());
      const keyring = openKeyring(join(world.folder, "keys"), undefined);
      const wanted = {
        app: "web",
        platform: PLATFORM,
        channels: [],
        versions: [],
        from: [],
        lifetimeMs: 3_600_000,
      };
      const output = join(seed, "web.tar");
      await exportBundle(repository, keyring, wanted, { output, now: Date.now() }, silent, never);
    }
    world.origin.fail(/./, { fault: "status", status: 503 }, 1_000_000);
    await using site = await openSite(siteWith(world, seed));
    await site.until("the release", committed("1.0.0"));
    assert.equal(blobBytes(world), 0);
    assert.ok(existsSync(join(site.payload, "current/model.bin")));
  });
});
