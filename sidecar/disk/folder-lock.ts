/**
 * One agent for each payload folder of a machine. The lock is the kernel's, on a file in the folder (fcntl(2)): it ends with the process that
 * has it, however that ends, and holds across containers of one machine. Node has no call for it, but its SQLite has: an empty database that is
 * held exclusively, and never written to. Why this and nothing else: docs/decisions/0020.
 */
import { randomUUID } from "node:crypto";
import { readFile, readdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { DatabaseSync } from "node:sqlite";
import { EdgeSyncError } from "#core/errors.ts";
import { jsonObject } from "#core/json.ts";
import type { Log } from "#core/telemetry.ts";

export interface FolderLocks {
  /**
   * Takes the lock of a folder, which then is this process's until it ends. Where the file system has no locks the folder is taken without,
   * and that is logged.
   *
   * @throws EdgeSyncError AGENT_RUNNING when another process has it; DISK_FAILED when the folder is not there
   */
  take(folder: string): Promise<void>;
}

export interface FolderLocksDeps {
  readonly pid: number;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  readonly log: Pick<Log, "warn">;
}

const FILE = "agent.lock";
/** What a process asks about whether there are locks at all, under a name of its own: several containers each have a process 1. */
const PROBE = "agent.lock.";
/** Who has it: for people, and believed by nobody else. */
const HOLDER = "agent.json";

export function openFolderLocks({ pid, now, log }: FolderLocksDeps): FolderLocks {
  /** By device and inode: what is mounted over a folder is another one. */
  const held = new Map<string, unknown>();

  return {
    async take(folder) {
      const identity = await identityOf(folder);
      if (held.has(identity)) return;
      const outcome = await lock(join(folder, FILE));
      if (outcome === "busy" && (await hasLocks(join(folder, `${PROBE}${randomUUID()}`))))
        throw new EdgeSyncError("AGENT_RUNNING", `${folder} is in use by ${await nameOf(folder)}`);
      held.set(identity, outcome);
      await removeProbes(folder);
      if (typeof outcome === "string")
        log.warn({ detail: folder }, "payload folder cannot be locked against a second agent");
      const text = `${JSON.stringify({ pid, since: new Date(now()).toISOString() })}\n`;
      // A disk that takes no more is no reason not to serve what is on it.
      await writeFile(join(folder, HOLDER), text).catch(() => undefined);
    },
  };
}

async function identityOf(folder: string): Promise<string> {
  try {
    const { dev, ino } = await stat(folder, { bigint: true });
    return `${dev}:${ino}`;
  } catch (cause) {
    throw new EdgeSyncError("DISK_FAILED", `${folder} is not there`, { cause });
  }
}

/** Some file systems call it busy that they have no locks; there nobody can have one either. */
async function hasLocks(path: string): Promise<boolean> {
  const outcome = await lock(path);
  if (typeof outcome === "object") outcome.close();
  await rm(path, { force: true });
  return outcome !== "busy";
}

/** Left by processes that were killed while they asked; one that asks now finds no fault with it. */
async function removeProbes(folder: string): Promise<void> {
  const names = await readdir(folder).catch(() => []);
  for (const name of names)
    if (name.startsWith(PROBE))
      await rm(join(folder, name), { force: true }).catch(() => undefined);
}

/** SQLITE_BUSY. */
const BUSY = 5;

/** @returns what holds the lock as long as it is referred to */
async function lock(path: string): Promise<DatabaseSync | "busy" | "unusable"> {
  let file: DatabaseSync | undefined;
  try {
    const sqlite = await import("node:sqlite");
    file = new sqlite.DatabaseSync(path);
    // No journal on the disk: nothing is written, and nothing is to be left behind.
    file.exec("PRAGMA journal_mode=MEMORY; PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE");
    return file;
  } catch (error) {
    file?.close();
    return error instanceof Error && "errcode" in error && error.errcode === BUSY
      ? "busy"
      : "unusable";
  }
}

async function nameOf(folder: string): Promise<string> {
  const text = await readFile(join(folder, HOLDER), "utf8").catch(() => "");
  const { pid, since } = jsonObject(text) ?? {};
  return `another agent${typeof pid === "number" ? `, pid ${pid}` : ""}${typeof since === "string" ? `, since ${since}` : ""}`;
}
