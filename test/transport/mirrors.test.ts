/** One repository at several real servers: whoever fails or cheats is passed over. */
import assert from "node:assert/strict";
import { cp, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { authority } from "../support/certificates.ts";
import { openOrigin } from "../support/origin.ts";
import type { Fault, Origin } from "../support/origin.ts";
import { closedPort, httpServer } from "../support/server.ts";
import { committed, openSite } from "../update/support/site.ts";
import type { Site, SiteOptions } from "../update/support/site.ts";
import { PLATFORM, noise, openWorld } from "../update/support/world.ts";
import type { World } from "../update/support/world.ts";

const ca = authority();
const localhost = ca.issue(["localhost"]);
const MODEL = noise(11, 400_000);
const files = (version: string): Record<string, string | Buffer> => ({
  health: "good",
  version,
  "model.bin": MODEL,
});

let count = 0;
const failovers = "edgesync_sidecar_failovers_total";

function siteOf(
  world: World,
  addresses: readonly string[],
  more: Partial<SiteOptions> = {},
): Promise<Site> {
  const [url = "", ...repositoryMirrors] = addresses;
  return openSite({
    payload: join(world.folder, `site-${count++}`),
    url,
    root: world.root,
    ca: ca.cert,
    ...more,
    settings: { repositoryMirrors, ...more.settings },
  });
}

const blobsOf = (origin: Origin): Origin["requests"] =>
  origin.requests.filter(({ path }) => path.startsWith("blobs/"));

describe("a site with mirrors", () => {
  let world: World;
  let mirror: Origin;
  before(async () => {
    world = await openWorld(localhost);
    await world.publish("1.0.0", files("1.0.0"));
    mirror = await openOrigin(world.repository, localhost);
  });
  after(async () => {
    await mirror[Symbol.asyncDispose]();
    await world[Symbol.asyncDispose]();
  });

  test("asks the first address only, while it does", async () => {
    mirror.reset();
    await using site = await siteOf(world, [world.origin.url, mirror.url]);
    await site.until("the release", committed("1.0.0"));
    await site.looked();
    assert.equal(mirror.requests.length, 0);
    assert.equal(await site.metric(failovers), 0);
  });

  test("goes on at the next address where nobody listens, and keeps to it for the look", async () => {
    const nobody = `https://localhost:${await closedPort()}`;
    await using site = await siteOf(world, [nobody, mirror.url]);
    await site.until("the release", committed("1.0.0"));
    assert.ok((await site.metric(failovers, { code: "ORIGIN_UNAVAILABLE" })) >= 1);
    const said = site.log.filter(({ message }) => message === "repository read at another address");
    assert.deepEqual(
      said.map(({ fields }) => fields.address),
      [mirror.url],
      "once, however often it looks",
    );
  });

  test("goes on at the next address where the certificate is not good", async () => {
    const stranger = authority("another CA").issue(["localhost"]);
    await using impostor = await openOrigin(world.repository, stranger);
    await using site = await siteOf(world, [impostor.url, mirror.url]);
    await site.until("the release", committed("1.0.0"));
    assert.equal(impostor.requests.length, 0);
    assert.ok((await site.metric(failovers, { code: "TLS_UNTRUSTED" })) >= 1);
  });

  for (const status of [500, 503, 401, 403, 302])
    test(`goes on at the next address where the answer is ${status}`, async () => {
      const headers = { location: "https://localhost:1/" };
      await using wrong = await httpServer(
        (_, response) => void response.writeHead(status, headers).end(),
        localhost,
      );
      await using site = await siteOf(world, [wrong.url, mirror.url]);
      await site.until("the release", committed("1.0.0"));
    });

  test("leaves an address alone for as long as that has asked for, and no other", async () => {
    let asked = 0;
    await using busy = await httpServer((_, response) => {
      asked += 1;
      response.writeHead(503, { "retry-after": "3600" }).end();
    }, localhost);
    await using site = await siteOf(world, [busy.url, mirror.url]);
    await site.until("the release", committed("1.0.0"));
    await site.looked();
    await site.looked();
    assert.equal(asked, 1);
  });

  test("passes over a repository of somebody else's", async () => {
    await using other = await openWorld(localhost);
    await other.publish("6.6.6", files("6.6.6"));
    await using site = await siteOf(world, [other.origin.url, mirror.url]);
    await site.until("the release", committed("1.0.0"));
    assert.ok((await site.metric(failovers, { code: "METADATA_UNTRUSTED" })) >= 1);
  });

  const lies: readonly (readonly [string, Fault, number])[] = [
    ["one bit of a file is another", { fault: "flipped", at: 70_000 }, 1],
    ["a file never ends", { fault: "endless" }, 1],
    ["a file ends early", { fault: "truncated", after: 50_000 }, 1],
    ["a file is not there", { fault: "status", status: 404 }, 1],
    ["the connection breaks in a file", { fault: "reset", after: 90_000 }, 1],
    ["another range comes than was asked for", { fault: "wrong-range" }, 1],
  ];
  for (const [what, fault] of lies)
    test(`goes on at the next address where ${what}`, async () => {
      mirror.reset();
      await using bad = await openOrigin(world.repository, localhost);
      bad.fail(/^blobs\//, fault, 1_000);
      await using site = await siteOf(world, [bad.url, mirror.url]);
      await site.until("the release", committed("1.0.0"));
      assert.ok(blobsOf(bad).length >= 1, "the first address was asked first");
      const failed = site.log.filter(({ message }) => message.startsWith("update failed"));
      assert.deepEqual(failed, [], "within one look");
    });

  test("installs for the first time though the first address lacks the list of releases", async () => {
    await using world = await openWorld(localhost);
    await world.publish("1.0.0", files("1.0.0"));
    // Takes the room that the list of releases would have in the news of the timestamp.
    const releases = [{ platform: PLATFORM, version: "1.0.0" }];
    const document = { schema: 1, app: "web", channel: "stable", sequence: 2, releases } as const;
    const large = { ...document, note: noise(12, 4_600).toString("base64") };
    await world.forgeChannel(large);
    await using mirror = await openOrigin(world.repository, localhost);
    await using lacking = await openOrigin(world.repository, localhost);
    const status = { fault: "status", status: 404 } as const;
    lacking.fail(/^metadata\/\d+\.app\.web\.json$/, status, 1_000_000);
    await using site = await siteOf(world, [lacking.url, mirror.url]);
    await site.until("the release", committed("1.0.0"));
    const asked = lacking.requests.map(({ path }) => path);
    assert.ok(
      asked.some((path) => path.endsWith(".app.web.json")),
      asked.join(),
    );
  });

  /** The one large file. */
  async function large(): Promise<RegExp> {
    const folder = join(world.repository, "blobs/sha256");
    for (const name of await readdir(folder))
      if ((await stat(join(folder, name))).size > 100_000) return new RegExp(name);
    throw new Error("there is no large blob");
  }

  test("goes on with a file at the other address behind the bytes that it has", async () => {
    mirror.reset();
    await using breaking = await openOrigin(world.repository, localhost);
    // In good order, so that all of them arrive: a reset may take bytes back that are on their way.
    breaking.fail(await large(), { fault: "truncated", after: 150_000 }, 1_000);
    await using site = await siteOf(world, [breaking.url, mirror.url]);
    await site.until("the release", committed("1.0.0"));
    const broken = blobsOf(breaking).find(({ bytes }) => bytes === 150_000);
    const resumed = blobsOf(mirror).find(({ path }) => path === broken?.path);
    const offset = Number(/^bytes=(\d+)-$/.exec(resumed?.range ?? "")?.[1]);
    assert.ok(offset > 0, `resumed with ${resumed?.range}`);
    const sent = (broken?.bytes ?? 0) + (resumed?.bytes ?? 0);
    assert.ok(sent < MODEL.length * 1.1, `${sent} bytes for ${MODEL.length}`);
  });

  test("gets a file in the end though one address always breaks off and the other one lies", async () => {
    await using breaking = await openOrigin(world.repository, localhost);
    breaking.fail(await large(), { fault: "truncated", after: 150_000 }, 1_000);
    await using lying = await openOrigin(world.repository, localhost);
    lying.fail(await large(), { fault: "flipped", at: 70_000 }, 1_000);
    await using site = await siteOf(world, [breaking.url, lying.url]);
    await site.until("the release", committed("1.0.0"));
    const lies = blobsOf(lying).filter(({ bytes }) => bytes > 100_000);
    assert.ok(lies.length <= 2, `${lies.length} times the bytes of a lie`);
  });

  test("says what the first address had to say when none does", async () => {
    await using wrong = await httpServer(
      (_, response) => void response.writeHead(403).end(),
      localhost,
    );
    const nobody = `https://localhost:${await closedPort()}`;
    await using site = await siteOf(world, [wrong.url, nobody]);
    const status = await site.until("an error", ({ error }) => error !== null);
    assert.equal(status.error?.code, "ORIGIN_REFUSED");
    await using other = await siteOf(world, [nobody, wrong.url]);
    const second = await other.until("an error", ({ error }) => error !== null);
    assert.equal(second.error?.code, "ORIGIN_UNAVAILABLE");
  });
});

describe("a mirror that has stopped following", () => {
  test("is passed over when it is older than what the site has seen", async () => {
    await using world = await openWorld(localhost);
    await world.publish("1.0.0", files("1.0.0"));
    const old = join(world.folder, "old");
    await cp(world.repository, old, { recursive: true });
    await using stale = await openOrigin(old, localhost);
    await world.publish("1.1.0", files("1.1.0"));
    const payload = join(world.folder, "site");
    {
      await using site = await siteOf(world, [world.origin.url], { payload });
      await site.until("the second release", committed("1.1.0"));
    }
    await world.publish("1.2.0", files("1.2.0"));
    await using site = await siteOf(world, [stale.url, world.origin.url], { payload });
    await site.until("the third release", committed("1.2.0"));
    assert.ok((await site.metric(failovers, { code: "METADATA_UNTRUSTED" })) >= 1);
  });
});
