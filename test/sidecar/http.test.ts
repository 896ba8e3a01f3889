import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { inspect } from "node:util";
import { authority } from "../support/certificates.ts";
import { byteServer, closedPort, httpServer } from "../support/server.ts";
import { openHttp, readBody } from "../../sidecar/network/http.ts";
import type { Http, HttpOptions, HttpRequest } from "../../sidecar/network/http.ts";

const DAY_MS = 86_400_000;
const forever = new AbortController().signal;
const trusted = authority();
const localhost = trusted.issue(["localhost"]);

function client(options: Partial<HttpOptions> = {}): Http & Disposable {
  const http = openHttp({
    ca: trusted.cert,
    idleTimeoutMs: 5_000,
    unavailable: "ORIGIN_UNAVAILABLE",
    ...options,
  });
  return { ...http, [Symbol.dispose]: () => http.close() };
}

function get(url: string): HttpRequest {
  return { method: "GET", url };
}

async function text(http: Http, request: HttpRequest, signal = forever): Promise<string> {
  return String(await readBody(await http.request(request, signal), 1 << 20, signal));
}

describe("a request", () => {
  test("carries method, headers and body over TLS, and brings back status, headers and body", async () => {
    await using server = await httpServer((request, response) => {
      response.writeHead(207, { "x-method": request.method });
      request.pipe(response);
    }, localhost);
    using http = client();
    const response = await http.request(
      { method: "PUT", url: `${server.url}/v1/x`, body: Buffer.from("hello") },
      forever,
    );
    assert.equal(response.status, 207);
    assert.equal(response.headers["x-method"], "PUT");
    assert.equal(String(await readBody(response, 5, forever)), "hello");
  });

  test("uses one connection again for the next", async () => {
    await using server = await httpServer((_, response) => response.end("ok"), localhost);
    using http = client();
    for (let turn = 0; turn < 3; turn++) assert.equal(await text(http, get(server.url)), "ok");
    assert.equal(server.connections(), 1);
  });

  test("opens no more than four connections and waits for a free one", async () => {
    await using server = await httpServer((_, response) => response.end("ok"), localhost);
    using http = client();
    await Promise.all(Array.from({ length: 20 }, () => text(http, get(server.url))));
    assert.ok(server.connections() <= 4, `${server.connections()} connections`);
  });

  test("fails when the answer changes the protocol", async () => {
    await using server = await byteServer((socket) => {
      socket.once("data", () =>
        socket.write("HTTP/1.1 101 No\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
      );
    });
    using http = client();
    await assert.rejects(http.request(get(server.url), forever), { code: "ORIGIN_UNAVAILABLE" });
  });

  test("does not follow a redirect", async () => {
    await using server = await httpServer((_, response) => {
      response.writeHead(302, { location: "https://elsewhere.invalid/" }).end();
    }, localhost);
    using http = client();
    assert.equal((await http.request(get(server.url), forever)).status, 302);
  });

  test("goes on when the other side has closed the kept connection meanwhile", async () => {
    let served = 0;
    await using server = await byteServer((socket) => {
      socket.once("data", () => {
        served++;
        // Announces a connection that is kept, and resets it at the next request.
        socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        socket.once("data", () => socket.resetAndDestroy());
      });
    });
    using http = client();
    assert.equal(await text(http, get(server.url)), "ok");
    assert.equal(await text(http, get(server.url)), "ok");
    assert.equal(served, 2);
  });

  test("is not sent twice when that could do a thing twice", async () => {
    await using server = await byteServer((socket) => {
      socket.once("data", () => {
        socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        socket.once("data", () => socket.resetAndDestroy());
      });
    });
    using http = client();
    const login: HttpRequest = { method: "POST", url: server.url, body: Buffer.from("{}") };
    assert.equal(await text(http, login), "ok");
    await assert.rejects(text(http, login), { code: "ORIGIN_UNAVAILABLE" });
  });
});

describe("a server whose certificate is not good", () => {
  const cases = {
    "is of another authority": authority("another CA").issue(["localhost"]),
    "names another host": trusted.issue(["repository.example"]),
    "has expired": trusted.issue(["localhost"], { fromMs: -2 * DAY_MS, validMs: DAY_MS }),
    "is not valid yet": trusted.issue(["localhost"], { fromMs: DAY_MS }),
    "is an authority's own": trusted,
  };
  for (const [problem, identity] of Object.entries(cases)) {
    test(`gets nothing of the request when it ${problem}`, async () => {
      let received = 0;
      await using server = await byteServer((socket) => {
        socket.on("data", (chunk) => {
          received += Buffer.byteLength(chunk);
        });
      }, identity);
      using http = client({ unavailable: "VAULT_UNAVAILABLE" });
      await assert.rejects(
        http.request(
          {
            method: "POST",
            url: `${server.url}/v1/auth/kubernetes/login`,
            headers: { "x-vault-token": "hvs.secret" },
            body: Buffer.from("a token"),
          },
          forever,
        ),
        { code: "TLS_UNTRUSTED" },
      );
      await server.quiet();
      assert.equal(received, 0);
    });
  }

  test("is refused without a CA of our own, by the public ones", async () => {
    await using server = await httpServer((_, response) => response.end("ok"), localhost);
    const http = openHttp({ idleTimeoutMs: 5_000, unavailable: "ORIGIN_UNAVAILABLE" });
    await assert.rejects(http.request(get(server.url), forever), { code: "TLS_UNTRUSTED" });
  });
});

describe("a CA bundle", () => {
  test("without a certificate, or with one that cannot be read, is refused at once", () => {
    for (const ca of [
      "",
      "not a bundle",
      "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ])
      assert.throws(() => openHttp({ ca, idleTimeoutMs: 1, unavailable: "ORIGIN_UNAVAILABLE" }), {
        code: "CONFIG_INVALID",
      });
  });

  test("may hold several authorities", async () => {
    await using server = await httpServer((_, response) => response.end("ok"), localhost);
    using http = client({ ca: `${authority("an old CA").cert}\n${trusted.cert}` });
    assert.equal(await text(http, get(server.url)), "ok");
  });
});

describe("a link that fails", () => {
  const stalls: Readonly<Record<string, string>> = {
    "before the headers": "",
    "in the headers": "HTTP/1.1 200 OK\r\nContent-Le",
    "in the body": "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
  };
  for (const [where, bytes] of Object.entries(stalls)) {
    test(`is given up when it stalls ${where}`, async () => {
      await using server = await byteServer((socket) => {
        socket.once("data", () => socket.write(bytes));
      }, localhost);
      using http = client({ idleTimeoutMs: 150 });
      await assert.rejects(text(http, get(server.url)), (error: Error & { code?: string }) => {
        assert.equal(error.code, "ORIGIN_UNAVAILABLE");
        assert.match(error.message, /no bytes for 150 ms/);
        return true;
      });
    });
  }

  test("is given up when the TLS handshake stalls", async () => {
    await using server = await byteServer(() => undefined);
    using http = client({ idleTimeoutMs: 150 });
    await assert.rejects(http.request(get(`https://localhost:${server.port}/`), forever), {
      code: "ORIGIN_UNAVAILABLE",
    });
  });

  test("is waited for as long as bytes come, however slowly", async () => {
    await using server = await byteServer((socket) => {
      socket.once("data", () => {
        const bytes = "slow!".split("");
        socket.write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
        const timer = setInterval(() => {
          const next = bytes.shift();
          if (next === undefined) clearInterval(timer);
          else socket.write(next);
        }, 220);
        socket.once("close", () => clearInterval(timer));
      });
    });
    // The whole takes 1100 ms.
    using http = client({ idleTimeoutMs: 900 });
    assert.equal(await text(http, get(server.url)), "slow!");
  });

  test("is not given up while the reader is busy with what it has", async () => {
    const part = Buffer.alloc(64 * 1024, 1);
    await using server = await httpServer((_, response) => {
      for (let turn = 0; turn < 40; turn++) response.write(part);
      response.end();
    });
    using http = client({ idleTimeoutMs: 600 });
    const response = await http.request(get(server.url), forever);
    let size = 0;
    for await (const chunk of response.body) {
      // Longer than the time-out, once.
      if (size === 0) await new Promise((resolve) => setTimeout(resolve, 900));
      size += chunk.byteLength;
    }
    assert.equal(size, 40 * part.byteLength);
  });

  test("says so when it breaks in the body, with the cause", async () => {
    await using server = await byteServer((socket) => {
      socket.once("data", () => {
        socket.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", () =>
          socket.resetAndDestroy(),
        );
      });
    });
    using http = client();
    await assert.rejects(text(http, get(server.url)), (error: Error & { code?: string }) => {
      assert.equal(error.code, "ORIGIN_UNAVAILABLE");
      assert.ok(error.cause instanceof Error);
      return true;
    });
  });

  test("says so when the body is shorter than announced", async () => {
    await using server = await byteServer((socket) => {
      socket.once("data", () => socket.end("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"));
    });
    using http = client();
    await assert.rejects(text(http, get(server.url)), { code: "ORIGIN_UNAVAILABLE" });
  });

  test("says so when nobody listens, or the answer is not HTTP", async () => {
    await using server = await byteServer((socket) => {
      socket.once("data", () => socket.end("SSH-2.0-OpenSSH\r\n"));
    });
    using http = client();
    for (const url of [`http://127.0.0.1:${await closedPort()}/`, server.url])
      await assert.rejects(http.request(get(url), forever), { code: "ORIGIN_UNAVAILABLE" });
  });

  for (const [where, answer] of [
    ["headers", "HTTP/1.1 200 OK\r\nContent-Length: of-hvs.CANARY\r\n\r\n"],
    ["body", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nhvs.CANARY\r\n"],
  ] as const)
    test(`is not shown by the error when its ${where} cannot be read`, async () => {
      await using server = await byteServer((socket) => {
        socket.once("data", () => socket.write(answer));
      });
      using http = client();
      await assert.rejects(text(http, get(server.url)), (error: Error) => {
        assert.ok(error.cause instanceof Error);
        assert.doesNotMatch(
          inspect(error, { depth: null, showHidden: true }),
          /CANARY|43 41 4e 41/,
        );
        return true;
      });
    });

  test("says so when the name cannot be resolved", async () => {
    using http = client({ unavailable: "VAULT_UNAVAILABLE" });
    await assert.rejects(http.request(get("https://vault.invalid/"), forever), {
      code: "VAULT_UNAVAILABLE",
    });
  });
});

describe("a body", () => {
  test("that never ends is cut off at the limit, and the connection with it", async () => {
    let closed = (): void => undefined;
    const gone = new Promise<void>((resolve) => {
      closed = resolve;
    });
    await using server = await httpServer((_, response) => {
      const more = (): boolean => response.write(Buffer.alloc(64 * 1024));
      response.on("drain", more).on("close", closed);
      more();
    });
    using http = client();
    const response = await http.request(get(server.url), forever);
    await assert.rejects(readBody(response, 100_000, forever), { code: "RESPONSE_TOO_LARGE" });
    await gone;
  });

  test("is exactly as long as the limit, or refused", async () => {
    await using server = await httpServer((_, response) => response.end("12345"));
    using http = client();
    const read = async (limit: number): Promise<number> =>
      (await readBody(await http.request(get(server.url), forever), limit, forever)).byteLength;
    assert.equal(await read(5), 5);
    await assert.rejects(read(4), { code: "RESPONSE_TOO_LARGE" });
  });

  test("closes its connection when the reader stops early", async () => {
    let closed = (): void => undefined;
    const gone = new Promise<void>((resolve) => {
      closed = resolve;
    });
    await using server = await httpServer((_, response) => {
      response.on("close", closed).write(Buffer.alloc(1024));
    });
    using http = client();
    for await (const chunk of (await http.request(get(server.url), forever)).body) {
      assert.equal(chunk.byteLength, 1024);
      break;
    }
    await gone;
  });

  test("that nobody reads holds its connection no longer than the idle time-out", async () => {
    let closed = (): void => undefined;
    const gone = new Promise<void>((resolve) => {
      closed = resolve;
    });
    await using server = await httpServer((_, response) => {
      response.on("close", closed).write(Buffer.alloc(1024));
    });
    using http = client({ idleTimeoutMs: 100 });
    await http.request(get(server.url), forever);
    await gone;
  });
});

describe("an abort", () => {
  const reason = new Error("the pod is going");

  test("comes through unchanged before the headers", async () => {
    const abort = new AbortController();
    await using server = await byteServer((socket) => {
      socket.once("data", () => abort.abort(reason));
    });
    using http = client();
    await assert.rejects(http.request(get(server.url), abort.signal), reason);
  });

  test("comes through unchanged in the body", async () => {
    const abort = new AbortController();
    await using server = await httpServer((_, response) => {
      response.writeHead(200, { "content-length": 10 });
      response.write("abc");
    });
    using http = client();
    const response = await http.request(get(server.url), abort.signal);
    abort.abort(reason);
    await assert.rejects(readBody(response, 10, abort.signal), reason);
  });

  test("comes through unchanged when it was there first, and nothing is sent", async () => {
    await using server = await httpServer((_, response) => response.end());
    using http = client();
    await assert.rejects(http.request(get(server.url), AbortSignal.abort(reason)), reason);
    assert.equal(server.connections(), 0);
  });
});
