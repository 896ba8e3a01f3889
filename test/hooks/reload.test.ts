import assert from "node:assert/strict";
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { describe, test } from "node:test";
import { findProcesses, reload } from "../../sidecar/application/reload.ts";
import type { OwnProcess, ReloadDeps, ReloadWay } from "../../sidecar/application/reload.ts";
import { manualClock } from "../support/clock.ts";
import { eventually } from "../support/process.ts";
import { ownPrograms } from "../support/programs.ts";
import { realClock } from "../support/real-clock.ts";
import { httpServer } from "../support/server.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { startReloading } from "./support.ts";

const forever = new AbortController().signal;
const own: OwnProcess = {
  pid: process.pid,
  signal: (pid, signal) => void process.kill(pid, signal),
};

function deps(more: Partial<ReloadDeps> = {}): ReloadDeps & { readonly said: string[] } {
  const said: string[] = [];
  return {
    clock: realClock,
    random: () => 0,
    channel: { app: "web", channel: "stable" },
    said,
    refused: ({ detail }) => void said.push(detail),
    ...more,
  };
}

describe("on-update: signal", () => {
  test("reaches the process of the name, and not those that it has started", async () => {
    await using folder = await temporaryFolder();
    const { name, program } = await startReloading(folder.path);
    try {
      assert.deepEqual(await findProcesses(name, process.pid, "/proc"), [program.pid]);
      const way: ReloadWay = { kind: "signal", signal: "HUP", process: name };
      await reload(way, deps({ own }), forever);
      await eventually(
        () => program.output().includes("reloaded") || undefined,
        () => program.output(),
      );
      assert.doesNotMatch(program.output(), /the child was told/);
    } finally {
      await program.end("SIGTERM");
    }
  });

  test("waits for a process that is not there yet, and says so", async () => {
    await using folder = await temporaryFolder();
    const processes = join(folder.path, "proc");
    await mkdir(processes);
    const clock = manualClock();
    const sent: unknown[] = [];
    const with_ = deps({
      clock,
      processes,
      own: { pid: 1000, signal: (pid, signal) => void sent.push([pid, signal]) },
    });
    let over = false;
    const way: ReloadWay = { kind: "signal", signal: "USR1", process: "web" };
    const done = reload(way, with_, forever).then(() => (over = true));
    await eventually(
      () => with_.said.length > 0 || undefined,
      () => "nothing was said",
    );
    assert.deepEqual(with_.said, ["no process is named web"]);
    assert.equal(over, false);
    await fakeProcess(processes, 12, 1, "web");
    await eventually(
      async () => {
        await clock.advance(1_000);
        return over || undefined;
      },
      () => with_.said.join(),
    );
    await done;
    assert.deepEqual(sent, [[12, "SIGUSR1"]]);
  });

  test("says that a process is another user's", async () => {
    await using folder = await temporaryFolder();
    await fakeProcess(folder.path, 12, 1, "web");
    const stop = new AbortController();
    const with_ = deps({
      processes: folder.path,
      own: {
        pid: 1000,
        signal: () => {
          throw Object.assign(new Error("kill EPERM"), { code: "EPERM" });
        },
      },
      refused: ({ detail }) => stop.abort(new Error(detail)),
    });
    const way: ReloadWay = { kind: "signal", signal: "HUP", process: "web" };
    await assert.rejects(reload(way, with_, stop.signal), /process 12 is another user's/);
  });

  async function fakeProcess(
    folder: string,
    pid: number,
    parent: number,
    program: string,
    line = `/usr/bin/${program}\0-x\0`,
    state = "S",
  ): Promise<void> {
    await mkdir(join(folder, String(pid)), { recursive: true });
    await writeFile(
      join(folder, String(pid), "stat"),
      `${pid} (${program}) ${state} ${parent} 0 0\n`,
    );
    await writeFile(join(folder, String(pid), "cmdline"), line);
  }

  test("means no process of the pod's own, no dead one and not the sidecar", async () => {
    await using folder = await temporaryFolder();
    const { path } = folder;
    await fakeProcess(path, 1, 0, "web");
    await fakeProcess(path, 7, 0, "web");
    await fakeProcess(path, 8, 1, "web", "web\0", "Z");
    await fakeProcess(path, 9, 1, "odd) S 1 (web", "");
    await fakeProcess(path, 10, 1, "MainThread", "/opt/web\0--serve\0");
    await fakeProcess(path, 11, 10, "web", "web: worker process\0");
    await fakeProcess(path, 12, 1, "webserver", "/opt/webserver\0web\0");
    await mkdir(join(path, "13"));
    assert.deepEqual(await findProcesses("web", 7, path), [10]);
  });
});

describe("on-update: http", () => {
  test("asks until the application has loaded the release", async () => {
    const statuses = [503, 500, 200];
    const bodies: string[] = [];
    await using app = await httpServer((request, response) => {
      request.on("data", (chunk: Buffer) => bodies.push(chunk.toString()));
      request.on("end", () =>
        response.writeHead(statuses.shift() ?? 500, { "retry-after": "7" }).end("no model\nx"),
      );
    });
    const clock = manualClock();
    const with_ = deps({ clock });
    let over = false;
    const way: ReloadWay = { kind: "http", port: app.port, path: "/reload" };
    const done = reload(way, with_, forever).then(() => (over = true));
    await eventually(
      async () => {
        await clock.advance(1_000);
        return over || undefined;
      },
      () => with_.said.join(),
    );
    await done;
    assert.deepEqual(with_.said, ["not now", "no model"]);
    assert.deepEqual(JSON.parse(bodies[0] ?? ""), {
      hook: "reload",
      app: "web",
      channel: "stable",
    });
  });

  test("is given up with the signal's reason", async () => {
    await using app = await httpServer((_, response) => void response.writeHead(500).end());
    const stop = new AbortController();
    const reason = new Error("the trial is over");
    const with_ = deps({ refused: () => stop.abort(reason) });
    const way: ReloadWay = { kind: "http", port: app.port, path: "/reload" };
    await assert.rejects(reload(way, with_, stop.signal), reason);
  });
});

describe("on-update: command", () => {
  test("runs a program with its arguments, without a shell", async () => {
    await using folder = await temporaryFolder();
    const path = join(folder.path, "restart");
    const out = join(folder.path, "out");
    await writeFile(path, `#!/bin/sh\nprintf '%s|' "$EDGESYNC_HOOK" "$@" > "${out}"\n`);
    await chmod(path, 0o755);
    const programs = ownPrograms();
    const way: ReloadWay = { kind: "command", argv: [path, "app", "$HOME;"] };
    await reload(way, deps({ programs }), forever);
    assert.equal(await readFile(out, "utf8"), "reload|app|$HOME;|");
  });

  test("is nothing for a pod", async () => {
    const stop = new AbortController();
    const with_ = deps({ refused: ({ detail }) => stop.abort(new Error(detail)) });
    const way: ReloadWay = { kind: "command", argv: ["true"] };
    await assert.rejects(reload(way, with_, stop.signal), /daemon/);
  });
});
