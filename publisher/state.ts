/** What is published, as it is read from the disk: every file verified, by the rules of clients. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { EdgeSyncError } from "#core/errors.ts";
import { matches } from "#core/trust/metadata.ts";
import type { FileInfo } from "#core/trust/metadata.ts";
import { readIfExists } from "./files.ts";
import { readRoot, readSigned } from "./metadata.ts";
import type { Metadata, Root, Snapshot, Targets, Timestamp } from "./metadata.ts";

export interface State {
  readonly root: Metadata<Root>;
  readonly targets: Metadata<Targets>;
  /** Delegated roles by name. */
  readonly roles: ReadonlyMap<string, Metadata<Targets>>;
  readonly snapshot: Metadata<Snapshot>;
  readonly timestamp: Metadata<Timestamp>;
}

/** Everything is verified before a publisher signs on top of it; expiry does not matter, since that is what signing anew cures. */
export async function loadState(path: string): Promise<State> {
  const root = await loadRoot(path);
  const { keys, roles: top } = root.signed;
  const timestamp = readSigned<Timestamp>(
    "timestamp",
    await load(path, "timestamp.json"),
    keys,
    top.timestamp,
  );
  const list = timestamp.signed.meta["snapshot.json"];
  const snapshotName = `${list.version}.snapshot.json`;
  const snapshot = readSigned<Snapshot>(
    "snapshot",
    await load(path, snapshotName, list),
    keys,
    top.snapshot,
  );
  const { meta } = snapshot.signed;
  const loadListed = async (role: string): Promise<Buffer> => {
    const listed = meta[`${role}.json`];
    if (listed === undefined)
      throw new EdgeSyncError("REPOSITORY_INVALID", `metadata/${snapshotName} lacks ${role}.json`);
    return await load(path, `${listed.version}.${role}.json`, listed);
  };
  const targets = readSigned<Targets>("targets", await loadListed("targets"), keys, top.targets);
  const roles = new Map<string, Metadata<Targets>>();
  const { delegations } = targets.signed;
  for (const role of delegations?.roles ?? [])
    roles.set(
      role.name,
      readSigned(role.name, await loadListed(role.name), delegations?.keys ?? {}, role),
    );
  return { root, targets, roles, snapshot, timestamp };
}

/**
 * The newest root, by way of all before it.
 *
 * @throws EdgeSyncError REPOSITORY_INVALID, METADATA_INVALID, METADATA_UNTRUSTED
 */
export async function loadRoot(path: string): Promise<Metadata<Root>> {
  let root = checkRoot(undefined, await load(path, "1.root.json"));
  const names = new Set(await readdir(join(path, "metadata")));
  for (;;) {
    const name = `${root.signed.version + 1}.root.json`;
    if (!names.has(name)) return root;
    root = checkRoot(root.signed, await load(path, name));
  }
}

/** A root that follows another: signed as that one wants it, and as it wants itself; `undefined` before the first one. */
export function checkRoot(before: Root | undefined, bytes: Uint8Array): Metadata<Root> {
  const { signed } = readRoot(bytes);
  if (before !== undefined) readSigned("root", bytes, before.keys, before.roles.root);
  const version = (before?.version ?? 0) + 1;
  if (signed.version !== version)
    throw new EdgeSyncError(
      "METADATA_UNTRUSTED",
      `root says that it is version ${signed.version}, expected is ${version}`,
    );
  return readSigned("root", bytes, signed.keys, signed.roles.root);
}

async function load(path: string, name: string, meta?: FileInfo): Promise<Buffer> {
  const bytes = await readIfExists(join(path, "metadata", name));
  if (bytes === undefined)
    throw new EdgeSyncError("REPOSITORY_INVALID", `${path} has no metadata/${name}`);
  if (meta !== undefined && !matches(bytes, meta))
    throw new EdgeSyncError("METADATA_UNTRUSTED", `metadata/${name} is not what its parent lists`);
  return bytes;
}
