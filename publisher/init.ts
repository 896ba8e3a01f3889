/** A new repository, and apart from it a folder of keys. */
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { EdgeSyncError } from "#core/errors.ts";
import { makeFolder, readIfExists, spool, place } from "./files.ts";
import { keyNamed, refuseKeysInside } from "./keys.ts";
import type { Keyring, SigningKey } from "./keys.ts";
import { LOCK_NAME, lockRepository } from "./lock.ts";
import {
  TOP_ROLES,
  makeRoot,
  makeSnapshot,
  makeTargets,
  makeTimestamp,
  metaFile,
  sign,
  toBytes,
} from "./metadata.ts";
import type { RoleKeys } from "./metadata.ts";
import { closeWork, openWork, write } from "./repository.ts";

/** Exists from before the first key is made until the repository is complete, so that an `init` that died can be finished. */
const MARKER = ".initializing";

/**
 * @returns the trust root, which is what sites are given
 * @throws EdgeSyncError REPOSITORY_INVALID or KEY_INVALID when there is anything that would be overwritten
 */
export async function initRepository(path: string, keyring: Keyring, now: number): Promise<string> {
  await refuseKeysInside(path, keyring.folder);
  await makeFolder(path);
  await using cleanup = new AsyncDisposableStack();
  cleanup.use(await lockRepository(path, now));
  const resumed = await isUnfinished(path);
  const root = join(path, "metadata", "1.root.json");
  if (resumed && (await readIfExists(join(path, "metadata", "timestamp.json"))) !== undefined) {
    // It was complete but for the last step. It may have been used since: nothing is written anew.
    await rm(join(path, MARKER));
    return root;
  }
  const temporary = await openWork(path);
  cleanup.defer(() => closeWork(path));
  const repository = { path, temporary };
  if (!resumed) {
    for (const role of TOP_ROLES)
      if ((await readIfExists(join(keyring.folder, `${role}.pem`))) !== undefined)
        throw new EdgeSyncError(
          "KEY_INVALID",
          `${join(keyring.folder, `${role}.pem`)} exists; a repository has keys of its own`,
        );
    await place((await spool(temporary(), [])).path, join(path, MARKER));
  }
  const set = await keyring.load();
  const key = async (role: string): Promise<SigningKey> =>
    keyNamed(set, role) ?? (await keyring.create(role));
  const keys = {
    root: await key("root"),
    targets: await key("targets"),
    snapshot: await key("snapshot"),
    timestamp: await key("timestamp"),
  };
  const table = Object.fromEntries(Object.values(keys).map((item) => [item.id, item.key]));
  const only = ({ id }: SigningKey): RoleKeys => ({ keyids: [id], threshold: 1 });
  const roles = {
    root: only(keys.root),
    targets: only(keys.targets),
    snapshot: only(keys.snapshot),
    timestamp: only(keys.timestamp),
  };
  const rootFile = await sign(makeRoot(table, roles, now), [keys.root]);
  await write(repository, "metadata/1.root.json", toBytes(rootFile));
  const targets = toBytes(await sign(makeTargets(1, "targets", now), [keys.targets]));
  await write(repository, "metadata/1.targets.json", targets);
  const list = makeSnapshot(1, { "targets.json": metaFile(1, targets) }, now);
  const snapshot = toBytes(await sign(list, [keys.snapshot]));
  await write(repository, "metadata/1.snapshot.json", snapshot);
  const timestamp = makeTimestamp(1, metaFile(1, snapshot), now);
  await write(
    repository,
    "metadata/timestamp.json",
    toBytes(await sign(timestamp, [keys.timestamp])),
  );
  await rm(join(path, MARKER));
  return root;
}

/** @throws EdgeSyncError REPOSITORY_INVALID when the folder holds something else */
async function isUnfinished(path: string): Promise<boolean> {
  const names = (await readdir(path)).filter((name) => !name.startsWith(LOCK_NAME));
  if (names.includes(MARKER)) return true;
  const found = names.find((name) => name !== ".work");
  if (found !== undefined)
    throw new EdgeSyncError("REPOSITORY_INVALID", `${path} is not empty: it holds ${found}`);
  return false;
}
