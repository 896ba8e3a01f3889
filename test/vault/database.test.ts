import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { connect, openPostgres } from "./postgres.ts";
import { startSidecar, until } from "./sidecar.ts";
import { openWorld } from "./world.ts";

/** No engine for databases is made up: this needs a real Vault or OpenBao, and a real PostgreSQL. */
const isReal = process.env["VAULT_ADDR"] !== undefined;

const ROTATIONS = 4;

/** The rights are the group's, so that a session whose role is dropped has none. */
const CREATION = [
  `CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`,
  `GRANT app TO "{{name}}"`,
];

describe("a database's credential", () => {
  test("is rotated without a query that fails, for a client that connects again", async (t) => {
    if (!isReal) {
      t.diagnostic("left out: VAULT_ADDR names no real Vault or OpenBao");
      return;
    }
    await using postgres = await openPostgres();
    if (postgres === undefined) {
      t.diagnostic("left out: there is no PostgreSQL, and only root can install it");
      return;
    }
    postgres.run("CREATE TABLE items (name text); INSERT INTO items VALUES ('one')");
    postgres.run("CREATE ROLE app NOLOGIN; GRANT SELECT ON items TO app");
    await using world = await openWorld();
    const mount = `${world.names.policy}-db`;
    await world.configure("POST", `sys/mounts/${mount}`, { type: "database" });
    await using stack = new AsyncDisposableStack();
    stack.defer(async () => {
      await world.call("DELETE", `sys/mounts/${mount}`);
    });
    await world.configure("POST", `${mount}/config/shop`, {
      plugin_name: "postgresql-database-plugin",
      connection_url: `postgresql://{{username}}:{{password}}@127.0.0.1:${postgres.port}/postgres?sslmode=disable`,
      ...postgres.admin,
      allowed_roles: "*",
    });
    await world.configure("POST", `${mount}/roles/app`, {
      db_name: "shop",
      creation_statements: CREATION,
      default_ttl: "3s",
      max_ttl: "5s",
    });
    const policy = `sys/policies/acl/${world.names.policy}`;
    const before = await world.configure("GET", policy);
    const text = `${String(before.body.data?.["policy"])}\npath "${mount}/creds/app" { capabilities = ["read"] }`;
    await world.configure("PUT", policy, { policy: text });

    await using sidecar = await startSidecar(world, {
      secrets: { db: { request: `${mount}/creds/app`, format: "json" } },
    });
    await until(() => sidecar.agent.published(), "published");
    const figures = { queries: 0, failed: 0, connections: 0, longestReconnectMs: 0, users: 0 };
    const users = new Set<string>();
    while (sidecar.agent.status().rotations < ROTATIONS) {
      const version = await sidecar.version();
      const account = JSON.parse(await sidecar.file("db")) as {
        username: string;
        password: string;
      };
      users.add(account.username);
      const begun = performance.now();
      using connection = connect(postgres.port, account);
      figures.connections += 1;
      // The first answer is what a reconnect costs; from then on no query may fail until the set is another.
      assert.equal(await connection.query("SELECT count(*) FROM items"), "1");
      figures.longestReconnectMs = Math.max(
        figures.longestReconnectMs,
        Math.round(performance.now() - begun),
      );
      while ((await sidecar.version()) === version) {
        try {
          assert.equal(await connection.query("SELECT count(*) FROM items"), "1");
          figures.queries += 1;
        } catch {
          figures.failed += 1;
          break;
        }
        await delay(10);
      }
    }
    figures.users = users.size;
    t.diagnostic(JSON.stringify({ rotations: ROTATIONS, ...figures }));
    assert.equal(figures.failed, 0);
    assert.ok(figures.queries > 100, String(figures.queries));
    assert.ok(users.size >= ROTATIONS);
    assert.equal(sidecar.agent.expiredSince(), undefined);
  });
});
