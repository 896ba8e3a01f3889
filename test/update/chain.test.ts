import assert from "node:assert/strict";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { nodeDisk } from "../../sidecar/disk/durable.ts";
import type { Disk } from "../../sidecar/disk/durable.ts";
import { committed, openSite } from "./support/site.ts";
import type { SiteOptions } from "./support/site.ts";
import { changed, noise, openWorld } from "./support/world.ts";
import type { Files, World } from "./support/world.ts";

const MODEL = noise(5, 150_000);

/** Each version changes another place, so that a delta over two of them is not one over one. */
function files(version: number): Files {
  let model = MODEL;
  for (let done = 1; done <= version; done++) model = changed(model, done * 10_000, `v${done}`);
  return { health: "good", "model.bin": model };
}

/** A site with the first of five versions, of which the last has deltas only from the three before it. */
async function behind(world: World): Promise<SiteOptions> {
  const options = {
    payload: join(world.folder, "site"),
    url: world.origin.url,
    root: world.root,
  };
  await world.publish("1", files(1));
  {
    await using site = await openSite(options);
    await site.until("the first release", committed("1"));
  }
  for (const version of [2, 3, 4]) await world.release(String(version), files(version));
  await world.publish("5", files(5));
  world.origin.reset();
  return options;
}

/** The real disk; what is made on the way of a chain is noted, and can be spoiled as it is written. */
function watching(made: string[], spoil: boolean): Disk {
  return {
    ...nodeDisk,
    async rename(from, to) {
      if (from.includes(".building-"))
        assert.ok(!made.some((path) => existsSync(path)), "nothing of the way is left by now");
      await nodeDisk.rename(from, to);
    },
    async create(path, mode) {
      const file = await nodeDisk.create(path, mode);
      if (!path.endsWith(".step")) return file;
      made.push(path);
      return spoil ? { ...file, write: (bytes) => file.write(Buffer.alloc(bytes.length)) } : file;
    },
  };
}

describe("a site several releases behind", () => {
  test("comes by a chain of deltas, and leaves nothing of the way behind", async () => {
    await using world = await openWorld();
    const options = await behind(world);
    const made: string[] = [];
    // No whole file is allowed: without a chain there would be no way.
    const settings = { fullFallback: { kind: "never" } } as const;
    await using site = await openSite({ ...options, settings, disk: watching(made, false) });
    await site.until("the newest release", committed("5"));
    await site.looked();
    const { plan } = site.agent.status();
    assert.ok(plan !== null && plan.ways.chain.contents === 1, JSON.stringify(plan));
    assert.ok(plan.downloadBytes < 5_000 && plan.downloadBytes === plan.receivedBytes);
    assert.deepEqual(readFileSync(join(site.payload, "current/model.bin")), files(5)["model.bin"]);
    assert.equal(made.length, 1);
    assert.deepEqual(readdirSync(join(site.payload, "partial")), []);
    const planned = site.log.find(({ message }) => message === "update planned");
    assert.deepEqual(planned?.fields.ways, plan.ways);
    assert.deepEqual(planned?.fields.whole, {});
  });

  test("fetches the file whole when a link of the chain turns out not to work, and says so", async () => {
    await using world = await openWorld();
    const options = await behind(world);
    const made: string[] = [];
    await using site = await openSite({ ...options, disk: watching(made, true) });
    await site.until("the newest release", committed("5"));
    await site.looked();
    const { plan } = site.agent.status();
    assert.deepEqual(plan?.ways.chain.contents, 0);
    assert.equal(plan?.whole.delta_rejected?.contents, 1);
    // Every way was tried before.
    assert.ok(made.length >= 1);
    assert.deepEqual(readFileSync(join(site.payload, "current/model.bin")), files(5)["model.bin"]);
    assert.deepEqual(readdirSync(join(site.payload, "partial")), []);
  });
});

describe("room for a release", () => {
  const rows = [
    ["payload-reserve", { payloadReserve: 2 ** 60 }],
    ["payload-size", { payloadSize: 500_000 }],
    ["evicts", { ephemeralStorage: 64 * 2 ** 20 + 200_000 }],
  ] as const;
  for (const [named, settings] of rows)
    test(`is asked for before a byte of it is fetched, and ${named} is named where it is too small`, async () => {
      await using world = await openWorld();
      await world.publish("1", files(1));
      world.origin.reset();
      const payload = join(world.folder, "site");
      const options = { payload, url: world.origin.url, root: world.root };
      await using site = await openSite({ ...options, settings });
      const { error } = await site.until("the error", (status) => status.error !== null);
      assert.equal(error?.code, "DISK_FULL");
      assert.match(error?.message ?? "", new RegExp(named));
      const large = world.origin.requests.filter(({ bytes }) => bytes > 100_000);
      assert.deepEqual(large, []);
    });

  test("is counted for what a chain makes on the way", async () => {
    await using world = await openWorld();
    const options = await behind(world);
    // The old bank, the new one, some metadata and what is never taken; not one more file of 150,000 bytes.
    const settings = { payloadSize: 1_490_000, fullFallback: { kind: "never" } } as const;
    {
      await using site = await openSite({ ...options, settings });
      const { error } = await site.until("the error", (status) => status.error !== null);
      assert.equal(error?.code, "DISK_FULL");
      assert.equal(site.agent.status().plan?.ways.chain.contents, 1);
    }
    const more = { ...settings, payloadSize: settings.payloadSize + MODEL.length };
    await using site = await openSite({ ...options, settings: more });
    await site.until("the newest release", committed("5"));
  });

  test("is counted for what is only linked, where links are not possible", async () => {
    await using world = await openWorld();
    const kept = { ...files(1), "more.bin": noise(8, 900_000) };
    await world.publish("1", kept);
    const payload = join(world.folder, "site");
    const options = { payload, url: world.origin.url, root: world.root };
    // Both banks have room when they share the large file, and not when it is there twice.
    const settings = { payloadSize: 2_800_000 };
    {
      await using site = await openSite(options);
      await site.until("the first release", committed("1"));
    }
    await world.publish("2", { ...files(2), "more.bin": noise(8, 900_000) });
    const disk = { ...nodeDisk, link: () => Promise.resolve(false) };
    {
      await using site = await openSite({ ...options, settings, disk });
      const { error } = await site.until("the error", (status) => status.error !== null);
      assert.equal(error?.code, "DISK_FULL");
    }
    await using site = await openSite({ ...options, settings });
    await site.until("the second release", committed("2"));
  });
});
