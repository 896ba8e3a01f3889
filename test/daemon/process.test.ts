import assert from "node:assert/strict";
import { readFileSync, readlinkSync } from "node:fs";
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { edgesync } from "../publisher/world.ts";
import { openAppRepository } from "../support/app-repository.ts";
import { eventually, freePort, startNode } from "../support/process.ts";
import type { Program } from "../support/process.ts";
import { closedPort } from "../support/server.ts";
import { MEMORY, temporaryFolder } from "../support/temporary.ts";

/** As a service manager does: starts when it is told to, and again whenever the process has ended. */
interface Supervised extends AsyncDisposable {
  readonly starts: number;
}

function supervise(start: () => Program): Supervised {
  const stop = new AbortController();
  let starts = 0;
  let running: Program | undefined;
  const kept = (async (): Promise<void> => {
    while (!stop.signal.aborted) {
      running = start();
      starts += 1;
      await running.ended();
    }
  })();
  return {
    get starts() {
      return starts;
    },
    async [Symbol.asyncDispose]() {
      stop.abort();
      await running?.end("SIGKILL");
      await kept;
    },
  };
}

describe("a daemon", () => {
  test("opens the gate, takes an update by restarting its application, and rolls a bad one back", async () => {
    await using world = await openAppRepository();
    const { folder } = world;
    const [port, control, served] = [await freePort(), await freePort(), await freePort()];
    const payload = join(folder, "payload");
    const pidFile = join(folder, "application.pid");
    const [restart, hook] = [join(folder, "restart"), join(folder, "hook")];
    const config = join(folder, "edgesync.json");
    await mkdir(payload);
    await writeFile(restart, `#!/bin/sh\nkill -TERM "$(cat ${pidFile})"\n`);
    const log = join(folder, "hooks.txt");
    await writeFile(hook, `#!/bin/sh\necho "$EDGESYNC_HOOK $EDGESYNC_VERSION" >> ${log}\n`);
    for (const program of [restart, hook]) await chmod(program, 0o755);
    await writeFile(
      config,
      JSON.stringify({
        channel: "web/stable",
        repository: world.url,
        "trust-root-file": world.root,
        "payload-dir": payload,
        "on-update": `command:${restart}`,
        health: `http:${served}/ready`,
        "hook.post-commit": `exec:${hook}`,
        "hook.post-rollback": `exec:${hook}`,
        "poll-interval": "1s",
        "trial-duration": "1s",
        "trial-timeout": "30s",
        port,
        "control-port": control,
      }),
      { mode: 0o644 },
    );
    const checked = await edgesync(["agent", "--config", config, "--check"]);
    assert.equal(checked.status, 0, checked.stderr);

    await using daemon = startNode(["bin/edgesync.ts", "agent", "--config", config]);
    const gate = startNode(["bin/edgesync.ts", "status", "--wait", "--port", String(control)]);
    await using _ = gate;
    let opened = false;
    const open = gate.ended().then((status) => {
      opened = true;
      return status;
    });
    await eventually(
      async () =>
        (await fetch(`http://127.0.0.1:${port}/startup`).catch(() => undefined))?.status === 503
          ? true
          : undefined,
      () => daemon.output(),
    );
    assert.equal(opened, false, "there is nothing to start yet");
    // Another address of this machine, by which one that listens on all of them would answer.
    await assert.rejects(fetch(`http://127.0.0.2:${port}/live`));
    await world.publish("1.0.0", { "version.txt": "1.0.0" });
    assert.equal(await open, 0, gate.output());
    assert.match(readlinkSync(join(payload, "current")), /^banks\/1\.0\.0-/);

    await using application = supervise(() =>
      startNode(["test/daemon/workload.ts", payload, String(served), pidFile]),
    );
    const serves = (version: string): Promise<true> =>
      eventually(
        async () => {
          const answer = await fetch(`http://127.0.0.1:${served}/`).catch(() => undefined);
          return (await answer?.text()) === version || undefined;
        },
        () => daemon.output(),
        20_000,
      );
    const logged = (line: string): Promise<true> =>
      eventually(
        () => {
          try {
            return readFileSync(log, "utf8").split("\n").includes(line) || undefined;
          } catch {
            return undefined;
          }
        },
        () => daemon.output(),
        30_000,
      );
    await serves("1.0.0");
    await world.publish("1.1.0", { "version.txt": "1.1.0" });
    await serves("1.1.0");
    await logged("post-commit 1.1.0");
    assert.equal(application.starts, 2);

    await world.publish("1.2.0", { "version.txt": "1.2.0 bad" });
    await serves("1.2.0 bad");
    await serves("1.1.0");
    await logged("post-rollback 1.1.0");
    assert.equal(application.starts, 4);
    const status = await edgesync(["status", "--json", "--port", String(control)]);
    const { update } = JSON.parse(status.stdout) as {
      update: { release: { version: string }; blocked: { version: string; reason: string } };
    };
    assert.equal(update.release.version, "1.1.0");
    assert.deepEqual([update.blocked.version, update.blocked.reason], ["1.2.0", "health_failed"]);
    assert.equal(await daemon.end("SIGTERM"), 0);
    await serves("1.1.0");
  });

  test("ends with the problem when its configuration is wrong", async () => {
    await using world = await openAppRepository();
    const config = join(world.folder, "edgesync.json");
    await writeFile(config, '{"chanel": "web/stable"}', { mode: 0o644 });
    const ran = await edgesync(["agent", "--config", config]);
    assert.equal(ran.status, 78);
    assert.match(ran.stderr, /CONFIG_INVALID: .*edgesync\.json: "chanel".*did you mean channel\?/);
    assert.equal((await edgesync(["agent", "--confg", config])).status, 64);
    const settings = {
      channel: "web/stable",
      repository: "https://127.0.0.1/",
      "trust-root-file": world.root,
      "payload-dir": join(world.folder, "payload"),
      "repository-ca-file": join(world.folder, "missing.crt"),
      "on-update": "none",
      health: "none",
    };
    await writeFile(config, JSON.stringify(settings));
    const missing = await edgesync(["agent", "--config", config]);
    assert.equal(missing.status, 78);
    assert.match(missing.stderr, /CONFIG_INVALID: repository-ca-file is .*missing\.crt/);
    const hooked = { ...settings, "hook.pre-swap": `exec:${join(world.folder, "hook")}` };
    const { "repository-ca-file": _, ...whole } = hooked;
    await writeFile(config, JSON.stringify({ ...whole, "trust-root-file": "/nowhere/root.json" }));
    const looked = await edgesync(["agent", "--config", config, "--check"]);
    assert.equal(looked.status, 78);
    assert.match(looked.stderr, /trust-root-file is \/nowhere\/root\.json[^]*hook\.pre-swap is /);
    await writeFile(config, '{\n"channel": web\n}');
    const torn = await edgesync(["agent", "--config", config, "--check"]);
    assert.match(torn.stderr, /edgesync\.json: the configuration is not JSON: .*web/);
  });

  test("that has credentials only answers who waits for its gate", async () => {
    await using folder = await temporaryFolder(MEMORY);
    const config = join(folder.path, "edgesync.json");
    const secrets = join(folder.path, "secrets");
    await mkdir(secrets);
    await writeFile(join(folder.path, "token"), "x");
    const settings = {
      "secret.db": "database/creds/web",
      "vault-address": `http://127.0.0.1:${await closedPort()}`,
      "vault-role": "web",
      "token-file": join(folder.path, "token"),
      "secrets-dir": secrets,
      port: await freePort(),
      "control-port": await freePort(),
    };
    await writeFile(config, JSON.stringify(settings), { mode: 0o644 });
    await using daemon = startNode(["bin/edgesync.ts", "agent", "--config", config]);
    const asked = ["--wait", "--timeout", "1s", "--config", config];
    const late = await eventually(
      async () => {
        const ran = await edgesync(["status", ...asked]);
        return ran.stderr.includes("nobody answers") ? undefined : ran;
      },
      () => daemon.output(),
      20_000,
    );
    assert.equal(late.status, 75);
    assert.match(late.stderr, /GATE_CLOSED: .*secrets_missing/);
  });
});
