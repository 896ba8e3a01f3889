import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import type { IncomingMessage, ServerResponse } from "node:http";
import { join } from "node:path";
import { writeFile } from "node:fs/promises";
import { describe, test } from "node:test";
import { EdgeSyncError } from "#core/errors.ts";
import { fieldsOf } from "#core/secret-file.ts";
import type { VaultRequest } from "#core/secret-request.ts";
import { openHttp } from "../../sidecar/network/http.ts";
import { answeredOf, openVault } from "../../sidecar/secrets/vault.ts";
import type { Vault, VaultOptions } from "../../sidecar/secrets/vault.ts";
import { httpServer } from "../support/server.ts";
import { temporaryFolder } from "../support/temporary.ts";

const CANARY = "canary-4711";
const signal = AbortSignal.timeout(60_000);

interface Seen {
  readonly request: string;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
}

/** A server that answers one thing to everything, and a client of it. */
async function clientOf(
  answer: (response: ServerResponse) => void,
  options: Partial<VaultOptions> = {},
): Promise<{ vault: Vault; seen: Seen[]; tokenFile: string } & AsyncDisposable> {
  await using stack = new AsyncDisposableStack();
  const folder = stack.use(await temporaryFolder());
  const tokenFile = join(folder.path, "token");
  await writeFile(tokenFile, `jwt-${CANARY}\n`);
  const seen: Seen[] = [];
  const server = stack.use(
    await httpServer((request, response) => {
      let body = "";
      request.on("data", (chunk: Buffer) => {
        body += chunk.toString();
      });
      request.on("end", () => {
        seen.push({ request: `${request.method} ${request.url}`, headers: request.headers, body });
        answer(response);
      });
    }),
  );
  const http = openHttp({ idleTimeoutMs: 5_000, unavailable: "VAULT_UNAVAILABLE" });
  stack.defer(() => http.close());
  const vault = openVault(http, {
    address: server.url,
    namespace: undefined,
    login: { kind: "kubernetes", mount: "kubernetes", role: "web", file: tokenFile },
    ...options,
  });
  const owned = stack.move();
  return { vault, seen, tokenFile, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

function json(status: number, body: object, headers: Record<string, string> = {}) {
  return (response: ServerResponse): void => {
    response.writeHead(status, { "content-type": "application/json", ...headers });
    response.end(JSON.stringify(body));
  };
}

const db: VaultRequest = { kind: "vault", path: "secret/data/db", parameters: {} };

async function failureOf(work: Promise<unknown>): Promise<EdgeSyncError> {
  const error: unknown = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof EdgeSyncError);
  return error;
}

describe("a request to Vault", () => {
  test("says that it is one, and in which namespace", async () => {
    await using client = await clientOf(json(200, { data: { a: "b" } }), { namespace: "team-a" });
    await client.vault.read("hvs.token", db, signal);
    const [seen] = client.seen;
    assert.equal(seen?.request, "GET /v1/secret/data/db");
    assert.equal(seen?.headers["x-vault-request"], "true");
    assert.equal(seen?.headers["x-vault-namespace"], "team-a");
    assert.equal(seen?.headers["x-vault-token"], "hvs.token");
  });

  test("writes the parameters of a path that has some", async () => {
    await using client = await clientOf(json(200, { data: { a: "b" } }));
    const parameters = { common_name: "web.example" };
    const request: VaultRequest = { kind: "vault", path: "pki/issue/web", parameters };
    await client.vault.read("hvs.token", request, signal);
    assert.equal(client.seen[0]?.request, "POST /v1/pki/issue/web");
    assert.deepEqual(JSON.parse(client.seen[0]?.body ?? ""), { common_name: "web.example" });
  });
});

describe("a login", () => {
  test("reads the token file anew each time, because the kubelet replaces it", async () => {
    const auth = { client_token: "hvs.x", accessor: "a", lease_duration: 60, renewable: true };
    await using client = await clientOf(json(200, { auth }));
    const { token, grant } = await client.vault.login(signal);
    assert.equal(token, "hvs.x");
    assert.deepEqual(grant, { durationMs: 60_000, renewable: true });
    await writeFile(client.tokenFile, "second");
    await client.vault.login(signal);
    const sent = client.seen.map(({ body }) => JSON.parse(body) as { jwt: string; role: string });
    assert.deepEqual(
      sent.map(({ jwt }) => jwt),
      [`jwt-${CANARY}`, "second"],
    );
    assert.equal(client.seen[0]?.headers["x-vault-token"], undefined);
  });

  test("that cannot read its token says which file", async () => {
    await using client = await clientOf(json(200, {}), {
      login: { kind: "jwt", mount: "jwt", role: "web", file: "/nonexistent/token" },
    });
    const error = await failureOf(client.vault.login(signal));
    assert.equal(error.code, "CONFIG_INVALID");
    assert.match(error.message, /\/nonexistent\/token/);
  });

  test("does not wait for a file that is a pipe, nor read a device, nor send what is empty", async () => {
    await using folder = await temporaryFolder();
    const [pipe, empty] = [join(folder.path, "pipe"), join(folder.path, "empty")];
    execFileSync("mkfifo", [pipe]);
    await writeFile(empty, "\ufeff \n");
    for (const [file, why] of [
      [pipe, /pipe, for the login, cannot be read/],
      ["/dev/zero", /cannot be read/],
      [folder.path, /cannot be read/],
      [empty, /is empty/],
    ] as const) {
      const login = { kind: "jwt", mount: "jwt", role: "web", file } as const;
      await using client = await clientOf(json(200, {}), { login });
      const error = await failureOf(client.vault.login(signal));
      assert.equal(error.code, "CONFIG_INVALID");
      assert.match(error.message, why);
      assert.deepEqual(client.seen, []);
    }
  });

  test("that Vault refuses is a denial, also where Vault calls it a bad request", async () => {
    for (const status of [400, 403]) {
      await using client = await clientOf(json(status, { errors: [CANARY] }));
      const error = await failureOf(client.vault.login(signal));
      assert.equal(error.code, "VAULT_DENIED");
      assert.ok(!JSON.stringify([error.message, error.cause]).includes(CANARY));
    }
  });
});

describe("an answer to a login", () => {
  test("that lacks something says what, and nothing of what is there", async () => {
    const auth = { client_token: CANARY, accessor: "a", lease_duration: 60, renewable: true };
    for (const [fields, field] of [
      [{ accessor: undefined }, "auth.accessor"],
      [{ lease_duration: -1 }, "auth.lease_duration"],
      [{ client_token: 7 }, "auth.client_token"],
    ] as const) {
      await using client = await clientOf(json(200, { auth: { ...auth, ...fields } }));
      const error = await failureOf(client.vault.login(signal));
      assert.equal(error.code, "VAULT_UNAVAILABLE");
      assert.match(error.message, new RegExp(`: ${field} is missing or of another form`));
      assert.ok(!String(error.stack).includes(CANARY));
    }
  });
});

describe("an answer of Vault", () => {
  for (const [status, code] of [
    [307, "VAULT_UNAVAILABLE"],
    [400, "SECRET_INVALID"],
    [403, "VAULT_DENIED"],
    [404, "SECRET_INVALID"],
    [405, "SECRET_INVALID"],
    [412, "VAULT_UNAVAILABLE"],
    [429, "VAULT_UNAVAILABLE"],
    [472, "VAULT_UNAVAILABLE"],
    [473, "VAULT_UNAVAILABLE"],
    [500, "VAULT_UNAVAILABLE"],
    [502, "VAULT_UNAVAILABLE"],
    [503, "VAULT_UNAVAILABLE"],
  ] as const)
    test(`of ${status} is ${code}, and nothing of its body is told`, async () => {
      const answer = json(status, { errors: [CANARY] }, { "retry-after": "7" });
      await using client = await clientOf(answer);
      const error = await failureOf(client.vault.read("hvs.token", db, signal));
      assert.equal(error.code, code);
      assert.deepEqual(answeredOf(error), { status, retryAfterMs: 7_000 });
      assert.ok(!`${error.stack}${JSON.stringify(error.cause)}`.includes(CANARY));
    });

  for (const [what, body, expected] of [
    ["not JSON", `<html>${CANARY}</html>`, "expected JSON"],
    ["half of one", `{"data":{"password":"${CANARY}`, "expected JSON"],
    ["of another form", `{"data":["${CANARY}"]}`, "data is missing"],
    ["of another lease", `{"lease_id":"l","lease_duration":-7}`, "lease_duration is missing"],
    ["a list", `["${CANARY}"]`, "expected an object"],
  ] as const)
    test(`that is ${what} is taken for a fault on the way, and not quoted`, async () => {
      await using client = await clientOf((response) => response.end(body));
      const error = await failureOf(client.vault.read("hvs.token", db, signal));
      assert.equal(error.code, "VAULT_UNAVAILABLE");
      assert.equal(error.cause, undefined);
      assert.ok(error.message.includes(`: the answer is not one of Vault's: ${expected}`));
      assert.ok(!String(error.stack).includes(CANARY));
    });

  test("that leads to another address is not followed, and the message says what to do", async () => {
    const elsewhere = { location: "http://127.0.0.1:1/v1/db/creds/web" };
    await using client = await clientOf(json(307, {}, elsewhere));
    const error = await failureOf(client.vault.read("hvs.token", db, signal));
    assert.match(error.message, /answers 307, a redirect, .* vault-address must be that of/);
    assert.equal(client.seen.length, 1);
  });

  test("of more than a mebibyte is not read on", async () => {
    await using client = await clientOf((response) => response.end(Buffer.alloc(1_200_000, " ")));
    const error = await failureOf(client.vault.read("hvs.token", db, signal));
    assert.equal(error.code, "RESPONSE_TOO_LARGE");
  });

  test("that does not come is given up after the time-out", async () => {
    await using client = await clientOf(() => undefined, { timeoutMs: 100 });
    const error = await failureOf(client.vault.read("hvs.token", db, signal));
    assert.equal(error.code, "VAULT_UNAVAILABLE");
  });

  test("is not waited for when the caller gives up: its own reason comes back", async () => {
    await using client = await clientOf(() => undefined);
    const stop = new AbortController();
    const reading = client.vault.read("hvs.token", db, stop.signal);
    stop.abort(new Error("the end"));
    await assert.rejects(reading, /the end/);
  });

  test("that was wrapped is taken out where it was wrapped for the path, in a namespace too", async () => {
    const path = "secret/data/shop";
    const request: VaultRequest = {
      kind: "vault",
      path,
      version: 3,
      parameters: {},
      wrapMs: 60_000,
    };
    for (const [from, isOwn] of [
      [path, true],
      [`team-a/${path}`, true],
      [`${path}/other`, false],
      [`x${path}`, false],
      ["secret/data/other", false],
      ["sys/wrapping/wrap", false],
    ] as const) {
      const info = { token: "hvs.wrapping", creation_path: from };
      const answers = [json(200, { wrap_info: info }), json(200, { data: { user: "u" } })];
      await using client = await clientOf((response) => answers.shift()?.(response));
      const reading = client.vault.read("hvs.token", request, signal);
      if (isOwn) assert.deepEqual((await reading).data, { user: "u" }, from);
      else assert.equal((await failureOf(reading)).code, "SECRET_INVALID", from);
      // What somebody else has wrapped is not even looked at.
      assert.equal(client.seen.length, isOwn ? 2 : 1, from);
      assert.equal(client.seen[0]?.headers["x-vault-wrap-ttl"], "60s");
    }
  });

  test("without data is a secret that does not exist", async () => {
    for (const answer of [
      json(200, { data: null }),
      (r: ServerResponse) => r.writeHead(204).end(),
    ]) {
      await using client = await clientOf(answer);
      const error = await failureOf(client.vault.read("hvs.token", db, signal));
      assert.equal(error.code, "SECRET_INVALID");
    }
  });
});

describe("the data of a secret", () => {
  const metadata = { version: 3, created_time: "2026-01-01T00:00:00Z", destroyed: false };
  const read = async (body: object, headers?: Record<string, string>) => {
    await using client = await clientOf(json(200, body, headers));
    return await client.vault.read("hvs.token", db, signal);
  };

  test("is taken out of what KV version 2 wraps around it", async () => {
    const secret = await read({ data: { data: { user: "u" }, metadata } });
    assert.deepEqual(fieldsOf(secret.data), { user: "u" });
    assert.equal(secret.grant, undefined);
  });

  test("that only looks like that is left as it is", async () => {
    for (const data of [
      { data: { a: "b" }, metadata: { author: "x" } },
      { data: { a: "b" }, metadata, more: "c" },
    ])
      assert.deepEqual(fieldsOf((await read({ data })).data), data);
  });

  test("comes with its lease", async () => {
    const secret = await read({ lease_id: "x/1", lease_duration: 30, renewable: true, data: {} });
    assert.equal(secret.leaseId, "x/1");
    assert.deepEqual(secret.grant, { durationMs: 30_000, renewable: true });
  });

  test("of a certificate is good until it expires, by Vault's clock and not by this node's", async () => {
    const date = "Sun, 01 Mar 2037 00:00:00 GMT";
    const expiration = Date.parse(date) / 1_000 + 3_600;
    const secret = await read({ data: { certificate: "pem", expiration } }, { date });
    assert.deepEqual(secret.grant, { durationMs: 3_600_000, renewable: false });
  });

  test("of a certificate without an end (RFC 5280, 4.1.2.5) is not asked for anew all the time", async () => {
    const date = "Sun, 01 Mar 2037 00:00:00 GMT";
    const endMs = Date.parse("9999-12-31T23:59:59Z");
    const secret = await read(
      { data: { certificate: "pem", expiration: endMs / 1_000 } },
      { date },
    );
    assert.equal(secret.grant?.durationMs, endMs - Date.parse(date));
  });

  test("of a static role is read again once it was rotated", async () => {
    const secret = await read({ data: { password: "p", ttl: 40, rotation_period: 3_600 } });
    assert.equal(secret.grant, undefined);
    assert.equal(secret.readAgainMs, 41_000);
  });

  test("of a static role that is being rotated is read again soon, and is no error", async () => {
    const secret = await read({ data: { password: "p", ttl: 0, rotation_period: 3_600 } });
    assert.equal(secret.readAgainMs, 5_000);
  });

  test("of a secret_id ends when that does", async () => {
    const data = { secret_id: "s", secret_id_accessor: "a", secret_id_ttl: 600 };
    assert.deepEqual((await read({ data })).grant, { durationMs: 600_000, renewable: false });
    const endless = await read({ data: { ...data, secret_id_ttl: 0 } });
    assert.equal(endless.grant, undefined);
    assert.equal(endless.readAgainMs, Infinity);
  });
});
