import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer as http2Server } from "node:http2";
import type { ServerHttp2Stream } from "node:http2";
import { describe, test } from "node:test";
import { carryOut } from "../../sidecar/application/probe.ts";
import type { ProbeHandler } from "#core/probe.ts";
import { authority } from "../support/certificates.ts";
import { byteServer, closedPort, httpServer } from "../support/server.ts";

const forever = new AbortController().signal;

function http(
  port: number,
  more: Partial<Extract<ProbeHandler, { kind: "http" }>> = {},
): ProbeHandler {
  return { kind: "http", scheme: "http", port, path: "/healthz", headers: [], ...more };
}

describe("an http probe", () => {
  for (const [status, result] of [
    [200, "passed"],
    [204, "passed"],
    [302, "passed"],
    [399, "passed"],
    [400, "failed"],
    [404, "failed"],
    [503, "failed"],
  ] as const)
    test(`has ${result} with status ${status}`, async () => {
      await using server = await httpServer((_, response) => {
        response.writeHead(status, { location: "http://elsewhere.invalid/" }).end();
      });
      assert.equal(await carryOut(http(server.port), 1_000, forever), result);
    });

  test("asks for the path with its query, with the headers of the probe and in the kubelet's name", async () => {
    const seen: unknown[] = [];
    await using server = await httpServer(({ method, url, headers }, response) => {
      seen.push(method, url, headers["x-probe"], headers["user-agent"], headers.host);
      response.end();
    });
    const headers = [
      ["X-Probe", "1"],
      ["Host", "app.example"],
    ] as const;
    await carryOut(http(server.port, { path: "/a%2Fb c?x=1", headers }), 1_000, forever);
    assert.deepEqual(seen, ["GET", "/a%2Fb%20c?x=1", "1", "kube-probe/edgesync", "app.example"]);
  });

  test("takes any certificate, as the kubelet does", async () => {
    await using server = await httpServer(
      (_, response) => response.end(),
      authority().issue(["app"]),
    );
    const handler = http(server.port, { scheme: "https" });
    assert.equal(await carryOut(handler, 1_000, forever), "passed");
  });

  test("has failed when the answer does not come in time", async () => {
    await using server = await byteServer((socket) => {
      socket.once("data", () => socket.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"));
    });
    assert.equal(await carryOut(http(server.port), 100, forever), "failed");
  });

  test("does not read an endless answer to its end", async () => {
    await using server = await httpServer((_, response) => {
      const more = (): boolean => response.write(Buffer.alloc(64 * 1024));
      response.on("drain", more);
      more();
    });
    assert.equal(await carryOut(http(server.port), 5_000, forever), "passed");
  });

  test("has failed when the answer is not HTTP", async () => {
    await using server = await byteServer((socket) => socket.end("no\r\n\r\n"));
    assert.equal(await carryOut(http(server.port), 1_000, forever), "failed");
  });

  test("has failed when the answer changes the protocol", async () => {
    await using server = await byteServer((socket) => {
      socket.once("data", () =>
        socket.write("HTTP/1.1 101 No\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
      );
    });
    assert.equal(await carryOut(http(server.port), 1_000, forever), "failed");
  });

  test("rejects with the reason of an abort and with nothing else", async () => {
    await using server = await byteServer(() => undefined);
    const abort = new AbortController();
    const reason = new Error("the kubelet has gone on");
    const probing = carryOut(http(server.port), 5_000, abort.signal);
    abort.abort(reason);
    await assert.rejects(probing, reason);
  });
});

describe("a tcp probe", () => {
  test("has passed when somebody listens, and is told when nobody does", async () => {
    await using server = await byteServer(() => undefined);
    assert.equal(await carryOut({ kind: "tcp", port: server.port }, 1_000, forever), "passed");
    assert.equal(
      await carryOut({ kind: "tcp", port: await closedPort() }, 1_000, forever),
      "refused",
    );
  });
});

describe("a grpc probe", () => {
  /** Speaks grpc.health.v1: serving for the service `ready`, not serving for any other that it knows, NOT_FOUND for `none`. */
  async function health(): Promise<{ port: number } & AsyncDisposable> {
    const server = http2Server();
    server.on("stream", (stream: ServerHttp2Stream, headers) => {
      const chunks: Buffer[] = [];
      stream.on("data", (chunk: Buffer) => chunks.push(chunk));
      stream.on("end", () => {
        const frame = Buffer.concat(chunks);
        const name = frame.byteLength > 7 ? frame.subarray(7).toString() : "";
        assert.equal(headers[":path"], "/grpc.health.v1.Health/Check");
        assert.equal(frame.readUInt32BE(1), frame.byteLength - 5);
        const type = { ":status": 200, "content-type": "application/grpc" };
        if (name === "none") {
          stream.respond({ ...type, "grpc-status": "5" }, { endStream: true });
          return;
        }
        stream.respond(type, { waitForTrailers: true });
        stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
        stream.end(Buffer.of(0, 0, 0, 0, 2, 8, name === "ready" || name === "" ? 1 : 2));
      });
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = server.address();
    if (address === null || typeof address === "string") throw new TypeError("no TCP address");
    return {
      port: address.port,
      async [Symbol.asyncDispose]() {
        server.close();
        await once(server, "close");
      },
    };
  }

  for (const [service, result] of [
    ["", "passed"],
    ["ready", "passed"],
    ["starting", "failed"],
    ["none", "failed"],
  ] as const)
    test(`has ${result} for service ${JSON.stringify(service)}`, async () => {
      await using server = await health();
      const handler = { kind: "grpc", port: server.port, service } as const;
      assert.equal(await carryOut(handler, 2_000, forever), result);
    });

  test("is told when nobody listens, and has failed against something else", async () => {
    const handler = { kind: "grpc", port: await closedPort(), service: "" } as const;
    assert.equal(await carryOut(handler, 1_000, forever), "refused");
    await using server = await httpServer((_, response) => response.end());
    assert.equal(await carryOut({ ...handler, port: server.port }, 1_000, forever), "failed");
  });
});
