import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { describe, test } from "node:test";
import { bareEnvironment, eventually, freePort, startNode } from "../support/process.ts";
import type { Program } from "../support/process.ts";
import { byteServer, closedPort } from "../support/server.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { prepareEnvironment } from "../vault/sidecar.ts";
import { openWorld } from "../vault/world.ts";

type Env = Readonly<Record<string, string>>;

interface Sidecar extends AsyncDisposable {
  readonly program: Program;
  get(path: string): Promise<{ readonly status: number; readonly text: string }>;
}

async function start(env: Env, args: readonly string[] = []): Promise<Sidecar> {
  const port = Number(env["EDGESYNC_PORT"] ?? (await freePort()));
  const program = startNode(["bin/edgesync.ts", "agent", ...args], {
    EDGESYNC_PORT: String(port),
    ...env,
  });
  return {
    program,
    async get(path) {
      const response = await fetch(`http://127.0.0.1:${port}${path}`);
      return { status: response.status, text: await response.text() };
    },
    [Symbol.asyncDispose]: () => program[Symbol.asyncDispose](),
  };
}

/** Waits until a route answers as expected. */
async function answers(
  sidecar: Sidecar,
  path: string,
  status: number,
  reason: string,
): Promise<void> {
  let last = "";
  await eventually(
    async () => {
      try {
        const response = await sidecar.get(path);
        last = `${response.status} ${response.text}`;
        const body = JSON.parse(response.text) as { reason: string };
        return (response.status === status && body.reason === reason) || undefined;
      } catch (error) {
        last = String(error);
        return undefined;
      }
    },
    () => `${path} says ${last}; ${sidecar.program.output()}`,
  );
}

describe("the sidecar as a process", () => {
  test("opens its gates when there is nothing to wait for, and ends with status 0 on SIGTERM", async () => {
    await using sidecar = await start({
      EDGESYNC_POD_NAME: "web-0",
      EDGESYNC_POD_NAMESPACE: "shop",
    });
    await answers(sidecar, "/startup", 200, "ok");
    await answers(sidecar, "/ready", 200, "ok");
    const metrics = (await sidecar.get("/metrics")).text;
    assert.match(metrics, /^edgesync_sidecar_gate_open\{condition="payload"\} 1$/m);
    assert.match(metrics, /^edgesync_sidecar_ready\{reason="ok"\} 1$/m);
    assert.match(metrics, /^process_resident_memory_bytes \d+$/m);
    const status = JSON.parse((await sidecar.get("/status")).text) as Record<string, unknown>;
    assert.equal(status["pod"], "web-0");
    assert.equal(await sidecar.program.end("SIGTERM"), 0);
    for (const line of sidecar.program.output().trim().split("\n")) {
      const entry = JSON.parse(line) as Record<string, unknown>;
      assert.equal(entry["pod"], "web-0");
      assert.equal(entry["namespace"], "shop");
    }
  });

  test("stays up with settings that are not valid, says what is wrong, and holds the start", async () => {
    await using sidecar = await start({
      EDGESYNC_POLL_INTERVAL: "soon",
      EDGESYNC_HEALTH: "maybe",
    });
    await answers(sidecar, "/live", 200, "ok");
    await answers(sidecar, "/startup", 503, "config_invalid");
    await answers(sidecar, "/ready", 503, "config_invalid");
    // An application that runs already is not to be restarted for it.
    await answers(sidecar, "/app/main/live", 200, "ok");
    assert.match((await sidecar.get("/metrics")).text, /ready\{reason="config_invalid"\} 0/);
    const output = sidecar.program.output();
    for (const part of ["CONFIG_INVALID", "EDGESYNC_POLL_INTERVAL", "EDGESYNC_HEALTH"])
      assert.ok(output.includes(part), output);
    assert.equal(await sidecar.program.end("SIGTERM"), 0);
  });

  test("names a CA file that is not there or holds no certificate", async () => {
    await using folder = await temporaryFolder();
    const empty = join(folder.path, "ca.crt");
    await writeFile(empty, "none\n");
    for (const path of [join(folder.path, "missing.crt"), empty]) {
      await using sidecar = await start({ EDGESYNC_VAULT_CA_FILE: path });
      await answers(sidecar, "/startup", 503, "config_invalid");
      assert.ok(sidecar.program.output().includes("vault-ca-file"));
    }
  });

  test("says that settings do not fit together", async () => {
    await using sidecar = await start({ EDGESYNC_CHANNEL: "detector/stable" });
    await answers(sidecar, "/startup", 503, "config_invalid");
    await answers(sidecar, "/live", 200, "ok");
  });

  test("holds the start while the repository cannot be reached, and is alive all the same", async () => {
    await using folder = await temporaryFolder();
    const payload = join(folder.path, "payload");
    await mkdir(payload);
    await writeFile(join(folder.path, "root.json"), "{}");
    await using sidecar = await start({
      EDGESYNC_CHANNEL: "detector/stable",
      EDGESYNC_REPOSITORY: `http://127.0.0.1:${await closedPort()}`,
      EDGESYNC_PAYLOAD_DIR: payload,
      EDGESYNC_TRUST_ROOT_FILE: join(folder.path, "root.json"),
    });
    await answers(sidecar, "/startup", 503, "payload_missing");
    await answers(sidecar, "/live", 200, "ok");
    const begun = performance.now();
    assert.equal(await sidecar.program.end("SIGINT"), 0);
    assert.ok(performance.now() - begun < 2_000, "a native sidecar has two seconds");
  });

  test("holds the start while Vault cannot be reached, and keeps Vault's paths to itself", async () => {
    // Secrets are kept in memory only, so the test's are too.
    await using folder = await temporaryFolder("/dev/shm");
    const token = join(folder.path, "token");
    await writeFile(token, "a.b.c");
    await using sidecar = await start({
      EDGESYNC_VAULT_ADDRESS: `http://127.0.0.1:${await closedPort()}`,
      EDGESYNC_SECRETS_DIR: folder.path,
      EDGESYNC_TOKEN_FILE: token,
      EDGESYNC_VAULT_ROLE: "reader",
      EDGESYNC_SECRET_DB: JSON.stringify({
        request: "database/creds/hidden-role",
        format: "json",
        file: "db",
      }),
    });
    await answers(sidecar, "/startup", 503, "secrets_missing");
    for (const path of ["/status", "/metrics", "/startup", "/ready"]) {
      const { text } = await sidecar.get(path);
      assert.ok(!text.includes("hidden-role") && !text.includes("a.b.c"), text);
    }
    assert.equal(await sidecar.program.end("SIGTERM"), 0);
  });

  test("says in its status why a part of it does not come up", async () => {
    await using disk = await temporaryFolder();
    await using sidecar = await start({
      EDGESYNC_VAULT_ADDRESS: `http://127.0.0.1:${await closedPort()}`,
      EDGESYNC_SECRETS_DIR: join(disk.path, "missing"),
      EDGESYNC_TOKEN_FILE: join(disk.path, "token"),
      EDGESYNC_VAULT_ROLE: "reader",
      EDGESYNC_SECRET_DB: JSON.stringify({ request: "kv/web", format: "json", file: "db" }),
    });
    await answers(sidecar, "/startup", 503, "secrets_missing");
    const failed = await eventually(
      async () => {
        const { text } = await sidecar.get("/status");
        const { failed } = JSON.parse(text) as { failed: Record<string, string> };
        return Object.keys(failed).length > 0 ? failed : undefined;
      },
      () => sidecar.program.output(),
    );
    assert.deepEqual(failed, { "secrets agent": "SECRET_STORAGE_UNSAFE" });
  });

  test("waits for its port when another process holds it", async () => {
    const holder = createServer().listen(0);
    await once(holder, "listening");
    const address = holder.address();
    if (address === null || typeof address === "string") throw new TypeError("no TCP address");
    await using sidecar = await start({ EDGESYNC_PORT: String(address.port) });
    await eventually(
      () => sidecar.program.output().includes("EADDRINUSE") || undefined,
      () => sidecar.program.output(),
    );
    holder.close();
    await answers(sidecar, "/live", 200, "ok");
  });

  // As the webhook tells it of a pod with secrets only, whose container has a port and no probe.
  for (const ended of [true, false])
    test(`${ended ? "revokes its credentials" : "revokes nothing"} on SIGTERM when the application ${ended ? "has ended" : "still runs"}`, async () => {
      await using world = await openWorld({ embedded: true });
      await using folder = await temporaryFolder("/dev/shm");
      await using application = new AsyncDisposableStack();
      const app = application.use(await byteServer(() => undefined));
      const ca = join(folder.path, "ca.crt");
      await writeFile(ca, world.ca ?? "");
      const secrets = { broker: { request: `${world.names.broker}/creds/app` } };
      await using sidecar = await start({
        ...(await prepareEnvironment(world, folder.path, { secrets })),
        EDGESYNC_VAULT_CA_FILE: ca,
        EDGESYNC_SECRETS_PORTS: String(app.port),
        EDGESYNC_POD_NETWORK: "shared",
      });
      await answers(sidecar, "/startup", 200, "ok");
      await eventually(
        () => sidecar.program.output().includes("the application was seen to run") || undefined,
        () => sidecar.program.output(),
      );
      if (ended) await application.disposeAsync();
      const begun = performance.now();
      assert.equal(await sidecar.program.end("SIGTERM"), 0);
      assert.ok(performance.now() - begun < 2_000, "a native sidecar has two seconds");
      const requests = world.embedded?.control.requests ?? [];
      assert.equal(
        requests.some((request) => request.includes("revoke")),
        ended,
        requests.join("\n"),
      );
      assert.match(sidecar.program.output(), /"msg":"stopped"/);
    });

  test("answers probes although nobody takes its log", async () => {
    await using folder = await temporaryFolder();
    const port = await freePort();
    // A pipe that is full before the first line.
    const script = 'mkfifo "$0" && exec 3<>"$0" && head -c 65536 /dev/zero >&3 && exec "$@" >&3';
    const command = [process.execPath, "bin/edgesync.ts", "agent"];
    const child = spawn("/bin/sh", ["-c", script, join(folder.path, "log"), ...command], {
      env: { ...bareEnvironment(), EDGESYNC_PORT: String(port) },
      stdio: "ignore",
    });
    try {
      await eventually(
        async () => {
          try {
            const probe = await fetch(`http://127.0.0.1:${port}/startup`);
            return probe.status === 200 || undefined;
          } catch {
            // Not listening yet.
            return undefined;
          }
        },
        () => "no answer",
      );
      // The gate's change is logged by now, to nobody.
      assert.equal((await fetch(`http://127.0.0.1:${port}/live`)).status, 200);
    } finally {
      child.kill("SIGKILL");
      await once(child, "exit");
    }
  });

  test("takes no arguments", async () => {
    await using sidecar = await start({}, ["--port", "1"]);
    assert.equal(await sidecar.program.ended(), 64);
    assert.match(sidecar.program.output(), /--port/);
  });
});
