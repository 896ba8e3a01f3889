/** Two agents on one payload folder: the second touches nothing, and nothing stale is ever in the way. */
import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { DatabaseSync } from "node:sqlite";
import { describe, test } from "node:test";
import { openFolderLocks } from "../../sidecar/disk/folder-lock.ts";
import { edgesync } from "../publisher/world.ts";
import { eventually, freePort, startNode } from "../support/process.ts";
import type { Program } from "../support/process.ts";
import { temporaryFolder } from "../support/temporary.ts";

interface Machine extends AsyncDisposable {
  readonly payload: string;
  readonly config: string;
}

async function openMachine(): Promise<Machine> {
  const folder = await temporaryFolder();
  const payload = join(folder.path, "payload");
  const config = join(folder.path, "edgesync.json");
  await writeFile(join(folder.path, "root.json"), "{}");
  await writeFile(
    config,
    JSON.stringify({
      channel: "web/stable",
      repository: "https://127.0.0.1:1",
      "trust-root-file": join(folder.path, "root.json"),
      "payload-dir": payload,
      "on-update": "none",
      health: "none",
      port: await freePort(),
      "control-port": await freePort(),
    }),
    { mode: 0o644 },
  );
  return { payload, config, [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose]() };
}

const start = ({ config }: Machine): Program =>
  startNode(["bin/edgesync.ts", "agent", "--config", config]);

async function opened({ payload }: Machine, agent: Program): Promise<void> {
  await eventually(
    () => existsSync(join(payload, "site")) || undefined,
    () => agent.output(),
    60_000,
  );
}

describe("a second agent for one payload folder", () => {
  test("ends, names the first, and touches nothing; after a kill the next one has it at once", async () => {
    await using machine = await openMachine();
    const { payload, config } = machine;
    await mkdir(payload);
    await using first = start(machine);
    await opened(machine, first);
    const before = readdirSync(payload);
    const second = await edgesync(["agent", "--config", config]);
    assert.equal(second.status, 75);
    assert.match(
      second.stderr,
      new RegExp(`AGENT_RUNNING: .*payload.* pid ${first.pid}, since 20`),
    );
    assert.deepEqual(readdirSync(payload), before);
    await first.end("SIGKILL");
    await using third = start(machine);
    await eventually(
      () => third.output().includes("listening") || undefined,
      () => third.output(),
      60_000,
    );
    assert.doesNotMatch(third.output(), /AGENT_RUNNING/);
    assert.equal(await third.end("SIGTERM"), 0);
  });

  test("is found also where the folder came after both, as with a mount", async () => {
    await using machine = await openMachine();
    await using first = start(machine);
    await eventually(
      () => first.output().includes("DISK_FAILED") || undefined,
      () => first.output(),
      60_000,
    );
    await mkdir(machine.payload);
    await opened(machine, first);
    const second = await edgesync(["agent", "--config", machine.config]);
    assert.equal(second.status, 75);
  });

  test("is one that has the folder by another name, and not the same one again", async () => {
    await using folder = await temporaryFolder();
    const warnings: string[] = [];
    const warn = (_: object, message: string): void => void warnings.push(message);
    const deps = { pid: process.pid, now: () => 0, log: { warn } };
    const locks = openFolderLocks(deps);
    await locks.take(folder.path);
    await locks.take(`${folder.path}/.`);
    await assert.rejects(openFolderLocks(deps).take(folder.path), {
      code: "AGENT_RUNNING",
      message: /1970-01-01/,
    });
    await assert.rejects(locks.take(join(folder.path, "none")), { code: "DISK_FAILED" });
    assert.deepEqual(warnings, []);
    assert.deepEqual(readdirSync(folder.path).toSorted(), ["agent.json", "agent.lock"]);
  });

  test("is refused also while another container's process of the same number asks", async () => {
    await using folder = await temporaryFolder();
    const deps = { pid: 1, now: () => 0, log: { warn() {} } };
    const first = openFolderLocks(deps);
    await first.take(folder.path);
    const asks = new DatabaseSync(join(folder.path, "agent.lock.1"));
    asks.exec("PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE");
    try {
      await assert.rejects(openFolderLocks(deps).take(folder.path), { code: "AGENT_RUNNING" });
    } finally {
      asks.close();
    }
    // The lock is its own as long as it is referred to.
    await first.take(folder.path);
  });

  test("leaves nothing behind when it was killed while it asked", async () => {
    await using folder = await temporaryFolder();
    await writeFile(join(folder.path, "agent.lock.left"), "");
    await openFolderLocks({ pid: 1, now: () => 0, log: { warn() {} } }).take(folder.path);
    assert.deepEqual(readdirSync(folder.path).toSorted(), ["agent.json", "agent.lock"]);
  });

  test("is not told from the first where nothing can be locked, which is said", async () => {
    await using folder = await temporaryFolder();
    await mkdir(join(folder.path, "agent.lock"));
    const warnings: string[] = [];
    const warn = (_: object, message: string): void => void warnings.push(message);
    await openFolderLocks({ pid: 1, now: () => 0, log: { warn } }).take(folder.path);
    assert.equal(warnings.length, 1);
  });
});
