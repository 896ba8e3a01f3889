import assert from "node:assert/strict";
import { readFileSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { committed, openSite } from "./support/site.ts";
import { changed, noise, openWorld } from "./support/world.ts";

const MODEL = noise(7, 400_000);
const V1 = {
  health: "good",
  "bin/run": { executable: "#!/bin/sh\necho one\n" },
  "data/model.bin": MODEL,
  "data/same.txt": "unchanged\n".repeat(50),
  latest: { link: "bin/run" },
};
const V2 = {
  ...V1,
  "data/model.bin": changed(MODEL, 1000, "two"),
  "bin/run": { executable: "#!/bin/sh\necho two\n" },
};

describe("an update agent", () => {
  test("installs the first release without a trial, then follows the channel by delta", async () => {
    await using world = await openWorld();
    await world.publish("1.0.0", V1);
    const options = {
      payload: join(world.folder, "site"),
      url: world.origin.url,
      root: world.root,
    };
    await using site = await openSite(options);
    const first = await site.until("the first release", committed("1.0.0"));
    assert.equal(site.application.restarts(), 0);
    assert.equal(site.agent.installed(), true);
    assert.equal(first.sequence, 1);
    const current = join(site.payload, "current");
    assert.deepEqual(readFileSync(join(current, "data/model.bin")), MODEL);
    assert.equal(statSync(join(current, "bin/run")).mode & 0o777, 0o555);

    await world.publish("1.1.0", V2);
    await site.until("the second release", committed("1.1.0"));
    assert.equal(site.application.restarts(), 1);
    assert.equal(
      readFileSync(join(current, "data/model.bin")).subarray(1000, 1003).toString(),
      "two",
    );
    await site.looked();
    const { plan } = site.agent.status();
    assert.ok(
      plan !== null && plan.downloadBytes < 5_000 && plan.savedBytes > 390_000,
      JSON.stringify(plan),
    );
    assert.deepEqual(readdirSync(join(site.payload, "partial")), []);
    assert.equal(readdirSync(join(site.payload, "banks")).length, 2);
    assert.equal(await site.metric("edgesync_sidecar_commits_total"), 2);
  });
});
