import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { authority } from "../support/certificates.ts";
import { openForwardProxy } from "../support/forward-proxy.ts";
import { byteServer, closedPort, httpServer } from "../support/server.ts";
import { openHttp, readBody } from "../../sidecar/network/http.ts";
import type { Http, HttpOptions } from "../../sidecar/network/http.ts";
import { basic, openProxies } from "../../sidecar/network/proxy.ts";

const never = new AbortController().signal;
const ca = authority();
const behind = ca.issue(["repository.test"]);
const localhost = ca.issue(["localhost"]);

function through(
  env: Readonly<Record<string, string>>,
  options: Partial<HttpOptions> = {},
): Http & Disposable {
  const http = openHttp({
    ca: ca.cert,
    idleTimeoutMs: 2_000,
    unavailable: "ORIGIN_UNAVAILABLE",
    proxies: openProxies(env),
    ...options,
  });
  return { ...http, [Symbol.dispose]: () => http.close() };
}

async function textOf(http: Http, url: string, headers = {}): Promise<string> {
  const response = await http.request({ method: "GET", url, headers }, never);
  return String(await readBody(response, 1 << 20, never));
}

const isReached = (noProxy: string, url: string): boolean =>
  openProxies({ HTTPS_PROXY: "http://p:1", HTTP_PROXY: "http://p:1", NO_PROXY: noProxy }).of(
    new URL(url),
  ) === undefined;

describe("NO_PROXY", () => {
  const direct: readonly (readonly [string, string])[] = [
    ["*", "https://any.example"],
    ["a.example", "https://a.example/x"],
    ["A.Example", "https://a.example"],
    ["a.example", "https://b.a.example"],
    ["a.example.", "https://a.example"],
    [".a.example", "https://b.a.example"],
    ["*.a.example", "https://b.a.example"],
    ["a.example:8443", "https://a.example:8443"],
    ["a.example:443", "https://a.example"],
    ["a.example:80", "http://a.example"],
    ["10.1.2.3", "https://10.1.2.3"],
    ["10.1.2.3:8443", "https://10.1.2.3:8443"],
    ["10.0.0.0/8", "https://10.200.0.1"],
    ["10.0.0.0/8:443", "https://10.200.0.1"],
    ["fd00::1", "https://[fd00:0::1]"],
    ["[fd00::1]:8443", "https://[fd00::1]:8443"],
    ["fd00::/8", "https://[fdff::1]"],
    ["[fd00::]/8:443", "https://[fdff::1]"],
    ["x.example, y.example z.example,,", "https://z.example"],
    ["localhost,127.0.0.0/8", "https://127.1.2.3:1"],
  ];
  for (const [list, url] of direct)
    test(`${list} lets ${url} go past the proxy`, () => assert.ok(isReached(list, url)));

  const proxied: readonly (readonly [string, string])[] = [
    ["", "https://a.example"],
    ["a.example", "https://xa.example"],
    ["a.example", "https://a.example.org"],
    [".a.example", "https://a.example"],
    ["a.example:8443", "https://a.example"],
    ["10.1.2.3", "https://10.1.2.30"],
    ["10.0.0.0/8", "https://11.0.0.1"],
    ["10.0.0.0/8", "https://ten.example"],
    ["10.0.0.0/8:8443", "https://10.0.0.1"],
    ["fd00::/8", "https://[fe00::1]"],
    ["0.0.0.0/0", "https://[fd00::1]"],
  ];
  for (const [list, url] of proxied)
    test(`${list || "an empty list"} does not let ${url} go past it`, () =>
      assert.ok(!isReached(list, url)));

  test("with an entry that means nothing is refused, with the entry", () => {
    for (const entry of ["10.0.0.0/33", "10.0.0.0/x", "fd00::/129", "a_b/8", "http://a"])
      assert.throws(
        () => openProxies({ NO_PROXY: `a.example,${entry}` }),
        (error: { code?: string; message?: string }) =>
          error.code === "CONFIG_INVALID" && error.message?.includes(entry) === true,
        entry,
      );
  });
});

describe("a proxy's address", () => {
  test("is chosen by the scheme, and in lower case comes first", () => {
    const proxies = openProxies({
      HTTPS_PROXY: "http://a:1",
      https_proxy: "https://b",
      http_proxy: "c",
    });
    assert.equal(proxies.of(new URL("https://x"))?.host, "b");
    assert.equal(proxies.of(new URL("https://x"))?.port, 443);
    assert.equal(proxies.of(new URL("http://x"))?.host, "c");
    assert.equal(openProxies({ HTTPS_PROXY: "" }).of(new URL("https://x")), undefined);
  });

  test("that cannot be read is refused by its variable and not shown", () => {
    for (const address of [
      "http://canary:canary@",
      "socks5://canary@p",
      "http://canary%:x@p",
      "http://canary@p/path",
    ])
      assert.throws(
        () => openProxies({ HTTPS_PROXY: address }),
        (error: Error & { code?: string }) => {
          assert.equal(error.code, "CONFIG_INVALID");
          assert.match(error.message, /HTTPS_PROXY/);
          assert.doesNotMatch(`${error.message} ${String(error.cause)}`, /canary/);
          return true;
        },
        address,
      );
  });
});

describe("a request through a proxy", () => {
  test("reaches a host that only the proxy knows, over one way for several", async () => {
    await using server = await httpServer((_, response) => response.end("behind"), behind);
    await using proxy = await openForwardProxy({ hosts: { "repository.test": server.port } });
    using http = through({ HTTPS_PROXY: `http://127.0.0.1:${proxy.port}` });
    for (let turn = 0; turn < 3; turn++)
      assert.equal(await textOf(http, "https://repository.test/x"), "behind");
    assert.deepEqual(proxy.asked, ["CONNECT repository.test:443"]);
  });

  test("does not go on without a certificate of the host behind it, and sends nothing there", async () => {
    let received = 0;
    await using server = await byteServer((socket) => {
      socket.on("data", (chunk) => (received += chunk.length));
    }, localhost);
    await using proxy = await openForwardProxy({ hosts: { "repository.test": server.port } });
    using http = through({ HTTPS_PROXY: `http://127.0.0.1:${proxy.port}` });
    const asked = textOf(http, "https://repository.test/", { authorization: "Bearer canary" });
    await assert.rejects(asked, { code: "TLS_UNTRUSTED" });
    await server.quiet();
    assert.equal(received, 0);
  });

  test("shows the proxy its credentials and nobody else", async () => {
    const seen: unknown[] = [];
    await using server = await httpServer((request, response) => {
      seen.push(request.headers["proxy-authorization"]);
      response.end("ok");
    }, behind);
    const authorization = basic("edge", "p@ss:word");
    const hosts = { "repository.test": server.port };
    await using proxy = await openForwardProxy({ hosts, authorization });
    using http = through({ HTTPS_PROXY: `http://edge:p%40ss%3Aword@127.0.0.1:${proxy.port}` });
    assert.equal(await textOf(http, "https://repository.test/"), "ok");
    assert.deepEqual(seen, [undefined]);
  });

  test("is refused with other credentials, which the error does not show", async () => {
    await using proxy = await openForwardProxy({ authorization: basic("edge", "right") });
    using http = through({ HTTPS_PROXY: `http://edge:canary@127.0.0.1:${proxy.port}` });
    await assert.rejects(textOf(http, "https://repository.test/"), (error: Error) => {
      assert.equal((error as { code?: string }).code, "ORIGIN_REFUSED");
      const shown = `${error.stack} ${String(error.cause)} ${JSON.stringify(error)}`;
      assert.doesNotMatch(shown, /canary|Basic|ZWRnZTpjYW5hcnk/);
      return true;
    });
  });

  test("goes through a proxy that speaks TLS, once its certificate is good", async () => {
    await using server = await httpServer((_, response) => response.end("ok"), behind);
    const hosts = { "repository.test": server.port };
    await using proxy = await openForwardProxy({ hosts, identity: localhost });
    const HTTPS_PROXY = `https://edge:canary@localhost:${proxy.port}`;
    using http = through({ HTTPS_PROXY });
    assert.equal(await textOf(http, "https://repository.test/"), "ok");
    assert.deepEqual(proxy.authorizations, [basic("edge", "canary")]);

    const wary = openHttp({
      ca: authority("another CA").cert,
      idleTimeoutMs: 2_000,
      unavailable: "ORIGIN_UNAVAILABLE",
      proxies: openProxies({ HTTPS_PROXY }),
    });
    await assert.rejects(textOf(wary, "https://repository.test/"), { code: "TLS_UNTRUSTED" });
    wary.close();
    assert.equal(proxy.asked.length, 1);
  });

  test("goes past it where NO_PROXY says so", async () => {
    await using server = await httpServer((_, response) => response.end("ok"), localhost);
    await using proxy = await openForwardProxy();
    const HTTPS_PROXY = `http://127.0.0.1:${proxy.port}`;
    using past = through({ HTTPS_PROXY, NO_PROXY: `localhost:${server.port}` });
    assert.equal(await textOf(past, server.url), "ok");
    assert.deepEqual(proxy.asked, []);
    using http = through({ HTTPS_PROXY, NO_PROXY: "localhost:1" });
    assert.equal(await textOf(http, server.url), "ok");
    assert.deepEqual(proxy.asked, [`CONNECT localhost:${server.port}`]);
  });

  test("in the clear is passed on without the credentials of the server", async () => {
    await using server = await httpServer((request, response) => response.end(request.url));
    await using proxy = await openForwardProxy();
    using http = through({ HTTP_PROXY: `edge:x@127.0.0.1:${proxy.port}` });
    const headers = { authorization: "Bearer canary" };
    assert.equal(await textOf(http, `${server.url}/a?b`, headers), "/a?b");
    assert.deepEqual(proxy.asked, [`GET ${server.url}/a?b`]);
    assert.deepEqual(proxy.authorizations, [basic("edge", "x")]);
    assert.equal(proxy.headers[0]?.authorization, undefined);
  });

  for (const [status, code] of [
    [403, "ORIGIN_REFUSED"],
    [502, "ORIGIN_UNAVAILABLE"],
    [503, "ORIGIN_UNAVAILABLE"],
  ] as const)
    test(`is ${code} when the proxy answers ${status}`, async () => {
      await using proxy = await openForwardProxy({ status });
      using http = through({ HTTPS_PROXY: `http://127.0.0.1:${proxy.port}` });
      await assert.rejects(textOf(http, "https://repository.test/"), { code });
    });

  test("is given up when the proxy is not there, says nothing, or nonsense", async () => {
    await using silent = await byteServer(() => undefined);
    await using nonsense = await byteServer((socket) => {
      socket.once("data", () => socket.end("SSH-2.0-OpenSSH\r\n"));
    });
    for (const port of [await closedPort(), silent.port, nonsense.port]) {
      using http = through({ HTTPS_PROXY: `http://127.0.0.1:${port}` }, { idleTimeoutMs: 200 });
      await assert.rejects(textOf(http, "https://repository.test/"), {
        code: "ORIGIN_UNAVAILABLE",
      });
    }
  });

  test("leaves nothing behind when it is aborted on the way", async () => {
    const stop = new AbortController();
    const reason = new Error("enough");
    await using silent = await byteServer((socket) => {
      socket.on("data", () => stop.abort(reason));
    });
    const proxy = `http://127.0.0.1:${silent.port}`;
    const http = through({ HTTPS_PROXY: proxy }, { idleTimeoutMs: 60_000 });
    const asked = http.request({ method: "GET", url: "https://repository.test/" }, stop.signal);
    await assert.rejects(asked, reason);
    http.close();
    await silent.quiet();
  });
});
