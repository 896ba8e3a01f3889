/** `on-rotate` at run time: a sidecar that is a process of its own tells an application that is one. */
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { startReloading } from "../hooks/support.ts";
import { eventually, freePort, startNode } from "../support/process.ts";
import type { Program } from "../support/process.ts";
import { httpServer } from "../support/server.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { prepareEnvironment, until } from "../vault/sidecar.ts";
import { openWorld } from "../vault/world.ts";
import type { World } from "../vault/world.ts";

let world: World;
before(async () => {
  world = await openWorld({ embedded: true });
});
after(() => world[Symbol.asyncDispose]());

interface Rotating {
  readonly sidecar: Program;
  /** What `/status` says of `on-rotate`. */
  readonly state: () => Promise<string | undefined>;
  /** Changes both secrets, one after the other. */
  readonly change: (value: string) => Promise<void>;
}

/** A sidecar with two secrets, published, that tells by `way`. */
async function start(folder: string, name: string, way: string): Promise<Rotating> {
  const path = (which: string): string => `${world.names.kv}/data/web/${name}-${which}`;
  const change = async (value: string): Promise<void> => {
    for (const which of ["one", "two"])
      await world.configure("POST", path(which), { data: { value } });
  };
  await change("1");
  const port = await freePort();
  const ca = join(folder, "ca.crt");
  await writeFile(ca, world.ca ?? "");
  const secrets = {
    one: { request: path("one"), format: "raw:value" },
    two: { request: path("two"), format: "raw:value" },
  };
  const sidecar = startNode(["bin/edgesync.ts", "agent"], {
    ...(await prepareEnvironment(world, folder, { secrets, refreshInterval: "1s" })),
    EDGESYNC_VAULT_CA_FILE: ca,
    EDGESYNC_PORT: String(port),
    EDGESYNC_ON_ROTATE: way,
  });
  const get = async (path: string): Promise<Response | undefined> =>
    await fetch(`http://127.0.0.1:${port}${path}`).catch(() => undefined);
  await eventually(
    async () => (await get("/startup"))?.ok || undefined,
    () => sidecar.output(),
  );
  return {
    sidecar,
    change,
    async state() {
      const status = (await (await get("/status"))?.json()) as
        { secrets?: { onRotate?: { state: string } } } | undefined;
      return status?.secrets?.onRotate?.state;
    },
  };
}

describe("on-rotate of a process", { concurrency: 2 }, () => {
  test("http: is one call for what changes together, and none for the first set", async () => {
    await using folder = await temporaryFolder("/dev/shm");
    const calls: string[] = [];
    await using app = await httpServer((request, response) => {
      calls.push(`${request.method} ${request.url}`);
      response.writeHead(204).end();
    });
    const { sidecar, change, state } = await start(folder.path, "http", `http:${app.port}/reload`);
    await using _ = sidecar;
    assert.equal(await state(), "idle");
    await change("2");
    await until(async () => (await state()) === "told", "told");
    assert.deepEqual(calls, ["POST /reload"]);
    assert.equal(await sidecar.end("SIGTERM"), 0);
    assert.equal(calls.length, 1);
  });

  test("signal: is one signal for what changes together, and none for the first set", async () => {
    await using folder = await temporaryFolder("/dev/shm");
    const { name, program } = await startReloading(folder.path);
    const told = (): number => program.output().split("reloaded").length - 1;
    try {
      const { sidecar, change, state } = await start(folder.path, "signal", `signal:HUP:${name}`);
      await using _ = sidecar;
      assert.equal(await state(), "idle");
      await change("2");
      await until(async () => (await state()) === "told", "told");
      await until(() => told() > 0, "the signal");
      assert.equal(await sidecar.end("SIGTERM"), 0);
      assert.equal(told(), 1);
    } finally {
      await program.end("SIGTERM");
    }
  });
});
