import assert from "node:assert/strict";
import { request } from "node:http";
import { describe, test } from "node:test";
import type { UpdateOrder } from "#core/control.ts";
import { runControl } from "../../sidecar/application/control-client.ts";
import { keepControl, openControl } from "../../sidecar/application/control.ts";
import type { ControlDeps } from "../../sidecar/application/control.ts";
import { openHolds } from "../../sidecar/application/hold.ts";
import type { HoldBook } from "../../sidecar/application/hold.ts";
import { manualClock } from "../support/clock.ts";
import type { ManualClock } from "../support/clock.ts";
import { eventually, freePort, startNode } from "../support/process.ts";
import { realClock } from "../support/real-clock.ts";
import { byteServer, closedPort } from "../support/server.ts";

const forever = new AbortController().signal;
const quiet = { debug() {}, info() {}, warn() {}, error() {} };

interface Setup extends AsyncDisposable {
  readonly port: number;
  readonly clock: ManualClock;
  readonly holds: HoldBook;
  readonly orders: UpdateOrder[];
}

async function open(more: Partial<ControlDeps> = {}): Promise<Setup> {
  const clock = manualClock();
  const port = await freePort();
  const holds = openHolds({
    clock,
    log: quiet,
    volume: undefined,
    folder: undefined,
    pod: undefined,
  });
  const orders: UpdateOrder[] = [];
  const server = await openControl({
    port,
    clock,
    log: quiet,
    holds,
    status: () => ({ start: { reason: "ok" }, update: { phase: "committed", error: null } }),
    order(order) {
      orders.push(order);
      return true;
    },
    ...more,
  });
  return { port, clock, holds, orders, [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() };
}

interface Answer {
  readonly status: number;
  readonly text: string;
  readonly headers: Readonly<Record<string, unknown>>;
}

/** By hand: fetch does not send every header that is put into it. */
function ask(
  port: number,
  method: string,
  path: string,
  { body = "", headers = {}, host = "127.0.0.1" } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request({ host, port, method, path, headers, agent: false }, (response) => {
      let text = "";
      response.on("data", (chunk: Buffer) => (text += chunk.toString()));
      response.on("end", () =>
        resolve({ status: response.statusCode ?? 0, text, headers: response.headers }),
      );
    });
    asked.on("error", reject);
    asked.end(body);
  });
}

describe("the control port", () => {
  test("takes, lists and releases holds", async () => {
    await using setup = await open();
    const { port, clock } = setup;
    const body = JSON.stringify({ seconds: 60, reason: "a batch" });
    const taken = await ask(port, "PUT", "/v1/holds/till-4", { body });
    assert.equal(taken.status, 200);
    const hold = {
      owner: "till-4",
      since: new Date(clock.now()).toISOString(),
      until: new Date(clock.now() + 60_000).toISOString(),
      reason: "a batch",
    };
    assert.deepEqual(JSON.parse(taken.text), hold);
    const listed = await ask(port, "GET", "/v1/holds");
    assert.deepEqual(JSON.parse(listed.text), { holds: [hold] });
    const released = await ask(port, "DELETE", "/v1/holds/till-4");
    assert.deepEqual(JSON.parse(released.text), { owner: "till-4", released: true });
    assert.deepEqual(JSON.parse((await ask(port, "GET", "/v1/holds")).text), { holds: [] });
  });

  test("answers on both loopback addresses, and on no other", async () => {
    await using setup = await open();
    assert.equal((await ask(setup.port, "GET", "/v1/status", { host: "127.0.0.1" })).status, 200);
    assert.equal((await ask(setup.port, "GET", "/v1/status", { host: "::1" })).status, 200);
    // Linux answers on all of 127.0.0.0/8 for whoever listens everywhere.
    await assert.rejects(ask(setup.port, "GET", "/v1/status", { host: "127.0.0.2" }), {
      code: "ECONNREFUSED",
    });
  });

  test("does not answer a page in a browser, whatever it asks for", async () => {
    await using setup = await open();
    for (const headers of [
      { host: `evil.example:${setup.port}` },
      { host: "127.0.0.1.evil.example" },
      { origin: "http://evil.example" },
      { origin: "null" },
      { origin: `http://127.0.0.1:${setup.port}` },
      { "sec-fetch-site": "cross-site" },
      { "sec-fetch-site": "same-origin" },
    ])
      for (const [method, path] of [
        ["GET", "/v1/status"],
        ["PUT", "/v1/holds/x"],
        ["POST", "/v1/update/retry"],
      ] as const) {
        const answer = await ask(setup.port, method, path, { headers, body: '{"seconds":60}' });
        assert.equal(answer.status, 403, `${method} ${JSON.stringify(headers)}`);
      }
    assert.deepEqual(setup.orders, []);
    assert.deepEqual(await setup.holds.list(forever), []);
    const named = await ask(setup.port, "GET", "/v1/status", {
      headers: { host: `localhost:${setup.port}` },
    });
    assert.equal(named.status, 200);
  });

  test("says what is wrong with a request, and takes nothing of it", async () => {
    await using setup = await open();
    const { port } = setup;
    const cases = [
      ["PUT", "/v1/holds/a%2Fb", '{"seconds":1}', 400],
      ["PUT", "/v1/holds/", '{"seconds":1}', 400],
      ["PUT", "/v1/holds/x", '{"seconds":0}', 400],
      ["PUT", "/v1/holds/x", "seconds=1", 400],
      ["PUT", "/v1/holds/x", " ".repeat(10_000), 413],
      ["POST", "/v1/holds/x", "{}", 405],
      ["DELETE", "/v1/holds", "", 405],
      ["GET", "/v1/update/look", "", 405],
      ["POST", "/v1/update/stop", "", 404],
      ["GET", "/", "", 404],
    ] as const;
    for (const [method, path, body, status] of cases)
      assert.equal((await ask(port, method, path, { body })).status, status, `${method} ${path}`);
    assert.deepEqual(await setup.holds.list(forever), []);
  });

  test("passes orders on, each at most once in five seconds", async () => {
    await using setup = await open();
    const { port, clock } = setup;
    const order = (what: string) => ask(port, "POST", `/v1/update/${what}`);
    assert.equal((await order("look")).status, 202);
    const again = await order("look");
    assert.equal(again.status, 429);
    assert.equal(again.headers["retry-after"], "5");
    assert.equal((await order("retry")).status, 202);
    await clock.advance(5_000);
    assert.equal((await order("look")).status, 202);
    assert.deepEqual(setup.orders, ["look", "retry", "look"]);
  });

  test("says that there are no updates where there are none", async () => {
    await using setup = await open({ order: () => false });
    assert.equal((await ask(setup.port, "POST", "/v1/update/look")).status, 409);
  });

  test("is there when idle connections take up all of its room", async () => {
    await using setup = await open();
    const sockets = await Promise.all(
      Array.from({ length: 40 }, async () => {
        const asked = request({ host: "127.0.0.1", port: setup.port, agent: false });
        asked.on("error", () => undefined);
        asked.flushHeaders();
        return asked;
      }),
    );
    assert.equal((await ask(setup.port, "GET", "/v1/status")).status, 200);
    for (const socket of sockets) socket.destroy();
  });

  test("comes when another process gives its port up", async () => {
    const holder = await byteServer(() => undefined);
    const { port } = holder;
    const stop = new AbortController();
    const holds = openHolds({
      clock: realClock,
      log: quiet,
      volume: undefined,
      folder: undefined,
      pod: undefined,
    });
    const kept = keepControl(
      { port, clock: realClock, log: quiet, holds, status: () => ({}), order: () => true },
      stop.signal,
    );
    await holder[Symbol.asyncDispose]();
    await eventually(
      () =>
        ask(port, "GET", "/v1/status")
          .then(({ status }) => status === 200 || undefined)
          .catch(() => undefined),
      () => "the control port does not open",
    );
    stop.abort(new Error("the test ends"));
    await kept;
    await assert.rejects(ask(port, "GET", "/v1/status"), { code: "ECONNREFUSED" });
  });
});

describe("edgesync status and update", () => {
  async function run(port: number, ...args: readonly string[]): Promise<string> {
    let out = "";
    await runControl(args, { port, print: (text) => void (out += text) }, forever);
    return out;
  }

  test("show the status as lines, or as it is", async () => {
    await using setup = await open();
    assert.equal(
      await run(setup.port, "status"),
      "start:\n  reason: ok\nupdate:\n  phase: committed\n",
    );
    assert.deepEqual(JSON.parse(await run(setup.port, "status", "--json")), {
      start: { reason: "ok" },
      update: { phase: "committed", error: null },
    });
  });

  test("hold, release, retry and look", async () => {
    await using setup = await open();
    const { port, holds, clock } = setup;
    const out = await run(
      port,
      "update",
      "hold",
      "--for",
      "2h",
      "--owner",
      "me",
      "--reason",
      "why",
    );
    assert.match(out, /^owner: me\n/);
    const [hold] = await holds.list(forever);
    assert.deepEqual([hold?.owner, hold?.reason], ["me", "why"]);
    assert.equal(hold?.until, clock.now() + 7_200_000);
    await run(port, "update", "hold");
    await run(port, "update", "release", "--owner", "me");
    assert.deepEqual(
      (await holds.list(forever)).map(({ owner }) => owner),
      ["operator"],
    );
    await run(port, "update", "retry");
    await run(port, "update", "look", "--port", String(port));
    assert.deepEqual(setup.orders, ["retry", "look"]);
  });

  test("say what they cannot do", async () => {
    await using setup = await open();
    for (const args of [
      ["update"],
      ["update", "stop"],
      ["status", "--port", "0"],
      ["status", "--no-such"],
      ["update", "hold", "--for", "25h"],
      ["update", "hold", "--owner", "a b"],
    ])
      await assert.rejects(run(setup.port, ...args), { code: "USAGE" }, args.join(" "));
    await assert.rejects(run(await closedPort(), "status"), { code: "AGENT_UNAVAILABLE" });
    await using noise = await byteServer((socket) => socket.end("220 smtp\r\n"));
    await assert.rejects(run(noise.port, "status"), { code: "AGENT_UNAVAILABLE" });
    assert.match(await run(setup.port, "update", "--help"), /edgesync update hold/);
  });

  test("are commands of the one program", async () => {
    await using setup = await open();
    await using program = startNode(["bin/edgesync.ts", "status", "--json"], {
      EDGESYNC_CONTROL_PORT: String(setup.port),
    });
    assert.equal(await program.ended(), 0);
    assert.match(program.output(), /"phase":"committed"/);
    await using alone = startNode(["bin/edgesync.ts", "update", "look"], {
      EDGESYNC_CONTROL_PORT: String(await closedPort()),
    });
    assert.equal(await alone.ended(), 69);
    assert.match(alone.output(), /AGENT_UNAVAILABLE/);
  });
});
