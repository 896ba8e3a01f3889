import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { AUDIENCE, openWorld } from "./world.ts";
import type { Reply, World } from "./world.ts";

/**
 * Holds the embedded development Vault to the real one: with VAULT_ADDR and VAULT_TOKEN these run, unchanged, against that server.
 */
let world: World;
before(async () => {
  world = await openWorld();
});
after(() => world[Symbol.asyncDispose]());

async function login(method: "kubernetes" | "jwt", jwt: string, role = "web"): Promise<Reply> {
  return world.call("POST", `auth/${world.names[method]}/login`, { role, jwt }, "");
}

async function webToken(): Promise<string> {
  const reply = await login("kubernetes", await world.cluster.token(world.account));
  return reply.body.auth?.client_token ?? "";
}

describe("the health of Vault", () => {
  test("is told to everybody", async () => {
    const reply = await world.call("GET", "sys/health", undefined, "");
    assert.equal(reply.status, 200);
  });
});

describe("a kubernetes login", () => {
  test("gives a token with the role's policies, its time to live and the account", async () => {
    const { status, body } = await login("kubernetes", await world.cluster.token(world.account));
    assert.equal(status, 200);
    assert.deepEqual(body.auth?.policies.toSorted(), ["default", world.names.policy].toSorted());
    assert.equal(body.auth?.lease_duration, 3_600);
    assert.equal(body.auth?.renewable, true);
    assert.equal(body.auth?.metadata?.["service_account_name"], "web");
  });

  test("is refused to another account and to another namespace", async () => {
    for (const account of [
      { namespace: "shop", name: "other" },
      { namespace: "other", name: "web" },
    ]) {
      const reply = await login("kubernetes", await world.cluster.token(account));
      assert.equal(reply.status, 403);
    }
  });

  test("is refused to an expired token", async () => {
    const jwt = await world.cluster.token(world.account, { lifetimeSeconds: -600 });
    assert.equal((await login("kubernetes", jwt)).status, 403);
  });

  test("is refused to a token that the cluster did not sign", async () => {
    const jwt = await world.cluster.token(world.account);
    const [head, claims, signature = ""] = jwt.split(".");
    const forged = `${head}.${claims}.${signature.startsWith("A") ? "B" : "A"}${signature.slice(1)}`;
    assert.equal((await login("kubernetes", forged)).status, 403);
  });

  test("is refused to a token for somebody else, as the cluster's review fails on its audience", async () => {
    await world.configure("POST", `auth/${world.names.kubernetes}/role/strict`, {
      bound_service_account_names: ["web"],
      bound_service_account_namespaces: ["shop"],
      audience: AUDIENCE,
    });
    const jwt = await world.cluster.token(world.account);
    assert.equal((await login("kubernetes", jwt, "strict")).status, 403);
    const meant = await world.cluster.token(world.account, { audience: AUDIENCE });
    assert.equal((await login("kubernetes", meant, "strict")).status, 200);
  });

  test("names a role that does not exist as a bad request", async () => {
    const jwt = await world.cluster.token(world.account);
    assert.equal((await login("kubernetes", jwt, "nobody")).status, 400);
  });
});

describe("a jwt login", () => {
  const options = { audience: AUDIENCE };

  test("needs nobody but the key that Vault was given", async () => {
    const { status, body } = await login("jwt", await world.cluster.token(world.account, options));
    assert.equal(status, 200);
    assert.equal(body.auth?.renewable, true);
  });

  test("is refused, as a bad request, for a wrong audience, subject or time", async () => {
    const account = { namespace: "shop", name: "other" };
    const tokens = [
      await world.cluster.token(world.account),
      await world.cluster.token(account, options),
      await world.cluster.token(world.account, { ...options, lifetimeSeconds: -600 }),
      "no.jwt.at-all",
    ];
    for (const jwt of tokens) assert.equal((await login("jwt", jwt)).status, 400);
  });
});

describe("a token", () => {
  test("can look itself up, renew itself and end itself", async () => {
    const token = await webToken();
    const self = await world.call("GET", "auth/token/lookup-self", undefined, token);
    assert.equal(self.status, 200);
    assert.equal(self.body.data?.["id"], token);
    const renewed = await world.call(
      "POST",
      "auth/token/renew-self",
      { increment: "7200s" },
      token,
    );
    assert.equal(renewed.status, 200);
    assert.ok((renewed.body.auth?.lease_duration ?? 0) > 3_600);
    const ended = await world.call("POST", "auth/token/revoke-self", undefined, token);
    assert.equal(ended.status, 204);
    const after = await world.call("GET", "auth/token/lookup-self", undefined, token);
    assert.equal(after.status, 403);
  });

  test("that cannot be renewed says so with 400", async () => {
    const made = await world.configure("POST", "auth/token/create", {
      renewable: false,
      ttl: "60s",
    });
    const token = made.body.auth?.client_token ?? "";
    const reply = await world.call("POST", "auth/token/renew-self", {}, token);
    assert.equal(reply.status, 400);
  });

  test("is renewed up to its maximum and no further", async () => {
    const made = await world.configure("POST", "auth/token/create", {
      ttl: "60s",
      explicit_max_ttl: "90s",
    });
    const token = made.body.auth?.client_token ?? "";
    const reply = await world.call("POST", "auth/token/renew-self", { increment: 600 }, token);
    const seconds = reply.body.auth?.lease_duration ?? 0;
    assert.ok(seconds > 60 && seconds <= 90, String(seconds));
  });

  test("is needed for everything else", async () => {
    for (const token of ["", "hvs.nobody"]) {
      const reply = await world.call("GET", `${world.names.kv}/data/web/db`, undefined, token);
      assert.equal(reply.status, 403);
    }
  });
});

describe("a policy", () => {
  test("allows what it names and denies the rest", async () => {
    const { kv } = world.names;
    for (const path of ["web/ok", "web/forbidden", "team/shared", "team/deep/shared", "other/x"])
      await world.configure("POST", `${kv}/data/${path}`, { data: { path } });
    const token = await webToken();
    const status = async (method: string, path: string): Promise<number> =>
      (await world.call(method, path, method === "POST" ? { data: {} } : undefined, token)).status;
    assert.equal(await status("GET", `${kv}/data/web/ok`), 200);
    assert.equal(await status("GET", `${kv}/data/team/shared`), 200);
    assert.equal(await status("GET", `${kv}/data/web/forbidden`), 403);
    assert.equal(await status("GET", `${kv}/data/team/deep/shared`), 403);
    assert.equal(await status("GET", `${kv}/data/other/x`), 403);
    assert.equal(await status("POST", `${kv}/data/web/ok`), 403);
    assert.equal(await status("GET", "sys/mounts"), 403);
  });
});

describe("the versioned KV engine", () => {
  test("wraps data and metadata, and answers 404 with metadata for a deleted version", async () => {
    const path = `${world.names.kv}/data/web/versions`;
    assert.equal((await world.call("GET", path)).status, 404);
    await world.configure("POST", path, { data: { colour: "red" } });
    const written = await world.configure("POST", path, { data: { colour: "blue" } });
    assert.equal(written.body.data?.["version"], 2);
    const read = await world.call("GET", path);
    assert.deepEqual(read.body.data?.["data"], { colour: "blue" });
    assert.equal((read.body.data?.["metadata"] as { version: number } | undefined)?.version, 2);
    assert.equal(read.body.lease_id, "");
    const first = await world.call("GET", `${path}?version=1`);
    assert.deepEqual(first.body.data?.["data"], { colour: "red" });
    await world.configure("DELETE", path);
    const gone = await world.call("GET", path);
    assert.equal(gone.status, 404);
    assert.equal(gone.body.data?.["data"], null);
    await world.configure("POST", `${world.names.kv}/undelete/web/versions`, { versions: [2] });
    assert.equal((await world.call("GET", path)).status, 200);
    await world.configure("POST", `${world.names.kv}/destroy/web/versions`, { versions: [2] });
    assert.equal((await world.call("GET", path)).status, 404);
  });
});

describe("the plain KV engine", () => {
  test("gives the data as it is, with a duration and no lease", async () => {
    const path = `${world.names.plain}/web/plain`;
    await world.configure("POST", path, { user: "u" });
    const { body } = await world.call("GET", path);
    assert.deepEqual(body.data, { user: "u" });
    assert.equal(body.lease_id, "");
    assert.ok((body.lease_duration ?? 0) > 0);
    await world.configure("DELETE", path);
    assert.equal((await world.call("GET", path)).status, 404);
  });
});

describe("a lease", () => {
  const creds = (token: string): Promise<Reply> =>
    world.call("GET", `${world.names.broker}/creds/app`, undefined, token);
  const of = ({ body }: Reply): { username: string; password: string } =>
    body.data as { username: string; password: string };

  test("comes with a user that exists until the lease is revoked", async () => {
    await world.leaseTerms(3_600, 7_200);
    const token = await webToken();
    const issued = await creds(token);
    const { username, password } = of(issued);
    assert.equal(issued.status, 200);
    assert.equal(issued.body.lease_duration, 3_600);
    assert.equal(issued.body.renewable, true);
    assert.match(issued.body.lease_id ?? "", new RegExp(`^${world.names.broker}/creds/app/`));
    assert.ok(world.broker.accepts(username, password));
    const body = { lease_id: issued.body.lease_id };
    assert.equal((await world.call("PUT", "sys/leases/lookup", body, token)).status, 200);
    assert.equal((await world.call("PUT", "sys/leases/revoke", body, token)).status, 204);
    assert.ok(!world.broker.accepts(username, password));
    assert.equal((await world.call("PUT", "sys/leases/renew", body, token)).status, 400);
    assert.equal((await world.call("PUT", "sys/leases/lookup", body, token)).status, 400);
  });

  test("is renewed for what is asked, and for less when its maximum is near", async () => {
    await world.leaseTerms(60, 120);
    const token = await webToken();
    const lease_id = (await creds(token)).body.lease_id;
    const renew = async (increment: number): Promise<number> => {
      const reply = await world.call("PUT", "sys/leases/renew", { lease_id, increment }, token);
      assert.equal(reply.status, 200);
      return reply.body.lease_duration ?? 0;
    };
    assert.equal(await renew(90), 90);
    const capped = await renew(600);
    assert.ok(capped > 100 && capped <= 120, String(capped));
  });

  test("ends with the token that it was issued to", async () => {
    const token = await webToken();
    const { username, password } = of(await creds(token));
    assert.ok(world.broker.accepts(username, password));
    await world.call("POST", "auth/token/revoke-self", undefined, token);
    const deadline = Date.now() + 10_000;
    while (world.broker.accepts(username, password) && Date.now() < deadline) await delay(20);
    assert.ok(!world.broker.accepts(username, password));
  });

  test("ends by itself at its time", async () => {
    await world.leaseTerms(1, 1);
    const { username, password } = of(await creds(await webToken()));
    const deadline = Date.now() + 10_000;
    while (world.broker.accepts(username, password) && Date.now() < deadline) await delay(20);
    assert.ok(!world.broker.accepts(username, password));
  });

  test("is not to be had for a role that does not exist", async () => {
    const path = `${world.names.broker}/creds/nobody`;
    assert.equal((await world.call("GET", path)).status, 400);
  });
});
