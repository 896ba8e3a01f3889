import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, test } from "node:test";
import { openSlowLink } from "../support/slow-link.ts";
import { committed, openSite } from "../update/support/site.ts";
import { openWorld } from "../update/support/world.ts";

const FILES = 2_000;
const ROUND_TRIP_MS = 600;

/** Small files, of which each is another in each version. */
function filesOf(version: string): Record<string, string> {
  const files: Record<string, string> = { health: "good" };
  for (let index = 0; index < FILES; index++)
    files[`d${index % 40}/f${index}`] = `setting ${index}\nversion ${version} ${index * 7919}\n`;
  return files;
}

describe("an update of 2,000 files", () => {
  test("takes at most six requests in all, its poll included, at a round trip of 600 ms", async (t) => {
    await using world = await openWorld();
    await world.publish("1.0.0", filesOf("1.0.0"));
    const options = { payload: join(world.folder, "payload"), root: world.root };
    // One look at the channel, and no second one while the update goes on.
    const settings = { pollInterval: 3_600_000 };
    {
      await using site = await openSite({ ...options, url: world.origin.url, settings });
      await site.until("the first release", committed("1.0.0"));
    }
    await world.publish("1.1.0", filesOf("1.1.0"));
    world.origin.reset();
    await using link = await openSlowLink(world.origin.url, ROUND_TRIP_MS);
    const begun = performance.now();
    await using site = await openSite({ ...options, url: link.url, settings });
    await site.until("the update", committed("1.1.0"));
    const seconds = (performance.now() - begun) / 1000;
    for (const { path, status, bytes } of world.origin.requests)
      t.diagnostic(`${status} ${path.replace(/[0-9a-f]{64}/, "<sha256>")} ${bytes} bytes`);
    t.diagnostic(`${world.origin.requests.length} requests in ${seconds.toFixed(1)} s`);
    assert.ok(world.origin.requests.length <= 6, `${world.origin.requests.length} requests`);
  });
});
