import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { openWorld } from "./world.ts";
import type { World } from "./world.ts";
import { startSidecar, until } from "./sidecar.ts";

/** The agent against whichever server is given; see world.ts. */
let world: World;
before(async () => {
  world = await openWorld();
  await world.configure("POST", `${world.names.kv}/data/web/db`, {
    data: { username: "app", password: "first" },
  });
  await world.configure("POST", `${world.names.plain}/web/plain`, { greeting: "hello" });
});
after(() => world[Symbol.asyncDispose]());

const lease = { request: () => `${world.names.broker}/creds/app` };

describe("the secrets agent", () => {
  for (const auth of ["kubernetes", "jwt", "cert", "approle"] as const)
    test(`logs in by ${auth} and publishes both versions of KV`, async () => {
      await using sidecar = await startSidecar(world, {
        auth,
        secrets: {
          db: { request: `${world.names.kv}/data/web/db`, format: "env", file: "db.env" },
          plain: { request: `${world.names.plain}/web/plain`, format: "raw:greeting" },
        },
      });
      await until(() => sidecar.agent.published(), "published");
      assert.equal(await sidecar.file("db.env"), "password=first\nusername=app\n");
      assert.equal(await sidecar.file("plain"), "hello");
      assert.equal(sidecar.agent.expiredSince(), undefined);
    });

  test("reads a secret without a lease again, and swaps the set when it has changed", async () => {
    const path = `${world.names.kv}/data/web/turning`;
    await world.configure("POST", path, { data: { value: "one" } });
    await using sidecar = await startSidecar(world, {
      refreshInterval: "1s",
      secrets: { db: { request: path, format: "raw:value" } },
    });
    await until(() => sidecar.agent.published(), "published");
    assert.equal(await sidecar.file("db"), "one");
    await world.configure("POST", path, { data: { value: "two" } });
    await until(async () => (await sidecar.file("db")) === "two", "the change");
    await until(() => sidecar.agent.status().rotations === 1, "the count");
    await world.configure("DELETE", path);
    await until(() => sidecar.agent.status().secrets[0]?.code === "SECRET_INVALID", "the refusal");
    assert.equal(await sidecar.file("db"), "two", "what is published is never taken away");
  });

  test("keeps a lease by renewing it, with one user for all its files", async () => {
    await world.leaseTerms(2, 3_600);
    const made = world.broker.created();
    await using sidecar = await startSidecar(world, {
      secrets: {
        user: { request: lease.request(), format: "raw:username" },
        password: { request: lease.request(), format: "raw:password" },
      },
    });
    await until(() => sidecar.agent.published(), "published");
    const [user, password] = [await sidecar.file("user"), await sidecar.file("password")];
    const renewals = async (): Promise<number> => {
      const metric = await sidecar.registry
        .getSingleMetric("edgesync_sidecar_secret_renewals_total")
        ?.get();
      return metric?.values.find((row) => row.labels["outcome"] === "ok")?.value ?? 0;
    };
    await until(async () => (await renewals()) >= 2, "two renewals");
    assert.ok(world.broker.accepts(user, password));
    assert.equal(world.broker.created(), made + 1);
    assert.equal(await sidecar.file("user"), user);
  });

  test("replaces a lease at its maximum before the old one ends", async () => {
    await world.leaseTerms(2, 3);
    await using sidecar = await startSidecar(world, {
      secrets: { db: { request: lease.request(), format: "json" } },
    });
    await until(() => sidecar.agent.published(), "published");
    await until(() => sidecar.agent.status().rotations >= 1, "the rotation");
    const { username, password } = JSON.parse(await sidecar.file("db")) as Record<string, string>;
    assert.ok(world.broker.accepts(username ?? "", password ?? ""));
    assert.equal(sidecar.agent.expiredSince(), undefined);
  });

  test("revokes what it was issued, in time", async () => {
    await world.leaseTerms(3_600, 7_200);
    await using sidecar = await startSidecar(world, {
      secrets: { db: { request: lease.request(), format: "json" } },
    });
    await until(() => sidecar.agent.published(), "published");
    const { username, password } = JSON.parse(await sidecar.file("db")) as Record<string, string>;
    await sidecar.stop();
    const begun = performance.now();
    await sidecar.agent.revoke(AbortSignal.timeout(5_000));
    assert.ok(performance.now() - begun < 1_500);
    await until(() => !world.broker.accepts(username ?? "", password ?? ""), "the user's end");
  });
});
