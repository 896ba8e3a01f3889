import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { rename, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { EdgeSyncError } from "#core/errors.ts";
import { openHttp } from "../../sidecar/network/http.ts";
import type { HttpOptions } from "../../sidecar/network/http.ts";
import { openIdentified } from "../../sidecar/network/identified.ts";
import { openProxies } from "../../sidecar/network/proxy.ts";
import type { LoginMethod } from "../../sidecar/secrets/login.ts";
import { openVault } from "../../sidecar/secrets/vault.ts";
import type { Vault } from "../../sidecar/secrets/vault.ts";
import { openForwardProxy } from "../support/forward-proxy.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { startSidecar, until, writeLogin } from "./sidecar.ts";
import { AUDIENCE, openWorld } from "./world.ts";
import type { World } from "./world.ts";

/** Logins against whichever server is given; see world.ts. */
let world: World;
before(async () => {
  world = await openWorld();
});
after(() => world[Symbol.asyncDispose]());

const signal = AbortSignal.timeout(60_000);

interface Client extends AsyncDisposable {
  readonly vault: Vault;
  readonly folder: string;
}

interface ClientOptions extends Partial<HttpOptions> {
  readonly role?: string | undefined;
  /** Where the files of the login are; a new folder with good ones when absent. */
  readonly files?: string;
}

function connections(more: Partial<HttpOptions> = {}): HttpOptions {
  return {
    ...(world.ca === undefined ? {} : { ca: world.ca }),
    idleTimeoutMs: 5_000,
    unavailable: "VAULT_UNAVAILABLE",
    ...more,
  };
}

async function clientOf(kind: LoginMethod["kind"], options: ClientOptions = {}): Promise<Client> {
  const { role, files, ...more } = { role: "web", ...options };
  await using stack = new AsyncDisposableStack();
  const folder = files ?? stack.use(await temporaryFolder()).path;
  const file = join(folder, "token");
  if (files === undefined) {
    await writeLogin(world, folder);
    await writeFile(file, await world.cluster.token(world.account, { audience: AUDIENCE }));
  }
  const http =
    kind === "cert" ? openIdentified(connections(more), folder) : openHttp(connections(more));
  stack.defer(() => http.close());
  const mount = world.names[kind];
  const logins: Readonly<Record<LoginMethod["kind"], LoginMethod>> = {
    kubernetes: { kind: "kubernetes", mount, role: role ?? "", file },
    jwt: { kind: "jwt", mount, role: role ?? "", file },
    cert: { kind: "cert", mount, role },
    approle: { kind: "approle", mount, folder },
  };
  const login = logins[kind];
  const vault = openVault(http, { address: world.url, namespace: undefined, login });
  const owned = stack.move();
  return { vault, folder, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** As the kubelet does it: both at once. */
async function replace(folder: string, files: Readonly<Record<string, string>>): Promise<void> {
  for (const [name, text] of Object.entries(files)) {
    await writeFile(join(folder, "new"), text);
    await rename(join(folder, "new"), join(folder, name));
  }
}

async function failureOf(work: Promise<unknown>): Promise<EdgeSyncError> {
  const error: unknown = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof EdgeSyncError, String(error));
  return error;
}

describe("a login by certificate", () => {
  test("reads the certificate anew, and renews each token with the one it was had with", async () => {
    await using client = await clientOf("cert");
    const first = await client.vault.login(signal);
    assert.ok((await client.vault.renewToken(first.token, 60_000, signal)).renewable);
    const { cert, key } = world.clientIdentity();
    await replace(client.folder, { "tls.crt": cert, "tls.key": key });
    assert.ok((await client.vault.renewToken(first.token, 60_000, signal)).renewable);
    const second = await client.vault.login(signal);
    assert.ok((await client.vault.renewToken(second.token, 60_000, signal)).renewable);
    // Vault binds a token to the certificate; the new one does not do for the old.
    await failureOf(client.vault.renewToken(first.token, 60_000, signal));
  });

  test("needs no role: Vault takes the one that the certificate fits", async () => {
    await using client = await clientOf("cert", { role: undefined });
    assert.notEqual((await client.vault.login(signal)).token, "");
  });

  test("is denied to another role", async () => {
    await using stranger = await clientOf("cert", { role: "nobody" });
    assert.equal((await failureOf(stranger.vault.login(signal))).code, "VAULT_DENIED");
  });

  test("says that the certificate has ended, by Vault's clock", async () => {
    await using client = await clientOf("cert");
    const { cert, key } = world.clientIdentity({ untilMs: -120_000 });
    await replace(client.folder, { "tls.crt": cert, "tls.key": key });
    assert.match((await failureOf(client.vault.login(signal))).message, /has ended 1\d\d s ago/);
  });

  test("does not go on with a key of another certificate, or none", async () => {
    await using client = await clientOf("cert");
    await replace(client.folder, { "tls.key": world.clientIdentity().key });
    assert.equal((await failureOf(client.vault.login(signal))).code, "CONFIG_INVALID");
    await replace(client.folder, { "tls.crt": "" });
    assert.equal((await failureOf(client.vault.login(signal))).code, "CONFIG_INVALID");
  });
});

describe("a file of a certificate", () => {
  test("that is a pipe or a device is not waited for", async () => {
    for (const name of ["tls.crt", "tls.key"]) {
      await using client = await clientOf("cert");
      const file = join(client.folder, name);
      await rm(file);
      execFileSync("mkfifo", [file]);
      assert.equal((await failureOf(client.vault.login(signal))).code, "CONFIG_INVALID");
      await rm(file);
      await symlink("/dev/zero", file);
      assert.equal((await failureOf(client.vault.login(signal))).code, "CONFIG_INVALID");
    }
  });
});

describe("a login by AppRole", () => {
  test("reads role_id and secret_id anew", async () => {
    await using client = await clientOf("approle");
    const { grant } = await client.vault.login(signal);
    assert.equal(grant?.durationMs, 3_600_000);
    await replace(client.folder, { secret_id: "canary-of-nobody" });
    const error = await failureOf(client.vault.login(signal));
    assert.equal(error.code, "VAULT_DENIED");
    assert.ok(!JSON.stringify([error.message, error.cause]).includes("canary"));
    await replace(client.folder, await world.approle());
    assert.notEqual((await client.vault.login(signal)).token, "");
  });

  test("unwraps a secret_id that came wrapped, once for all its logins", async () => {
    await using client = await clientOf("approle");
    const path = `auth/${world.names.approle}/role/web/secret-id`;
    await replace(client.folder, { secret_id: await world.wrapped(path) });
    assert.notEqual((await client.vault.login(signal)).token, "");
    assert.notEqual((await client.vault.login(signal)).token, "");
    const text = await world.wrapped(path);
    await replace(client.folder, { secret_id: text });
    assert.notEqual((await client.vault.login(signal)).token, "");
    // Another one, to which the token in the file has been used up already.
    await using late = await clientOf("approle");
    await replace(late.folder, { secret_id: text });
    const error = await failureOf(late.vault.login(signal));
    assert.equal(error.code, "SECRET_INVALID");
    assert.match(error.message, /was unwrapped before, or has ended.*somebody else may have it/);
  });

  test("does without a secret_id where the role does", async () => {
    const path = `auth/${world.names.approle}/role/open`;
    await world.configure("POST", path, {
      bind_secret_id: false,
      token_ttl: 60,
      token_bound_cidrs: "127.0.0.0/8",
    });
    const { body } = await world.configure("GET", `${path}/role-id`);
    await using folder = await temporaryFolder();
    await replace(folder.path, { role_id: `${String(body.data?.["role_id"])}\n` });
    await using client = await clientOf("approle", { files: folder.path });
    assert.notEqual((await client.vault.login(signal)).token, "");
  });

  test("says which file is missing", async () => {
    await using client = await clientOf("approle");
    await rename(join(client.folder, "role_id"), join(client.folder, "gone"));
    const error = await failureOf(client.vault.login(signal));
    assert.equal(error.code, "CONFIG_INVALID");
    assert.match(error.message, /role_id/);
  });
});

describe("a login by jwt", () => {
  test("says that the token has ended, by Vault's clock, when nobody has replaced it", async () => {
    await using client = await clientOf("jwt");
    assert.notEqual((await client.vault.login(signal)).token, "");
    const ended = await world.cluster.token(world.account, {
      audience: AUDIENCE,
      lifetimeSeconds: -600,
    });
    await replace(client.folder, { token: ended });
    const error = await failureOf(client.vault.login(signal));
    assert.equal(error.code, "VAULT_DENIED");
    assert.match(error.message, /has ended 6\d\d s ago/);
    assert.ok(!error.message.includes(ended));
    const again = await world.cluster.token(world.account, { audience: AUDIENCE });
    await replace(client.folder, { token: again });
    assert.notEqual((await client.vault.login(signal)).token, "");
  });
});

describe("the way to Vault", () => {
  test("leads through a proxy, whose credentials and Vault's nobody logs", async () => {
    const { hostname, port, protocol } = new URL(world.url);
    // In the clear there is no tunnel.
    assert.equal(protocol, "https:");
    const authorization = `Basic ${Buffer.from("site:canary-of-the-proxy").toString("base64")}`;
    await using proxy = await openForwardProxy({ authorization });
    const url = `http://site:canary-of-the-proxy@127.0.0.1:${proxy.port}`;
    const proxies = openProxies({ HTTPS_PROXY: url });
    await world.configure("POST", `${world.names.kv}/data/web/proxied`, {
      data: { password: "canary-of-the-secret" },
    });
    for (const auth of ["approle", "cert"] as const) {
      await using sidecar = await startSidecar(world, {
        auth,
        secrets: { db: { request: `${world.names.kv}/data/web/proxied`, format: "raw:password" } },
        http: { proxies },
      });
      await until(() => sidecar.agent.published(), "published");
      assert.equal(await sidecar.file("db"), "canary-of-the-secret");
      const log = sidecar.log.lines.join("\n");
      assert.doesNotMatch(log, /canary/);
      assert.ok(!log.includes(Buffer.from("site:canary-of-the-proxy").toString("base64")));
      assert.ok(!log.includes((await world.approle()).role_id));
    }
    assert.ok(proxy.asked.length >= 2);
    assert.ok(proxy.asked.every((asked) => asked === `CONNECT ${hostname}:${port}`));
    const wrong = openProxies({ HTTPS_PROXY: `http://x:canary@127.0.0.1:${proxy.port}` });
    await using client = await clientOf("approle", { proxies: wrong });
    const error = await failureOf(client.vault.login(signal));
    assert.equal(error.code, "ORIGIN_REFUSED");
    assert.ok(!JSON.stringify([error.message, String(error.cause)]).includes("canary"));
  });

  test("is to the name that is asked for, whatever the address, and to no other", async () => {
    const { port } = new URL(world.url);
    const ask = async (serverName: string): Promise<number> => {
      const http = openHttp(connections({ serverName }));
      try {
        const url = `https://127.0.0.1:${port}/v1/sys/health`;
        return (await http.request({ method: "GET", url }, signal)).status;
      } finally {
        http.close();
      }
    };
    assert.equal(await ask("localhost"), 200);
    assert.equal((await failureOf(ask("vault.example"))).code, "TLS_UNTRUSTED");
  });
});
