import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { copyFileSync, existsSync, readFileSync, readdirSync, statSync } from "node:fs";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { EdgeSyncError } from "#core/errors.ts";
import { nodeDisk } from "../../sidecar/disk/durable.ts";
import type { Disk } from "../../sidecar/disk/durable.ts";
import { edgesync } from "../publisher/world.ts";
import type { Ran } from "../publisher/world.ts";
import { committed, openSite } from "../update/support/site.ts";
import type { Site } from "../update/support/site.ts";
import { changed, noise, openWorld } from "../update/support/world.ts";
import type { Files, World } from "../update/support/world.ts";

const MODEL = noise(3, 300_000);
/** Where nobody listens. */
const NOWHERE = "http://127.0.0.1:9";

function files(mark: string): Files {
  return {
    health: "good",
    "data/model.bin": changed(MODEL, 1000, mark),
    "data/note.txt": `about ${mark}\n`.repeat(20),
  };
}

async function command(world: World, ...args: string[]): Promise<Ran> {
  return await edgesync(args, { cwd: world.folder });
}

async function exported(world: World, output: string, ...more: string[]): Promise<unknown> {
  const args = ["export", "web", "--platform", "linux-x64", "--output", output, "--json"];
  const ran = await command(world, ...args, ...more);
  assert.equal(ran.status, 0, ran.stderr);
  return JSON.parse(ran.stdout);
}

/** A site with a stick and without a network. */
async function cutOff(
  world: World,
  stick: string,
  url: string = NOWHERE,
  disk: Disk = nodeDisk,
): Promise<Site> {
  await mkdir(stick, { recursive: true });
  const payload = join(world.folder, "site");
  return await openSite({ payload, url, root: world.root, disk, settings: { importDir: stick } });
}

function markOf(payload: string): string {
  return readFileSync(join(payload, "current/data/model.bin")).toString("latin1", 1000, 1003);
}

describe("a site that no network reaches", () => {
  test("installs a release from a bundle, and updates from the next one by delta", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    const stick = join(world.folder, "stick");
    await using site = await cutOff(world, stick);
    await exported(world, join(stick, "first.tar"));
    await site.until("the first release", committed("1.0.0"));
    assert.equal(markOf(site.payload), "one");

    await world.publish("1.1.0", files("two"));
    await exported(world, join(stick, "update.tar"), "--from", "1.0.0");
    await site.until("the second release", committed("1.1.0"));
    assert.equal(markOf(site.payload), "two");
    // What travels is the difference, and what little belongs to it.
    assert.ok(statSync(join(stick, "update.tar")).size < 60_000);
    assert.ok(site.log.some(({ fields }) => fields.bundle === join(stick, "update.tar")));
  });

  test("takes an unpacked bundle as well", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    const stick = join(world.folder, "stick");
    await exported(world, join(world.folder, "web.tar"));
    await mkdir(join(stick, "web"), { recursive: true });
    execFileSync("tar", ["xf", join(world.folder, "web.tar"), "-C", join(stick, "web")]);
    await using site = await cutOff(world, stick);
    await site.until("the release", committed("1.0.0"));
  });

  test("stays with what it has when a bundle is older, damaged, of another publisher or no bundle", async () => {
    await using world = await openWorld();
    await using other = await openWorld();
    await world.publish("1.0.0", files("one"));
    const stick = join(world.folder, "stick");
    await mkdir(stick);
    await exported(world, join(world.folder, "old.tar"));
    await world.publish("1.1.0", files("two"));
    await exported(world, join(stick, "b.tar"));
    await using site = await cutOff(world, stick);
    await site.until("the newer release", committed("1.1.0"));

    await rm(join(stick, "b.tar"));
    copyFileSync(join(world.folder, "old.tar"), join(stick, "a.tar"));
    await other.publish("9.0.0", files("bad"));
    await other.publish("9.1.0", files("bad"));
    await exported(other, join(stick, "other.tar"));
    await writeFile(join(stick, "noise.tar"), noise(5, 10_000));
    await writeFile(
      join(stick, "short.tar"),
      (await readFile(join(stick, "a.tar"))).subarray(0, 40_000),
    );
    for (let turn = 0; turn < 3; turn++) await site.looked();
    assert.ok(committed("1.1.0")(site.agent.status()));
    assert.equal(markOf(site.payload), "two");
    const refused = site.log.filter(({ message }) => message === "bundle cannot be used");
    // Each is told once, and not at every look.
    assert.deepEqual(refused.map(({ fields }) => fields.bundle ?? "").toSorted(), [
      join(stick, "noise.tar"),
      join(stick, "short.tar"),
    ]);
  });

  test("is not held up by a blob that has gone bad on the stick when another bundle has it", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    const stick = join(world.folder, "stick");
    await mkdir(stick);
    await exported(world, join(stick, "good.tar"));
    const bad = await readFile(join(stick, "good.tar"));
    // Somewhere in the middle of the large file.
    bad[bad.length >> 1] = (bad[bad.length >> 1] ?? 0) ^ 1;
    await writeFile(join(stick, "also.tar"), bad);
    await using site = await cutOff(world, stick);
    await site.until("the release", committed("1.0.0"));
  });

  test("goes on with a bundle after its own disk was full for a while", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    const stick = join(world.folder, "stick");
    await mkdir(stick);
    await exported(world, join(stick, "web.tar"));
    await using site = await cutOff(world, stick, NOWHERE, fullAtFirst());
    await site.until("the release", committed("1.0.0"));
  });
});

/** A disk on which each download meets one write for which there is no room. */
function fullAtFirst(): Disk {
  const failed = new Set<string>();
  return {
    ...nodeDisk,
    async append(path, mode) {
      const file = await nodeDisk.append(path, mode);
      return {
        ...file,
        async write(bytes) {
          const before = failed.size;
          if (failed.add(path).size > before)
            throw new EdgeSyncError("DISK_FULL", "no room for now");
          await file.write(bytes);
        },
      };
    },
  };
}

describe("a site with a network and a stick", () => {
  test("asks the network what is new, and takes the bytes from the stick", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    const stick = join(world.folder, "stick");
    await mkdir(stick);
    await exported(world, join(stick, "web.tar"));
    await using site = await cutOff(world, stick, world.origin.url);
    await site.until("the release", committed("1.0.0"));
    const blobs = world.origin.requests.filter(({ path }) => path.startsWith("blobs/"));
    assert.deepEqual(blobs, []);
    assert.ok(world.origin.requests.some(({ path }) => path === "metadata/timestamp.json"));
    // The next release is only on the network.
    await world.publish("1.1.0", files("two"));
    await site.until("the next release", committed("1.1.0"));
  });
});

describe("edgesync export", () => {
  test("gives a bundle a life of its own, and stays ahead of it", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    const before = timestampOf(world.repository);
    const said = await exported(world, join(world.folder, "web.tar"), "--lifetime", "30d");
    const out = join(world.folder, "out");
    await mkdir(out);
    execFileSync("tar", ["xf", join(world.folder, "web.tar"), "-C", out]);
    const own = timestampOf(out);
    assert.equal(own.version, before.version + 1);
    assert.equal(timestampOf(world.repository).version, before.version + 2);
    const life = Date.parse(own.expires) - Date.now();
    assert.ok(Math.abs(life - 30 * 86_400_000) < 60_000);
    assert.equal((said as { expires: string }).expires, new Date(own.expires).toISOString());
    assert.ok(!existsSync(join(world.folder, "web.tar.part")));
  });

  test("names what it does not find", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    const cases = [
      [["export", "web", "--platform", "linux-x64", "--channel", "beta"], "stable", 66],
      [["export", "web", "--platform", "linux-arm64"], "linux-arm64", 66],
      [["export", "web", "--platform", "linux-x64", "--from", "0.1"], "0.1", 66],
      [["export", "web", "--platform", "linux-x64", "--lifetime", "1s"], "lifetime", 64],
      [["export", "web"], "--platform", 64],
    ] as const;
    for (const [args, word, status] of cases) {
      const ran = await command(world, ...args);
      assert.equal(ran.status, status, ran.stderr);
      assert.ok(ran.stderr.includes(word), ran.stderr);
    }
    assert.deepEqual(
      readdirSync(world.folder).filter((name) => name.includes(".tar")),
      [],
    );
  });
});

describe("edgesync import", () => {
  test("takes a bundle into a folder that sites are served from, and another one on top", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", files("one"));
    await exported(world, "one.tar");
    const mirror = join(world.folder, "mirror");
    const first = ["import", "one.tar", "--into", "mirror", "--root", world.root, "--json"];
    const taken = await command(world, ...first);
    assert.equal(taken.status, 0, taken.stderr);
    await using site = await cutOff(world, mirror);
    await site.until("the release", committed("1.0.0"));

    await world.publish("1.1.0", files("two"));
    await exported(world, "two.tar", "--from", "1.0.0");
    const next = await command(world, "import", "two.tar", "--into", "mirror", "--json");
    assert.equal(next.status, 0, next.stderr);
    assert.equal((JSON.parse(next.stdout) as { taken: boolean }).taken, true);
    await site.until("the next release", committed("1.1.0"));

    // An older one adds nothing and takes nothing back.
    const { version } = timestampOf(mirror);
    const again = await command(world, "import", "one.tar", "--into", "mirror", "--json");
    assert.equal((JSON.parse(again.stdout) as { taken: boolean }).taken, false);
    assert.equal(timestampOf(mirror).version, version);
  });

  test("never mixes two repositories in one folder, whichever root is given", async () => {
    await using world = await openWorld();
    await using other = await openWorld();
    await world.publish("1.0.0", files("one"));
    for (const version of ["1.0.0", "1.1.0"]) await other.publish(version, files("two"));
    await exported(world, "web.tar");
    await exported(other, "web.tar");
    const mine = ["web.tar", "--into", "mirror", "--root", world.root];
    assert.equal((await command(world, "import", ...mine)).status, 0);
    const theirs = [join(other.folder, "web.tar"), "--into", "mirror", "--root", other.root];
    const ran = await command(world, "import", ...theirs);
    assert.equal(ran.status, 66, ran.stderr);
    assert.match(ran.stderr, /^edgesync: REPOSITORY_INVALID: mirror /);
    assert.equal((await command(world, "import", ...mine)).status, 0);
  });

  test("changes nothing for a bundle that is damaged, of another publisher, or only checked", async () => {
    await using world = await openWorld();
    await using other = await openWorld();
    await world.publish("1.0.0", files("one"));
    await other.publish("1.0.0", files("one"));
    await exported(world, "web.tar");
    const mirror = join(world.folder, "mirror");
    const into = ["--into", "mirror"];
    const root = ["--root", world.root];
    const checked = await command(world, "import", "web.tar", ...into, ...root, "--check");
    assert.equal(checked.status, 0, checked.stderr);
    assert.ok(!existsSync(mirror));

    const without = await command(world, "import", "web.tar", ...into);
    assert.equal(without.status, 78);
    assert.ok(without.stderr.includes("--root"));
    const foreign = await command(world, "import", "web.tar", ...into, "--root", other.root);
    assert.equal(foreign.status, 77, foreign.stderr);
    const bad = await readFile(join(world.folder, "web.tar"));
    bad[bad.length >> 1] = (bad[bad.length >> 1] ?? 0) ^ 1;
    await writeFile(join(world.folder, "bad.tar"), bad);
    const damaged = await command(world, "import", "bad.tar", ...into, "--root", world.root);
    assert.equal(damaged.status, 65, damaged.stderr);
    assert.ok(!existsSync(join(mirror, "metadata")));
  });
});

function timestampOf(folder: string): { readonly version: number; readonly expires: string } {
  const file: unknown = JSON.parse(readFileSync(join(folder, "metadata/timestamp.json"), "utf8"));
  return (file as { signed: { version: number; expires: string } }).signed;
}
