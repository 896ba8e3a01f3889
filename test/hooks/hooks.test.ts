import assert from "node:assert/strict";
import { chmod, chown, lchown, mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import { join } from "node:path";
import process from "node:process";
import { describe, test } from "node:test";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { SILENCE_MS } from "#core/hook.ts";
import { SIDECAR_METRICS } from "#core/metrics.ts";
import { createMetrics } from "#core/telemetry.ts";
import { openHooks } from "../../sidecar/application/hooks.ts";
import type { HookDeps, Hooks } from "../../sidecar/application/hooks.ts";
import { postJson } from "../../sidecar/application/local-call.ts";
import { manualClock } from "../support/clock.ts";
import { eventually } from "../support/process.ts";
import { ownPrograms } from "../support/programs.ts";
import { realClock } from "../support/real-clock.ts";
import { byteServer, closedPort, httpServer } from "../support/server.ts";
import { temporaryFolder } from "../support/temporary.ts";

const forever = new AbortController().signal;
const quiet = { debug() {}, info() {}, warn() {}, error() {} };
const release = { app: "web", channel: "stable", version: "1.1.0", sequence: 7, from: "1.0.0" };

function open(
  settings: Partial<HookDeps["settings"]>,
  more: Partial<HookDeps> = {},
): { hooks: Hooks; registry: Registry } {
  const registry = new Registry();
  const none = {
    hookPreDownload: undefined,
    hookPreSwap: undefined,
    hookPostSwap: undefined,
    hookHealth: undefined,
    hookPostCommit: undefined,
    hookPostRollback: undefined,
  };
  const hooks = openHooks({
    settings: { ...none, ...settings },
    clock: realClock,
    log: quiet,
    metrics: createMetrics(SIDECAR_METRICS, { Counter, Gauge, Histogram }, registry),
    ...more,
  });
  return { hooks, registry };
}

async function bodyOf(request: IncomingMessage): Promise<unknown> {
  let text = "";
  for await (const chunk of request) text += String(chunk);
  return JSON.parse(text);
}

function reply(response: ServerResponse, status: number, text = "", headers = {}): void {
  response.writeHead(status, headers).end(text);
}

describe("a hook of a pod", () => {
  test("is a POST to the application that says what it is about", async () => {
    const asked: unknown[] = [];
    await using app = await httpServer((request, response) => {
      void bodyOf(request).then((body) => {
        asked.push([request.method, request.url, body]);
        reply(response, 204);
      });
    });
    const target = { kind: "http", port: app.port, path: "/hooks?x=1" } as const;
    const { hooks, registry } = open({ hookPreSwap: target });
    assert.equal(hooks.has("pre-swap"), true);
    assert.deepEqual(await hooks.ask("pre-swap", release, forever), { answer: "go" });
    assert.deepEqual(asked, [["POST", "/hooks?x=1", { hook: "pre-swap", ...release }]]);
    assert.match(
      await registry.metrics(),
      /edgesync_sidecar_hook_calls_total\{hook="pre-swap",answer="go"\} 1/,
    );
    const [view] = hooks.view();
    assert.deepEqual([view?.hook, view?.answer, view?.version], ["pre-swap", "go", "1.1.0"]);
  });

  test("that nobody has asked for is go without a call", async () => {
    const { hooks } = open({});
    assert.equal(hooks.has("pre-swap"), false);
    assert.deepEqual(await hooks.ask("pre-swap", release, forever), { answer: "go" });
    assert.deepEqual(hooks.view(), []);
  });

  test("puts off and refuses as the application answers", async () => {
    const answers = [
      [503, "busy", { "retry-after": "7" }],
      [409, "a batch runs\nuntil noon", {}],
      [500, "x".repeat(100_000), {}],
    ] as const;
    let turn = 0;
    await using app = await httpServer((_, response) => {
      const [status, text, headers] = answers[turn++ % answers.length] ?? answers[0];
      reply(response, status, text, headers);
    });
    const target = { kind: "http", port: app.port, path: "/" } as const;
    const { hooks } = open({ hookPreDownload: target });
    const ask = async (): Promise<unknown> => {
      const { failure, ...answer } = await hooks.ask("pre-download", release, forever);
      assert.deepEqual([failure?.check, failure?.target], ["pre-download", `http:${app.port}/`]);
      assert.ok((failure?.result.length ?? 0) <= 200);
      return answer;
    };
    assert.deepEqual(await ask(), { answer: "later", afterMs: 7_000 });
    assert.deepEqual(await ask(), { answer: "no", detail: "a batch runs" });
    assert.deepEqual(await ask(), { answer: "no", detail: "x".repeat(200) });
  });

  test("shows since when it is being asked, and what it said before", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    let calls = 0;
    await using app = await httpServer((_, response) => {
      calls += 1;
      if (calls > 1) void promise.then(() => reply(response, 204));
      else reply(response, 409, "a batch runs");
    });
    const clock = manualClock();
    const target = { kind: "http", port: app.port, path: "/" } as const;
    const { hooks } = open({ hookPreSwap: target }, { clock });
    await hooks.ask("pre-swap", release, forever);
    const [before] = hooks.view();
    await clock.advance(5_000);
    const asked = hooks.ask("pre-swap", release, forever);
    const since = new Date(clock.now()).toISOString();
    assert.deepEqual(hooks.view(), [{ ...before, answer: "no", asking: since }]);
    resolve();
    await asked;
    assert.deepEqual(
      hooks.view().map(({ answer, asking }) => [answer, asking]),
      [["go", null]],
    );
  });

  test("of an application that is dead does not keep its cure away for ever", async () => {
    const target = { kind: "http", port: await closedPort(), path: "/" } as const;
    const clock = manualClock();
    const { hooks } = open({ hookPreSwap: target, hookPostSwap: target }, { clock });
    const answers: string[] = [];
    for (let asked = 0; asked <= SILENCE_MS / 10_000; asked++) {
      answers.push((await hooks.ask("pre-swap", release, forever)).answer);
      await clock.advance(10_000);
    }
    assert.equal(answers.indexOf("go"), SILENCE_MS / 10_000);
    // Another release has its own ten minutes, and a hook after the swap has the trial's time.
    const next = { ...release, sequence: 8 };
    assert.equal((await hooks.ask("pre-swap", next, forever)).answer, "later");
    for (let passed = 0; passed <= SILENCE_MS; passed += 60_000) {
      assert.equal((await hooks.ask("post-swap", release, forever)).answer, "later");
      await clock.advance(60_000);
    }
  });

  test("counts silence only while it lasts", async () => {
    const clock = manualClock();
    let answer = true;
    await using app = await httpServer((_, response) => {
      if (answer) reply(response, 503);
      else response.destroy();
    });
    const target = { kind: "http", port: app.port, path: "/" } as const;
    const { hooks } = open({ hookPreSwap: target }, { clock });
    answer = false;
    for (let passed = 0; passed < SILENCE_MS; passed += 60_000) {
      assert.equal((await hooks.ask("pre-swap", release, forever)).answer, "later");
      await clock.advance(60_000);
    }
    answer = true;
    await hooks.ask("pre-swap", release, forever);
    answer = false;
    await clock.advance(1);
    assert.equal((await hooks.ask("pre-swap", release, forever)).answer, "later");
  });

  test("that is silent again hours later was not silent all the while", async () => {
    const target = { kind: "http", port: await closedPort(), path: "/" } as const;
    const clock = manualClock();
    const { hooks } = open({ hookPreSwap: target }, { clock });
    await hooks.ask("pre-swap", release, forever);
    await clock.advance(2 * SILENCE_MS);
    assert.equal((await hooks.ask("pre-swap", release, forever)).answer, "later");
  });

  test("is silent when what answers is not HTTP, or nothing comes in time", async () => {
    await using noise = await byteServer((socket) => socket.end("hello\r\n\r\n"));
    await using mute = await byteServer(() => undefined);
    for (const [port, text, reached] of [
      [noise.port, "HPE_INVALID_CONSTANT", true],
      [mute.port, "timeout", true],
      [await closedPort(), "ECONNREFUSED", false],
    ] as const) {
      const answer = await postJson({ port, path: "/" }, {}, 200, forever);
      assert.deepEqual(answer, { kind: "silent", text, reached });
    }
  });

  test("is given up with the signal's reason", async () => {
    await using mute = await byteServer(() => undefined);
    const target = { kind: "http", port: mute.port, path: "/" } as const;
    const stop = new AbortController();
    const asked = open({ hookPreSwap: target }).hooks.ask("pre-swap", release, stop.signal);
    const reason = new Error("the sidecar stops");
    stop.abort(reason);
    await assert.rejects(asked, reason);
  });

  test("never runs a program", async () => {
    const { hooks } = open({ hookPreSwap: { kind: "exec", path: "/bin/true" } });
    assert.equal((await hooks.ask("pre-swap", release, forever)).answer, "broken");
  });
});

describe("a hook of a daemon", () => {
  const programs = ownPrograms();

  async function script(folder: string, text: string, mode = 0o755): Promise<string> {
    const path = join(folder, "hook");
    await writeFile(path, `#!/bin/sh\n${text}\n`);
    await chmod(path, mode);
    return path;
  }

  test("is a program that is told by its environment, and answers by its exit status", async () => {
    await using folder = await temporaryFolder();
    const path = await script(
      folder.path,
      'echo "$EDGESYNC_HOOK $EDGESYNC_APP $EDGESYNC_CHANNEL $EDGESYNC_VERSION $EDGESYNC_SEQUENCE $EDGESYNC_FROM $SECRET"; exit "$(cat "${0%/*}/status")"',
    );
    const { hooks } = open({ hookPreSwap: { kind: "exec", path } }, { programs });
    for (const [status, answer] of [
      ["0", { answer: "go" }],
      ["75", { answer: "later", afterMs: 60_000 }],
      ["1", { answer: "no", detail: "pre-swap web stable 1.1.0 7 1.0.0" }],
    ] as const) {
      await writeFile(join(folder.path, "status"), status);
      const { failure: _, ...said } = await hooks.ask("pre-swap", release, forever);
      assert.deepEqual(said, answer);
    }
  });

  test("is known not to be one that can be run before anything hangs on it", async () => {
    await using folder = await temporaryFolder();
    const path = await script(folder.path, "exit 0", 0o644);
    const { hooks } = open({ hookPostSwap: { kind: "exec", path } }, { programs });
    const broken = await hooks.broken();
    assert.deepEqual([broken?.check, broken?.target], ["post-swap", `exec:${path}`]);
    assert.equal((await hooks.ask("post-swap", release, forever)).answer, "broken");
    await chmod(path, 0o755);
    assert.equal(await hooks.broken(), undefined);
    assert.equal((await hooks.ask("post-swap", release, forever)).answer, "go");
  });

  test("is not run when somebody else could have written it", async () => {
    await using folder = await temporaryFolder();
    const path = await script(folder.path, "exit 0", 0o777);
    const { hooks } = open({ hookPreSwap: { kind: "exec", path } }, { programs });
    assert.equal((await hooks.ask("pre-swap", release, forever)).answer, "broken");
    await chmod(path, 0o755);
    assert.equal((await hooks.ask("pre-swap", release, forever)).answer, "go");
    await chmod(folder.path, 0o777);
    assert.equal((await hooks.ask("pre-swap", release, forever)).answer, "broken");
  });

  test("is what was looked at: a link that anybody could change is not followed", async () => {
    await using folder = await temporaryFolder();
    const path = await script(folder.path, "exit 0");
    const [open, shut, link] = ["open", "shut", "link"].map((name) => join(folder.path, name));
    for (const [at = "", mode] of [
      [open, 0o777],
      [shut, 0o755],
    ] as const) {
      await mkdir(at);
      await symlink(path, join(at, "hook"));
      await chmod(at, mode);
    }
    await symlink(`${open}/hook`, link ?? "");
    const statusOf = async (program: string | undefined): Promise<unknown> => {
      const reply = await programs.run([program ?? ""], {}, 5_000, forever);
      return reply.kind === "exit" ? reply.status : reply.kind;
    };
    assert.equal(await statusOf(`${shut}/hook`), 0);
    assert.equal(await statusOf(`${shut}/../shut/hook`), 0);
    // What it names would do, and so would the file at its end.
    assert.equal(await statusOf(`${open}/hook`), "broken");
    assert.equal(await statusOf(link), "broken");
    assert.equal(await statusOf(`${path}/..`), "broken");
    // In a sticky folder nobody can replace what is another's; a file is as open as its other bits say.
    await chmod(open ?? "", 0o1777);
    assert.equal(await statusOf(link), 0);
    await chmod(path, 0o1777);
    assert.equal(await statusOf(path), "broken");
  });

  test("may not be a stranger's, nor lie in a stranger's folder", async (context) => {
    if (process.getuid?.() !== 0) return context.diagnostic("only root can give files away");
    await using folder = await temporaryFolder();
    await chmod(folder.path, 0o755);
    const path = await script(folder.path, "exit 0");
    const bob = join(folder.path, "bob");
    await mkdir(bob);
    await symlink(path, join(bob, "hook"));
    await chown(bob, 1000, 1000);
    const reply = await programs.run([join(bob, "hook")], {}, 5_000, forever);
    assert.equal(reply.kind, "broken");
    // What a stranger can swap for another program while it is looked at is never run.
    await lchown(join(bob, "hook"), 1000, 1000);
    await chown(bob, 0, 0);
    const again = await programs.run([join(bob, "hook")], {}, 5_000, forever);
    assert.equal(again.kind, "broken");
  });

  test("does not lie in a payload, whatever path leads there or through there", async () => {
    await using folder = await temporaryFolder();
    const path = await script(folder.path, "exit 0");
    const payload = join(folder.path, "payload");
    const bank = join(payload, "banks", "1");
    await mkdir(bank, { recursive: true });
    await symlink("banks/1", join(payload, "current"));
    const inside = await script(bank, "exit 0");
    await symlink(path, join(bank, "out"));
    await symlink(join(payload, "current/hook"), join(folder.path, "in"));
    await symlink(join(payload, "current/out"), join(folder.path, "through"));
    await symlink(payload, join(folder.path, "alias"));
    const guarded = ownPrograms([join(folder.path, "alias"), join(folder.path, "missing")]);
    assert.deepEqual(await guarded.run([path], {}, 5_000, forever), {
      kind: "exit",
      status: 0,
      text: "",
    });
    for (const program of [
      inside,
      join(payload, "current/hook"),
      join(folder.path, "in"),
      join(folder.path, "through"),
      join(folder.path, "alias/current/hook"),
    ]) {
      const reply = await guarded.run([program], {}, 5_000, forever);
      assert.equal(reply.kind, "broken", program);
    }
  });

  test("ends with all that it has started", async () => {
    await using folder = await temporaryFolder();
    const path = await script(folder.path, 'sleep 60 & echo $! > "${0%/*}/pid"; wait');
    const childOf = (): Promise<number> =>
      eventually(
        async () => {
          const text = await readFile(join(folder.path, "pid"), "utf8").catch(() => "");
          return text.endsWith("\n") ? Number(text) : undefined;
        },
        () => "no child",
      );
    const gone = (pid: number): Promise<true> =>
      eventually(
        async () => {
          // Ended, and perhaps not waited for by whoever has inherited it.
          const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => ") Z");
          return /\) Z/.test(stat) || undefined;
        },
        () => `${pid} is still there`,
      );
    assert.deepEqual(await programs.run([path], {}, 1_000, forever), {
      kind: "silent",
      text: "timeout",
      reached: true,
    });
    await gone(await childOf());
    await rm(join(folder.path, "pid"));
    const stop = new AbortController();
    const reason = new Error("the daemon stops");
    const running = programs.run([path], {}, 60_000, stop.signal);
    const child = await childOf();
    stop.abort(reason);
    await assert.rejects(running, reason);
    await gone(child);
  });

  test("ends when its time is over, and with the daemon", async () => {
    await using folder = await temporaryFolder();
    const path = await script(folder.path, "exec sleep 60");
    assert.deepEqual(await programs.run([path], {}, 50, forever), {
      kind: "silent",
      text: "timeout",
      reached: true,
    });
    const stop = new AbortController();
    const reason = new Error("the daemon stops");
    const running = programs.run([path], {}, 60_000, stop.signal);
    setTimeout(() => stop.abort(reason), 20);
    await assert.rejects(running, reason);
  });

  test("that cannot be run is no answer, and says why", async () => {
    const reply = await programs.run(["/nowhere/hook"], {}, 1_000, forever);
    assert.equal(reply.kind, "broken");
    const unknown = await programs.run(["edgesync-no-such-program"], {}, 1_000, forever);
    assert.equal(unknown.kind, "broken");
  });
});
