/**
 * One publisher at a time. The lock is a file that names its owner, so that a person can see who holds it and a lock whose owner
 * is known to be dead can be taken over. It is advice among publishers; readers never look at it.
 */
import { randomUUID } from "node:crypto";
import { link, readFile, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { hostname, userInfo } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import * as s from "valibot";
import { EdgeSyncError } from "#core/errors.ts";
import { diskError, errnoOf, readIfExists } from "./files.ts";

export const LOCK_NAME = ".lock";

const schema = s.object({
  /** Tells one locking from another. */
  id: s.string(),
  pid: s.pipe(s.number(), s.safeInteger(), s.minValue(1)),
  host: s.string(),
  /** Name of the account, where it has one. */
  user: s.optional(s.string()),
  /** See {@link processIdentity}. */
  process: s.optional(s.string()),
  /** Milliseconds since the epoch. */
  since: s.pipe(s.number(), s.safeInteger()),
});
type Owner = s.InferOutput<typeof schema>;

/** How long to wait for another publisher. */
export interface Waiting {
  /** Milliseconds. */
  readonly ms: number;
  readonly signal: AbortSignal;
}

/** Milliseconds between two looks at a lock that another publisher holds. */
const LOOK_MS = 100;
/** Milliseconds after which a file beside the lock that names nobody who could be asked is left over. */
const LEFT_OVER_MS = 24 * 3_600_000;

/**
 * @param now milliseconds since the epoch
 * @param waiting not at all when absent
 * @throws EdgeSyncError REPOSITORY_LOCKED
 */
export async function lockRepository(
  root: string,
  now: number,
  waiting?: Waiting,
): Promise<AsyncDisposable> {
  const path = join(root, LOCK_NAME);
  const identity = await processIdentity(process.pid);
  const user = userName();
  const mine: Owner = {
    id: randomUUID(),
    pid: process.pid,
    host: hostname(),
    since: now,
    ...(user !== undefined && { user }),
    ...(identity !== undefined && { process: identity }),
  };
  // Written aside and linked: the lock never exists without its owner's name in it.
  const aside = `${path}.${mine.id}`;
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => rm(aside, { force: true }));
  try {
    await writeFile(aside, `${JSON.stringify(mine)}\n`, { flag: "wx" });
    for (let waited = 0; ;) {
      const holder = await take(path, aside, mine);
      if (holder === "mine") break;
      if (waiting === undefined || waited >= waiting.ms)
        throw locked(path, holder, now + waited, waited);
      waiting.signal.throwIfAborted();
      const pause = Math.min(LOOK_MS, waiting.ms - waited);
      await sleep(pause, undefined, { signal: waiting.signal }).catch(() =>
        waiting.signal.throwIfAborted(),
      );
      waited += pause;
    }
    await removeLeftOvers(root, mine.id, now);
  } catch (error) {
    throw diskError(error, path);
  }
  return releaseOf(path, mine);
}

/** @returns who has it, when that is not us; `undefined` for somebody who does not say who */
async function take(path: string, aside: string, mine: Owner): Promise<Owner | undefined | "mine"> {
  for (let attempt = 0; attempt < 3; attempt++) {
    if (await tryLink(aside, path)) return "mine";
    const owner = await readOwner(path);
    if (owner === undefined) {
      // Gone since, or unreadable: the latter is for a person to judge.
      if ((await readIfExists(path)) !== undefined) return undefined;
    } else if (owner.host !== mine.host || (await isAlive(owner))) return owner;
    else await moveAway(path, owner);
  }
  return await readOwner(path);
}

function userName(): string | undefined {
  try {
    return userInfo().username;
  } catch {
    // A container's user need not be in any list.
    return undefined;
  }
}

/** What publishers that were killed while they took the lock have left beside it. The lock must be held. */
async function removeLeftOvers(root: string, mine: string, now: number): Promise<void> {
  for (const name of await readdir(root)) {
    const id = name.startsWith(`${LOCK_NAME}.`) ? name.slice(LOCK_NAME.length + 1) : mine;
    if (!/^[0-9a-f-]{36}$/.test(id) || id === mine) continue;
    const path = join(root, name);
    const owner = await readOwner(path);
    const age = owner === undefined ? now - (await changedAt(path, now)) : now - owner.since;
    const dead = owner?.host === hostname() ? !(await isAlive(owner)) : age > LEFT_OVER_MS;
    if (dead) await rm(path, { force: true });
  }
}

async function changedAt(path: string, otherwise: number): Promise<number> {
  try {
    return (await stat(path)).mtimeMs;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return otherwise;
    throw error;
  }
}

async function tryLink(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if (errnoOf(error) === "EEXIST") return false;
    throw error;
  }
}

function releaseOf(path: string, mine: Owner): AsyncDisposable {
  return {
    async [Symbol.asyncDispose]() {
      const owner = await readOwner(path);
      if (owner?.id === mine.id) await rm(path, { force: true });
    },
  };
}

/** Takes the lock of a dead owner away. */
async function moveAway(path: string, owner: Owner): Promise<void> {
  // Moved away, not deleted: of two publishers that judged the same lock, the second might move the lock of the first.
  const moved = `${path}.${randomUUID()}`;
  try {
    await rename(path, moved);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return;
    throw error;
  }
  const taken = await readOwner(moved);
  if (taken?.id !== owner.id) await tryLink(moved, path);
  await rm(moved, { force: true });
}

async function readOwner(path: string): Promise<Owner | undefined> {
  const bytes = await readIfExists(path);
  if (bytes === undefined) return undefined;
  try {
    return s.parse(schema, JSON.parse(bytes.toString()));
  } catch {
    // Not one of ours: it names nobody.
    return undefined;
  }
}

async function isAlive({ pid, process: known }: Owner): Promise<boolean> {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (errnoOf(error) === "ESRCH") return false;
    // EPERM: it exists and belongs to somebody else.
  }
  const identity = await processIdentity(pid);
  // The number may have been given to another process, or the machine may have started anew.
  return known === undefined || identity === undefined || known === identity;
}

/** Boot id and start time of a process, which its number alone does not tell; `undefined` where there is no /proc. */
async function processIdentity(pid: number): Promise<string | undefined> {
  try {
    const boot = await readFile("/proc/sys/kernel/random/boot_id", "utf8");
    const stat = await readFile(`/proc/${pid}/stat`, "utf8");
    // proc(5): field 22, counted after the command's name, which is in parentheses and may hold anything.
    const start = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
    return start === undefined ? undefined : `${boot.trim()}/${start}`;
  } catch {
    // Not Linux, or the process has just ended.
    return undefined;
  }
}

function locked(
  path: string,
  owner: Owner | undefined,
  now: number,
  waited: number,
): EdgeSyncError {
  const after = waited > 0 ? `, still after waiting for ${Math.round(waited / 1000)} s` : "";
  const who =
    owner === undefined
      ? "somebody who does not say who"
      : `process ${owner.pid}${owner.user === undefined ? "" : ` of ${owner.user}`} on ${owner.host} for ${Math.max(0, Math.round((now - owner.since) / 1000))} s`;
  return new EdgeSyncError(
    "REPOSITORY_LOCKED",
    `${path} is held by ${who}${after}${owner !== undefined && owner.host === hostname() ? "" : "; whether that still runs cannot be seen from here: if it does not, remove the file"}`,
  );
}
