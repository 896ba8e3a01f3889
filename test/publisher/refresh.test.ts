import assert from "node:assert/strict";
import { rename } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { openKeyring } from "../../publisher/keys.ts";
import { refreshRepository } from "../../publisher/refresh.ts";
import type { Refreshed } from "../../publisher/refresh.ts";
import { openRepository } from "../../publisher/repository.ts";
import { edgesync, makePublisher } from "./world.ts";
import type { Publisher } from "./world.ts";

const DAY_MS = 86_400_000;

async function refresh(
  { repository, keys }: Publisher,
  now: number,
  withinMs?: number,
): Promise<Refreshed> {
  await using open = await openRepository(repository, now);
  return await refreshRepository(open, openKeyring(keys, undefined), now, withinMs);
}

describe("refresh", () => {
  test("says what it signed, and what expires next", async () => {
    await using publisher = await makePublisher();
    await publisher.add("1", { file: "one" });
    const { repository, keys } = publisher;
    const ran = await edgesync(["refresh", repository, "--keys", keys, "--json"]);
    assert.equal(ran.status, 0, ran.stderr);
    const { signed, next, expiries, waiting } = JSON.parse(ran.stdout);
    assert.deepEqual(signed, ["timestamp", "snapshot"]);
    assert.equal(next.role, "timestamp");
    assert.deepEqual(waiting, []);
    assert.deepEqual(
      expiries.map(({ role }: { role: string }) => role),
      ["timestamp", "app.web", "snapshot", "root", "targets"],
    );
  });

  test("ends with a status of its own when something is about to expire and its key is not here", async () => {
    const created = Date.now() - 50 * DAY_MS;
    await using publisher = await makePublisher(created);
    await publisher.add("1", { file: "one" });
    const { repository, keys, folder } = publisher;
    const key = join(keys, "app.web.pem");
    await rename(key, join(folder, "away.pem"));
    assert.deepEqual((await refresh(publisher, Date.now())).waiting, []);
    const soon = await refresh(publisher, created + 70 * DAY_MS);
    assert.deepEqual(
      soon.waiting.map(({ role }) => role),
      ["app.web"],
    );
    const ran = await edgesync(["refresh", repository, "--keys", keys, "--within", "60d"]);
    assert.equal(ran.status, 75);
    assert.match(ran.stdout, /ABOUT TO EXPIRE.*app\.web, in \d+ days/);
    await rename(join(folder, "away.pem"), key);
    const cured = await refresh(publisher, created + 71 * DAY_MS);
    assert.ok(cured.signed.includes("app.web"));
    assert.deepEqual(cured.waiting, []);
  });
});
