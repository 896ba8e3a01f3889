import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import type { Socket } from "node:net";
import { describe, test } from "node:test";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { SIDECAR_METRICS } from "#core/metrics.ts";
import { createMetrics } from "#core/telemetry.ts";
import { openServer } from "../../sidecar/server.ts";
import type { Server, ServerDeps } from "../../sidecar/server.ts";
import { freePort } from "../support/process.ts";

const quiet = { debug() {}, info() {}, warn() {}, error() {} };

async function serve(
  deps: Partial<ServerDeps> = {},
): Promise<{ url: string; port: number; registry: Registry } & AsyncDisposable> {
  const registry = new Registry();
  const metrics = createMetrics(SIDECAR_METRICS, { Counter, Gauge, Histogram }, registry);
  const port = await freePort();
  const server: Server = await openServer({
    port,
    log: quiet,
    metrics,
    start: () => "ok",
    ready: () => "secrets_expired",
    status: () => ({ some: "state" }),
    scrape: async () => ({ contentType: registry.contentType, text: await registry.metrics() }),
    lever: (container, probe) =>
      container === "main" ? (probe === "startup" ? 200 : 503) : undefined,
    ...deps,
  });
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    registry,
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

async function ask(
  url: string,
  { headers, ...init }: Omit<RequestInit, "headers"> & { headers?: Record<string, string> } = {},
): Promise<[number, string]> {
  const response = await fetch(url, { ...init, headers: { connection: "close", ...headers } });
  return [response.status, await response.text()];
}

describe("the sidecar's server", () => {
  test("answers each route with a status and a reason", async () => {
    await using server = await serve();
    const expected: Readonly<Record<string, [number, string]>> = {
      "/startup": [200, '{"reason":"ok"}\n'],
      "/ready": [503, '{"reason":"secrets_expired"}\n'],
      "/live": [200, '{"reason":"ok"}\n'],
      "/live?x=1": [200, '{"reason":"ok"}\n'],
      "/status": [200, '{"some":"state"}\n'],
      "/app/main/startup": [200, '{"reason":"ok"}\n'],
      "/app/main/live": [503, '{"reason":"unhealthy"}\n'],
      "/app/other/live": [404, '{"reason":"not_found"}\n'],
      "/app/main/ready": [404, '{"reason":"not_found"}\n'],
      "/": [404, '{"reason":"not_found"}\n'],
    };
    for (const [path, answer] of Object.entries(expected))
      assert.deepEqual(await ask(server.url + path), answer, path);
  });

  test("counts requests by names from a closed set", async () => {
    await using server = await serve();
    for (const path of ["/live", "/app/main/live", "/app/other/live", "/a", "/b"])
      await ask(server.url + path);
    const [status, text] = await ask(`${server.url}/metrics`);
    assert.equal(status, 200);
    const lines = text.split("\n").filter((line) => line.startsWith("edgesync_sidecar_http_"));
    assert.deepEqual(lines, [
      'edgesync_sidecar_http_requests_total{route="/live",status="200"} 1',
      'edgesync_sidecar_http_requests_total{route="/app/live",status="503"} 1',
      'edgesync_sidecar_http_requests_total{route="/app/live",status="404"} 1',
      'edgesync_sidecar_http_requests_total{route="other",status="404"} 2',
    ]);
  });

  test("only lets itself be read", async () => {
    await using server = await serve();
    const body = "x".repeat(100_000);
    assert.equal((await ask(`${server.url}/live`, { method: "POST", body }))[0], 405);
    assert.equal((await ask(`${server.url}/live`, { method: "DELETE" }))[0], 405);
    assert.deepEqual(await ask(`${server.url}/live`, { method: "HEAD" }), [200, ""]);
  });

  test("passes a container's probe when the lever itself fails", async () => {
    await using server = await serve({
      lever() {
        throw new Error("a fault of ours");
      },
    });
    assert.equal((await ask(`${server.url}/app/main/live`))[0], 200);
  });

  test("goes on after a route has failed", async () => {
    await using server = await serve({
      status() {
        throw new Error("a fault of ours");
      },
    });
    await assert.rejects(ask(`${server.url}/status`));
    assert.equal((await ask(`${server.url}/live`))[0], 200);
  });

  test("refuses headers beyond its limit", async () => {
    await using server = await serve();
    const [status] = await ask(`${server.url}/live`, { headers: { "x-long": "x".repeat(9_000) } });
    assert.equal(status, 431);
  });

  test("answers the kubelet while strangers hold as many connections as they like", async () => {
    await using server = await serve();
    const strangers: Socket[] = [];
    try {
      for (let count = 0; count < 100; count++) {
        const socket = connect(server.port, "127.0.0.1");
        socket.on("error", () => undefined);
        await once(socket, "connect");
        strangers.push(socket);
      }
      for (let turn = 0; turn < 5; turn++) assert.equal((await ask(`${server.url}/live`))[0], 200);
    } finally {
      for (const socket of strangers) socket.destroy();
    }
  });

  test("says when the port is taken", async () => {
    await using server = await serve();
    await assert.rejects(serve({ port: server.port }), { code: "EADDRINUSE" });
  });
});
