import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { request } from "node:http";
import { join } from "node:path";
import { describe, test } from "node:test";
import type { UpdateOrder } from "#core/control.ts";
import { runCommand } from "../../sidecar/command/command.ts";
import { keepControl, openControl } from "../../sidecar/application/control.ts";
import type { ControlDeps, Ordered } from "../../sidecar/application/control.ts";
import { openHolds } from "../../sidecar/application/hold.ts";
import type { HoldBook } from "../../sidecar/application/hold.ts";
import { manualClock } from "../support/clock.ts";
import type { ManualClock } from "../support/clock.ts";
import { eventually, freePort, startNode } from "../support/process.ts";
import { realClock } from "../support/real-clock.ts";
import { byteServer, closedPort, httpServer } from "../support/server.ts";
import { temporaryFolder } from "../support/temporary.ts";

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
      return [{ payload: "main", blocked: null, phase: "committed" as const }];
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
    assert.deepEqual(JSON.parse(taken.text), { ...hold, saved: false }, "there is no volume");
    const listed = await ask(port, "GET", "/v1/holds");
    assert.deepEqual(JSON.parse(listed.text), { holds: [hold] });
    const released = await ask(port, "DELETE", "/v1/holds/till-4");
    assert.deepEqual(JSON.parse(released.text), {
      owner: "till-4",
      released: true,
      saved: false,
    });
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
    await using setup = await open({ order: () => [] });
    assert.equal((await ask(setup.port, "POST", "/v1/update/look")).status, 409);
  });

  test("says who leads a shared volume where only that pod can try a release again", async () => {
    const follower = {
      payload: "main",
      blocked: null,
      phase: "committed",
      leader: "web-1",
    } as const;
    const own = { payload: "models", blocked: null, phase: "trial" } as const;
    let list: readonly Ordered[] = [follower];
    await using setup = await open({ order: () => list });
    const refused = await ask(setup.port, "POST", "/v1/update/retry");
    assert.equal(refused.status, 409);
    assert.match(refused.text, /"not_leading".*web-1/);
    // One of two can: nothing of it is kept back.
    list = [follower, own];
    const done = await ask(setup.port, "POST", "/v1/update/retry");
    assert.equal(done.status, 202);
    assert.deepEqual((JSON.parse(done.text) as { payloads: unknown }).payloads, list);
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
      { port, clock: realClock, log: quiet, holds, status: () => ({}), order: () => [] },
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
  interface Ran {
    readonly status: number;
    readonly out: string;
    readonly err: string;
  }

  async function run(
    port: number | undefined,
    args: readonly string[],
    { isTerminal = false } = {},
  ): Promise<Ran> {
    let out = "";
    let err = "";
    const status = await runCommand(
      args,
      {
        port,
        clock: realClock,
        print: (text) => void (out += text),
        progress: { isTerminal, write: (text) => void (err += text) },
      },
      forever,
    );
    return { status, out, err };
  }

  /** An agent that is at 1.2.0. */
  function statusOf(more: object = {}): object {
    const release = { version: "1.2.0", sequence: 2 };
    const update = { phase: "committed", release, sequence: 2, error: null, ...more };
    return { start: { reason: "ok" }, update };
  }

  const words = (line: string): readonly string[] => line.split(" ");

  test("show the status as sentences and lines, or as it is", async () => {
    const status = statusOf({ lastLook: "2026-11-22T12:00:00.000Z" });
    await using setup = await open({ status: () => status });
    const { out } = await run(setup.port, ["status"]);
    assert.match(
      out,
      /^at 1\.2\.0; [^\n]* nothing newer [^\n]*\n\nstart:\n {2}reason: ok\nupdate:\n/,
    );
    assert.deepEqual(JSON.parse((await run(setup.port, ["status", "--json"])).out), status);
  });

  test("hold, and say until when; release, and say who holds still", async () => {
    const status = () => statusOf({ phase: "trial", trial: { fallback: "1.1.0" } });
    await using setup = await open({ status });
    const { port, holds, clock } = setup;
    const asked = ["--for", "2h", "--owner", "me", "--reason", "why"];
    const taken = await run(port, ["update", "hold", ...asked]);
    const until = new Date(clock.now() + 7_200_000).toISOString();
    assert.equal(taken.status, 0);
    const [held, state] = taken.out.split("\n");
    assert.equal(held, `held by me until ${until} (why)`);
    assert.match(state ?? "", /^at 1\.2\.0; on trial, and back to 1\.1\.0/, "which goes on");
    assert.match(taken.err, /not take it/, "there is no volume to save it on");
    const [hold] = await holds.list(forever);
    assert.deepEqual(
      [hold?.owner, hold?.reason, hold?.until],
      ["me", "why", clock.now() + 7_200_000],
    );
    await run(port, words("update hold"));
    const released = await run(port, words("update release --owner me"));
    assert.equal(released.status, 0);
    assert.match(released.out, /^the hold of me is released; held by operator until /);
    const again = await run(port, words("update release --owner me"));
    assert.equal(again.status, 66);
    assert.match(again.err, /NOTHING_TO_DO: there is no hold of me; held by operator until /);
    const json = await run(port, words("update release --json"));
    assert.deepEqual(JSON.parse(json.out), { owner: "operator", released: true, saved: false });
  });

  test("say that a hold is a file, which only who wrote it can end", async () => {
    await using folder = await temporaryFolder();
    const clock = manualClock(Date.now());
    await writeFile(join(folder.path, "till-4.hold"), "");
    const deps = { clock, log: quiet, volume: undefined, folder: folder.path, pod: undefined };
    await using setup = await open({ holds: openHolds(deps) });
    const { status, err } = await run(setup.port, words("update release --owner till-4"));
    assert.equal(status, 66);
    assert.match(err, /till-4 holds by a file/);
    const { out } = await run(setup.port, ["status"]);
    assert.match(out, /start:/, "a file is looked at also while nothing waits");
  });

  test("retry what is blocked, and say so when nothing is", async () => {
    const failure = { check: "health", target: "http:80/ready", result: "HTTP status 503", at: "" };
    const release = { sequence: 3, version: "1.3.0", tree: null };
    const blocked = { ...release, reason: "health_failed", failure } as const;
    const orders: UpdateOrder[] = [];
    const order = (what: UpdateOrder) => {
      orders.push(what);
      return [
        {
          payload: "main",
          blocked: orders.length === 1 ? blocked : null,
          phase: "committed" as const,
        },
      ];
    };
    let error: unknown = null;
    const clock = manualClock();
    await using setup = await open({ clock, order, status: () => statusOf({ error }) });
    const first = await run(setup.port, words("update retry"));
    assert.equal(first.status, 0);
    assert.match(first.out, /^1\.3\.0 is tried again; it was blocked: health_failed \(/);
    assert.match(first.out, /; health at http:80\/ready: HTTP status 503\n$/);
    await clock.advance(5_000);
    const second = await run(setup.port, words("update retry"));
    assert.equal(second.status, 66);
    assert.match(second.err, /NOTHING_TO_DO: nothing was blocked; at 1\.2\.0/);
    await clock.advance(5_000);
    error = { code: "DISK_FULL", message: "no room", since: "" };
    const third = await run(setup.port, words("update retry"));
    assert.equal(third.status, 0);
    assert.match(third.out, /what failed is tried again now\nat 1\.2\.0; DISK_FULL: no room\n/);
    assert.deepEqual(orders, ["retry", "retry", "retry"]);
  });

  test("wait where they are told to come again in a moment", async () => {
    const answers = [
      [429, { detail: "not yet" }],
      [202, {}],
      [200, { update: { error: { code: "DISK_FULL" } } }],
    ] as const;
    let asked = 0;
    await using agent = await httpServer((_, response) => {
      const [status, body] = answers[asked++] ?? [500, {}];
      response.writeHead(status, { "retry-after": "0" }).end(JSON.stringify(body));
    });
    assert.equal((await run(agent.port, words("update retry"))).status, 0);
    assert.equal(asked, 3);
  });

  test("look, and say what came of it", async () => {
    let looks = 0;
    const order = () => {
      looks += 1;
      return [{ payload: "main", blocked: null, phase: "committed" as const }];
    };
    const status = () => {
      if (looks === 0) return statusOf();
      const target = { version: "1.3.0", sequence: 3 };
      return statusOf({ phase: "downloading", target, lastLook: "2026-11-22T12:00:00.000Z" });
    };
    await using setup = await open({ order, status });
    const { status: exit, out } = await run(setup.port, words("update look"));
    assert.deepEqual([exit, out], [0, "at 1.2.0; 1.3.0 is being fetched\n"]);
  });

  test("are told where nothing follows a channel", async () => {
    await using setup = await open({ order: () => [] });
    const { status, err } = await run(setup.port, words("update look"));
    assert.equal(status, 75);
    assert.match(err, /ORDER_REFUSED: .*channel/);
  });

  test("say which option or command is wrong, and what was expected", async () => {
    await using setup = await open();
    for (const [line, problem] of [
      ["update", /update hold/],
      ["update stop", /update hold/],
      ["update releas", /perhaps update release is meant/],
      ["status --port 0", /--port is "0".* 1 to 65535/],
      ["status --for 2h", /status takes no --for; expected edgesync status \[--wait/],
      ["status --timeout 2h", /--wait/],
      ["status --no-such", /--no-such/],
      ["status --port 1 --config x", /--config and --port/],
      ["update hold --for 25h", /--for is "25h"/],
      ["update hold --owner a+b", /--owner/],
    ] as const) {
      const { status, err } = await run(setup.port, words(line));
      assert.equal(status, 64, line);
      assert.match(err, problem, line);
    }
    const help = await run(setup.port, words("update --help"));
    assert.match(help.out, /edgesync update hold[^]* 66 {2}there was nothing/);
  });

  test("say who was asked when nobody answers, or somebody else", async () => {
    const port = await closedPort();
    const closed = await run(port, ["status"]);
    assert.equal(closed.status, 69);
    assert.match(closed.err, new RegExp(`nobody answers at 127\\.0\\.0\\.1:${port}, as EDGESYNC`));
    await using noise = await byteServer((socket) => socket.end("220 smtp\r\n"));
    assert.equal((await run(noise.port, ["status"])).status, 69);
    const page = "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}";
    await using other = await byteServer((socket) => socket.end(page));
    const wrong = await run(other.port, ["status"]);
    assert.equal(wrong.status, 69);
    assert.match(wrong.err, /is no control port of edgesync/);
  });

  test("find the port in the configuration of the agent that is meant", async () => {
    await using folder = await temporaryFolder();
    const status = () => ({ update: { channel: "web/stable" } });
    await using setup = await open({ status });
    const config = join(folder.path, "edgesync.json");
    const asked = ["status", "--config", config];
    assert.equal((await run(undefined, asked)).status, 78);
    for (const text of ["{", "[]", '{"control-port": 0}']) {
      await writeFile(config, text);
      const { status, err } = await run(setup.port, asked);
      assert.equal(status, 78, text);
      assert.match(err, /CONFIG_INVALID: .*edgesync\.json/);
    }
    await writeFile(config, JSON.stringify({ "control-port": setup.port, channel: "web/stable" }));
    const own = await run(undefined, asked);
    assert.deepEqual([own.status, own.err], [0, ""]);
    await writeFile(config, JSON.stringify({ "control-port": setup.port, channel: "web/edge" }));
    const other = await run(undefined, asked);
    assert.equal(other.status, 0);
    assert.match(other.err, /follows web\/stable, and the configuration names web\/edge/);
  });

  describe("that wait", () => {
    const closed = { start: { reason: "payload_missing" } };

    test("tell each change of what is missing once, and end when the gate is open", async () => {
      const states = [closed, closed, { ...closed, failed: { "update agent": "DISK_FULL" } }];
      let asked = 0;
      await using setup = await open({ status: () => states[asked++] ?? statusOf() });
      const { status, out, err } = await run(setup.port, words("status --wait"));
      assert.equal(status, 0);
      assert.match(out, /^at 1\.2\.0/);
      const lines = err.trimEnd().split("\n");
      assert.equal(lines.length, 2, err);
      assert.match(lines[0] ?? "", /^edgesync: the start gate is closed: payload_missing \(/);
      assert.match(lines[1] ?? "", /DISK_FULL/);
    });

    test("write over the same line on a terminal", async () => {
      let asked = 0;
      await using setup = await open({ status: () => (asked++ === 0 ? closed : statusOf()) });
      const { err } = await run(setup.port, words("status --wait"), { isTerminal: true });
      const [before, line, after] = err.split("\r\u001b[K");
      assert.deepEqual([before, after], ["", ""]);
      assert.match(line ?? "", /^the start gate is closed: payload_missing/);
    });

    test("say what is missing when their time is over", async () => {
      await using setup = await open({ status: () => closed });
      const late = await run(setup.port, words("status --wait --timeout 1s"));
      assert.equal(late.status, 75);
      assert.match(late.err, /GATE_CLOSED: not open after 1s: .*payload_missing/);
      const down = await run(await closedPort(), words("status --wait --timeout 1s"));
      assert.equal(down.status, 75);
      assert.match(down.err, /nobody answers/);
    });
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
