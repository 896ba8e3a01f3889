import assert from "node:assert/strict";
import { createServer as tcpServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { describe, test } from "node:test";
import { createServer as tlsServer } from "node:tls";
import type { TLSSocket } from "node:tls";
import { openHttp, readBody } from "../../sidecar/network/http.ts";
import type { Http, HttpOptions } from "../../sidecar/network/http.ts";
import { openProxies } from "../../sidecar/network/proxy.ts";
import { newKey } from "../support/chains.ts";
import { openForwardProxy } from "../support/forward-proxy.ts";
import { byteServer, httpServer } from "../support/server.ts";
import {
  ACCEPTED,
  EXPIRED,
  HOUR_MS,
  MINUTE_MS,
  REFUSED,
  authoritiesOf,
  chainOf,
  identityOf,
  selfSigned,
} from "./world.ts";
import type { Chain } from "./world.ts";

const forever = new AbortController().signal;

interface Used {
  readonly host: string;
  readonly offMs: number;
}

function client(
  chain: Chain,
  options: Partial<HttpOptions> = {},
  allowanceMs: number = HOUR_MS,
): Http & Disposable & { readonly used: readonly Used[] } {
  const used: Used[] = [];
  const http = openHttp({
    ca: authoritiesOf(chain),
    idleTimeoutMs: 5_000,
    unavailable: "VAULT_UNAVAILABLE",
    offClock: {
      allowanceMs,
      now: Date.now,
      used: (host, offMs) => used.push({ host, offMs }),
    },
    // Names that nobody resolves are asked for at the loopback interface.
    ...(chain.host.endsWith(".example") ? { serverName: chain.host } : {}),
    ...options,
  });
  return { ...http, used, [Symbol.dispose]: () => http.close() };
}

function addressOf({ host }: Chain, port: number): string {
  return `https://${host.endsWith(".example") ? "localhost" : host}:${port}/v1/auth/jwt/login`;
}

async function ask(http: Http, url: string, signal: AbortSignal = forever): Promise<string> {
  const headers = { "x-vault-token": "hvs.canary" };
  const body = Buffer.from("canary");
  const response = await http.request({ method: "POST", url, headers, body }, signal);
  return String(await readBody(response, 1_024, signal));
}

for (const kind of ["rsa", "ec"] as const) {
  describe(`a server whose ${kind} certificate is out of its time`, () => {
    for (const [what, shape] of Object.entries(ACCEPTED))
      test(`is spoken to when it ${what}`, async () => {
        const chain = chainOf(kind, shape);
        await using server = await httpServer((_, answer) => answer.end("ok"), identityOf(chain));
        using http = client(chain);
        assert.equal(await ask(http, addressOf(chain, server.port)), "ok");
        const [use] = http.used;
        assert.equal(use?.host, chain.host);
        assert.ok(Math.abs(Math.abs(use.offMs) - 30 * MINUTE_MS) < MINUTE_MS);
      });

    const refused = Object.entries(REFUSED).map(([what, s]) => [what, chainOf(kind, s)] as const);
    for (const [what, chain] of [...refused, ["is self-signed", selfSigned(kind)] as const])
      test(`gets nothing when it ${what}`, async () => {
        await using server = await counting(identityOf(chain));
        using http = client(chain);
        await assert.rejects(ask(http, addressOf(chain, server.port)), { code: "TLS_UNTRUSTED" });
        await server.quiet();
        assert.equal(server.received(), 0);
        assert.deepEqual(http.used, []);
      });
  });
}

async function counting(identity: { readonly cert: string; readonly key: string }) {
  let received = 0;
  const server = await byteServer((socket) => {
    socket.on("data", (chunk) => {
      received += Buffer.byteLength(chunk);
    });
  }, identity);
  return { ...server, received: () => received };
}

/** A server that deals with each connection in turn by the next of `turns`; with the last one from then on. */
async function inTurns(
  ...turns: readonly (Chain | ((socket: Socket) => void))[]
): Promise<{ readonly port: number; received(): number; count(): number } & AsyncDisposable> {
  let received = 0;
  let count = 0;
  const sockets = new Set<Socket>();
  const answer = (socket: TLSSocket): void => {
    socket.on("error", () => undefined);
    socket.on("data", (chunk: Buffer) => {
      received += chunk.byteLength;
      socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
  };
  const servers = turns.map((turn) =>
    typeof turn === "function"
      ? turn
      : tlsServer(identityOf(turn), answer).on("tlsClientError", () => undefined),
  );
  const server = tcpServer((socket) => {
    sockets.add(socket.on("error", () => undefined));
    const turn = servers[Math.min(count, servers.length - 1)];
    count += 1;
    if (typeof turn === "function") turn(socket);
    else turn?.emit("connection", socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    received: () => received,
    count: () => count,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

describe("a clock that may be off", () => {
  const off = chainOf("ec", { leaf: EXPIRED });
  const good = chainOf("ec", {});

  test("is not, with an allowance of nothing", async () => {
    await using server = await counting(identityOf(off));
    using http = client(off, {}, 0);
    await assert.rejects(ask(http, addressOf(off, server.port)), { code: "TLS_UNTRUSTED" });
    assert.equal(server.connections(), 1);
    await server.quiet();
    assert.equal(server.received(), 0);
  });

  test("is not asked about when Node says that something else is wrong", async () => {
    for (const shape of [{ stranger: true }, { leaf: { names: ["x.example"] } }] as const) {
      const chain = chainOf("ec", shape);
      await using server = await counting(identityOf(chain));
      using http = client(chain);
      await assert.rejects(ask(http, addressOf(chain, server.port)), { code: "TLS_UNTRUSTED" });
      assert.equal(server.connections(), 1);
    }
  });

  test("costs one more connection, and none as long as that is kept", async () => {
    await using server = await inTurns(off);
    using http = client(off);
    for (let turn = 0; turn < 3; turn++)
      assert.equal(await ask(http, addressOf(off, server.port)), "ok");
    assert.equal(server.count(), 2);
    assert.equal(http.used.length, 1);
  });

  test("is forgotten when the certificate is good again", async () => {
    await using server = await inTurns(off, good);
    using http = client(off, { ca: authoritiesOf(off) + authoritiesOf(good) });
    assert.equal(await ask(http, addressOf(off, server.port)), "ok");
    assert.deepEqual(http.used, []);
  });

  for (const [what, second] of [
    [
      "is of an authority that is not known",
      chainOf("ec", { leaf: EXPIRED, root: { key: newKey("ec") } }),
    ],
    ["is of another host", chainOf("ec", { leaf: { ...EXPIRED, names: ["x.example"] } })],
    ["is good, but of another host", chainOf("ec", { leaf: { names: ["x.example"] } })],
  ] as const)
    test(`judges the very connection that is used: the second certificate ${what}`, async () => {
      await using server = await inTurns(off, second);
      using http = client(off);
      await assert.rejects(ask(http, addressOf(off, server.port)), { code: "TLS_UNTRUSTED" });
      assert.equal(server.count(), 2);
      assert.equal(server.received(), 0);
    });

  test("judges each connection anew", async () => {
    const stranger = chainOf("ec", { leaf: EXPIRED, root: { key: newKey("ec") } });
    await using server = await inTurns(off, off, stranger);
    using http = client(off);
    const url = addressOf(off, server.port);
    assert.equal(await ask(http, url), "ok");
    const received = server.received();
    // The kept connection is busy with the first of the two.
    const asked = await Promise.allSettled([ask(http, url), ask(http, url)]);
    const failed = asked.filter(({ status }) => status === "rejected");
    assert.equal(failed.length, 1);
    assert.ok(server.received() > received);
  });

  test("is given up when the second handshake stalls, or the request is aborted", async () => {
    const abort = new AbortController();
    const reason = new Error("the pod is going");
    await using stalling = await inTurns(off, () => undefined);
    using http = client(off, { idleTimeoutMs: 200 });
    const url = addressOf(off, stalling.port);
    await assert.rejects(ask(http, url), { code: "VAULT_UNAVAILABLE" });
    await using waiting = await inTurns(off, () => abort.abort(reason));
    using patient = client(off, { idleTimeoutMs: 600_000 });
    await assert.rejects(ask(patient, addressOf(off, waiting.port), abort.signal), reason);
  });

  test("is given up when the connection is reset in the second handshake", async () => {
    await using server = await inTurns(off, (socket) => {
      socket.once("data", () => socket.resetAndDestroy());
    });
    using http = client(off);
    await assert.rejects(ask(http, addressOf(off, server.port)), { code: "VAULT_UNAVAILABLE" });
  });

  test("is allowed for behind a proxy as well, and nothing else is", async () => {
    for (const [shape, code] of [
      [{ leaf: EXPIRED }, undefined],
      [{ leaf: EXPIRED, stranger: true }, "TLS_UNTRUSTED"],
      [{ leaf: { ...EXPIRED, names: ["x.example"] } }, "TLS_UNTRUSTED"],
    ] as const) {
      const chain = chainOf("ec", shape);
      await using server = await inTurns(chain);
      await using proxy = await openForwardProxy({ hosts: { localhost: server.port } });
      const env = { HTTPS_PROXY: `http://127.0.0.1:${proxy.port}` };
      using http = client(chain, { proxies: openProxies(env) });
      const asked = ask(http, "https://localhost/v1/x");
      if (code === undefined) assert.equal(await asked, "ok");
      else await assert.rejects(asked, { code });
      assert.equal(server.received() > 0, code === undefined);
      assert.equal(proxy.asked.length, 2);
    }
  });

  test("does not leave the end of a client waiting", async () => {
    let met = (): void => undefined;
    const second = new Promise<void>((resolve) => {
      met = resolve;
    });
    await using server = await inTurns(off, () => met());
    const http = client(off);
    const asked = ask(http, addressOf(off, server.port));
    await second;
    http.close();
    await assert.rejects(asked, { code: "VAULT_UNAVAILABLE" });
  });
});
