/**
 * A change of keys needs two files to change, root and timestamp. Both are prepared in one folder, which appears in one step; from then
 * on the change is made, and whoever opens the repository next completes it if the publisher that made it died.
 */
import { mkdir, rename } from "node:fs/promises";
import { join } from "node:path";
import { EdgeSyncError } from "#core/errors.ts";
import { place, readIfExists, spool, syncFolder } from "./files.ts";
import { readSigned } from "./metadata.ts";
import type { Timestamp } from "./metadata.ts";
import { checkRoot, loadRoot } from "./state.ts";

/** Not served. */
const NEXT_NAME = ".next";

interface Folder {
  readonly path: string;
  /** A new name for an unfinished file. */
  readonly temporary: () => string;
}

/** From here on whoever opens the repository completes the change, without any key. */
export async function prepareNext(
  { path, temporary }: Folder,
  root: Uint8Array,
  timestamp: Uint8Array,
): Promise<void> {
  const folder = temporary();
  await mkdir(folder);
  await place((await spool(temporary(), [root])).path, join(folder, "root.json"));
  await place((await spool(temporary(), [timestamp])).path, join(folder, "timestamp.json"));
  await rename(folder, join(path, NEXT_NAME));
  await syncFolder(path);
}

/**
 * Puts in place what {@link prepareNext} has prepared. The lock must be held.
 *
 * @returns whether there was one
 */
export async function completeNext({ path, temporary }: Folder): Promise<boolean> {
  const root = await readIfExists(join(path, NEXT_NAME, "root.json"));
  if (root === undefined) return false;
  const timestamp = await readIfExists(join(path, NEXT_NAME, "timestamp.json"));
  const before = (await loadRoot(path)).signed;
  const placed = await readIfExists(join(path, "metadata", `${before.version}.root.json`));
  const put = async (bytes: Uint8Array, name: string): Promise<void> =>
    await place((await spool(temporary(), [bytes])).path, join(path, "metadata", name));
  // Nothing here is believed for where it lies: it is signed by those who may, or refused.
  if (placed?.equals(root) !== true) {
    const { signed } = checkRoot(before, root);
    if (timestamp === undefined)
      throw new EdgeSyncError("REPOSITORY_INVALID", `${join(path, NEXT_NAME)} is not complete`);
    readSigned<Timestamp>("timestamp", timestamp, signed.keys, signed.roles.timestamp);
    // The timestamp first: it has the signatures of the old keys too.
    await put(timestamp, "timestamp.json");
    await put(root, `${signed.version}.root.json`);
  }
  await rename(join(path, NEXT_NAME), temporary());
  await syncFolder(path);
  return true;
}
