import assert from "node:assert/strict";
import { readFile, readlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { temporaryFolder } from "../support/temporary.ts";
import { savedState, startSidecar, until } from "../vault/sidecar.ts";
import type { Sidecar } from "../vault/sidecar.ts";
import { openWorld } from "../vault/world.ts";
import type { World } from "../vault/world.ts";

/** Against the embedded Vault, over TLS, with the faults that only it can show. */
let world: World;
before(async () => {
  world = await openWorld({ embedded: true });
});
after(() => world[Symbol.asyncDispose]());
beforeEach(async () => {
  control().faults();
  control().seal(false);
  await world.leaseTerms(3_600, 7_200);
});

function control() {
  const { embedded } = world;
  assert.ok(embedded !== undefined);
  return embedded.control;
}

const creds = (): string => `${world.names.broker}/creds/app`;
const kv = (name: string): string => `${world.names.kv}/data/web/${name}`;

async function write(name: string, data: object): Promise<void> {
  await world.configure("POST", kv(name), { data });
}

function count(pattern: RegExp): number {
  return control().requests.filter((line) => pattern.test(line)).length;
}

const soon = { random: () => 0 };

describe("a start", () => {
  test("is refused when the secrets' folder is on a disk, before Vault is asked for anything", async () => {
    await using folder = await temporaryFolder(tmpdir());
    const asked = control().requests.length;
    await assert.rejects(
      startSidecar(world, { folder: folder.path, secrets: { db: { request: creds() } } }),
      { code: "SECRET_STORAGE_UNSAFE" },
    );
    assert.equal(control().requests.length, asked);
  });

  test("shows nothing before every declared secret is there", async () => {
    await write("early", { value: "1" });
    await write("late", { value: "2" });
    control().faults({ path: /web\/late$/, status: 500 });
    await using sidecar = await startSidecar(world, {
      ...soon,
      secrets: { early: { request: kv("early") }, late: { request: kv("late") } },
    });
    await until(
      () => sidecar.agent.status().secrets[1]?.code === "VAULT_UNAVAILABLE",
      "the reason",
    );
    assert.equal(sidecar.agent.published(), false);
    assert.equal(await sidecar.version(), undefined);
    control().faults();
    await until(() => sidecar.agent.published(), "published");
  });

  test("waits out a sealed Vault, and says why", async () => {
    await write("db", { value: "1" });
    control().seal(true);
    await using sidecar = await startSidecar(world, {
      ...soon,
      secrets: { db: { request: kv("db") } },
    });
    await until(() => sidecar.agent.status().code === "VAULT_UNAVAILABLE", "the reason");
    control().seal(false);
    await until(() => sidecar.agent.published(), "published");
    assert.equal(sidecar.agent.status().code, undefined);
  });

  test("with a role that does not let it in keeps trying, slowly, and says so", async () => {
    const logins = count(/login$/);
    await using sidecar = await startSidecar(world, {
      role: "nobody",
      secrets: { db: { request: kv("db") } },
    });
    await until(() => sidecar.agent.status().code === "VAULT_DENIED", "the reason");
    await delay(300);
    assert.equal(count(/login$/) - logins, 1);
    assert.equal(sidecar.agent.status().loggedIn, false);
  });
});

describe("one secret's failure", () => {
  const faults = {
    denied: { status: 403 },
    absent: { status: 404 },
    failing: { status: 500 },
    strange: { status: 200, body: "<html>" },
    silent: { stall: true },
  } as const;

  test("harms no other: denied, absent, failing, answered with something else, or never", async () => {
    const bad = Object.keys(faults);
    for (const name of ["good", ...bad]) await write(name, { value: "1" });
    await using sidecar = await startSidecar(world, {
      refreshInterval: "1s",
      secrets: Object.fromEntries(
        ["good", ...bad].map((name) => [name, { request: kv(name), format: "raw:value" }]),
      ),
    });
    await until(() => sidecar.agent.published(), "published");
    control().faults(
      ...Object.entries(faults).map(([name, fault]) => ({
        path: new RegExp(`web/${name}$`),
        ...fault,
      })),
    );
    const codes = (): readonly (string | undefined)[] =>
      sidecar.agent.status().secrets.map(({ code }) => code);
    await until(() => codes().filter((code) => code !== undefined).length >= 4, "the codes");
    await write("good", { value: "2" });
    await until(async () => (await sidecar.file("good")) === "2", "the other's change");
    for (const name of bad) assert.equal(await sidecar.file(name), "1", "what is published stays");
    assert.equal(sidecar.agent.expiredSince(), undefined);
  });

  test("of a missing field does not take the old file away", async () => {
    await write("fields", { value: "1" });
    await using sidecar = await startSidecar(world, {
      refreshInterval: "1s",
      secrets: { fields: { request: kv("fields"), format: "raw:value" } },
    });
    await until(() => sidecar.agent.published(), "published");
    await write("fields", { other: "2" });
    await until(() => sidecar.agent.status().secrets[0]?.code === "SECRET_INVALID", "the code");
    assert.equal(await sidecar.file("fields"), "1");
  });
});

describe("a credential that nobody can use", () => {
  test("is given back: a lease whose data lacks the declared field", async () => {
    const [users, made] = [world.broker.users.size, world.broker.created()];
    await using sidecar = await startSidecar(world, {
      secrets: { db: { request: creds(), format: "raw:nothing" } },
    });
    await until(() => sidecar.agent.status().secrets[0]?.code === "SECRET_INVALID", "the code");
    assert.equal(world.broker.created(), made + 1);
    await until(() => world.broker.users.size === users, "the user's end");
  });
});

describe("a rotation", () => {
  test("keeps user and password together for whoever reads while it happens", async () => {
    await world.leaseTerms(1, 1);
    await using sidecar = await startSidecar(world, {
      secrets: {
        user: { request: creds(), format: "raw:username" },
        password: { request: creds(), format: "raw:password" },
      },
    });
    await until(() => sidecar.agent.published(), "published");
    const issued = new Map<string, string>();
    const set = join(sidecar.folder, "volume", "set");
    const seen = new Set<string>();
    await until(async () => {
      for (const [user, password] of world.broker.users) issued.set(user, password);
      const version = join(set, await readlink(join(set, "..data")));
      const [user, password] = await Promise.all([
        readFile(join(version, "user"), "utf8"),
        readFile(join(version, "password"), "utf8"),
      ]);
      if (issued.has(user)) assert.equal(issued.get(user), password);
      seen.add(user);
      return seen.size >= 4;
    }, "four credentials");
    assert.ok(sidecar.agent.status().rotations >= 3);
  });
});

describe("a token", () => {
  test("that was revoked is replaced, and with it what it had issued: one login, one new user", async () => {
    await using sidecar = await startSidecar(world, {
      refreshInterval: "1s",
      secrets: { db: { request: creds(), format: "raw:username" }, kv: { request: kv("db") } },
    });
    await write("db", { value: "1" });
    await until(() => sidecar.agent.published(), "published");
    const user = await sidecar.file("db");
    const [logins, users] = [count(/login$/), world.broker.created()];
    await world.configure("POST", "auth/token/revoke-accessor", {
      accessor: await accessorOf(sidecar),
    });
    await until(async () => (await sidecar.file("db")) !== user, "a new user");
    assert.equal(count(/login$/) - logins, 1);
    assert.equal(world.broker.created() - users, 1);
  });

  test("is not suspected for a secret that no policy allows", async () => {
    await write("forbidden", { value: "1" });
    const looks = count(/lookup-self$/);
    await using sidecar = await startSidecar(world, {
      ...soon,
      secrets: { db: { request: kv("forbidden") } },
    });
    await until(() => sidecar.agent.status().secrets[0]?.code === "VAULT_DENIED", "the code");
    assert.equal(count(/lookup-self$/) - looks, 0);
  });

  test("at the end of its life is followed by another before its leases end", async () => {
    await using brief = await openWorld({ embedded: true, tokenTtl: 1, tokenMaxTtl: 2 });
    await using sidecar = await startSidecar(brief, {
      secrets: { db: { request: `${brief.names.broker}/creds/app`, format: "json" } },
    });
    await until(() => sidecar.agent.published(), "published");
    await until(() => sidecar.agent.status().rotations >= 2, "two rotations", 30_000);
    const { username = "", password = "" } = JSON.parse(await sidecar.file("db")) as Record<
      string,
      string
    >;
    assert.ok(brief.broker.accepts(username, password));
    assert.equal(sidecar.agent.expiredSince(), undefined);
  });
});

describe("a lease that may not be renewed", () => {
  test("is not asked about again and again: it is used to its end (403 on renew)", async () => {
    await world.leaseTerms(1, 3_600);
    control().faults({ path: /sys\/leases\/renew/, status: 403 });
    const [renewals, users] = [count(/leases\/renew/), world.broker.created()];
    await using sidecar = await startSidecar(world, {
      secrets: { db: { request: creds(), format: "raw:username" } },
    });
    await until(() => sidecar.agent.status().rotations >= 2, "two rotations");
    const made = world.broker.created() - users;
    assert.ok(count(/leases\/renew/) - renewals <= made);
    assert.ok(made <= 4, String(made));
  });
});

describe("an old lease", () => {
  test("is still good right after its successor was published", async () => {
    await using sidecar = await startSidecar(world, {
      secrets: { db: { request: creds(), format: "json" } },
    });
    await until(() => sidecar.agent.published(), "published");
    const old = JSON.parse(await sidecar.file("db")) as { username: string; password: string };
    await sidecar.stop();
    // The lease's renewal is refused as if it were unknown: it is replaced although it is well.
    control().faults({ path: /sys\/leases\/renew/, status: 400 });
    await using next = await startSidecar(world, {
      folder: sidecar.folder,
      secrets: { db: { request: creds(), format: "json" } },
    });
    await until(() => next.agent.status().rotations === 1, "the rotation");
    assert.notDeepEqual(JSON.parse(await next.file("db")), old);
    assert.ok(world.broker.accepts(old.username, old.password));
  });
});

async function accessorOf(sidecar: Sidecar): Promise<string> {
  return (await savedState(sidecar.folder)).token.accessor;
}

describe("what is secret", () => {
  test("is in no log line, metric, status or error, whatever happens", async () => {
    const canary = "canary-0815";
    await write("canary", { value: canary, "not a variable": canary });
    await world.leaseTerms(1, 2);
    await using sidecar = await startSidecar(world, {
      refreshInterval: "1s",
      random: () => 0,
      secrets: {
        good: { request: kv("canary"), format: "json" },
        dynamic: { request: creds(), format: "json" },
      },
    });
    await until(() => sidecar.agent.published(), "published");
    const { token } = await savedState(sidecar.folder);
    const jwt = await readFile(join(sidecar.folder, "token"), "utf8");
    await using broken = await startSidecar(world, {
      random: () => 0,
      secrets: { env: { request: kv("canary"), format: "env" } },
    });
    await until(() => broken.agent.status().secrets[0]?.code !== undefined, "the refusal");
    const passwords = new Set<string>([canary, token.token, token.accessor, jwt]);
    for (const fault of [
      { status: 403, body: `{"errors":["${canary}"]}` },
      { status: 500, body: canary },
      { status: 200, body: `{"data":{"value":"${canary}"` },
      { status: 200, body: `{"data":"${canary}"}` },
      { dropAnswer: true as const },
    ]) {
      const seen = sidecar.log.lines.length;
      control().faults({ path: /data\/web|creds|leases/, ...fault });
      await until(() => sidecar.log.lines.length > seen, "a line of the log", 20_000);
      for (const password of world.broker.users.values()) passwords.add(password);
    }
    await sidecar.stop();
    await sidecar.agent.revoke(AbortSignal.timeout(5_000));
    const told = [
      ...sidecar.log.lines,
      ...broken.log.lines,
      await sidecar.registry.metrics(),
      JSON.stringify([sidecar.agent.status(), broken.agent.status()]),
    ].join("\n");
    for (const secret of passwords) assert.ok(!told.includes(secret), "a secret was told");
    for (const path of [kv("canary"), creds()])
      assert.ok(!JSON.stringify(sidecar.agent.status()).includes(path), "a path is in the status");
  });
});
