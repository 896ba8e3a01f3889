/**
 * A repository on disk, open for writing by one publisher.
 *
 * What is published is what `timestamp.json` leads to. Everything else is written before it, under names that nothing published
 * refers to yet: a publisher that dies leaves the repository as it was, and the next one writes over what it left behind.
 */
import { hash } from "node:crypto";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { EdgeSyncError } from "#core/errors.ts";
import { blobPath } from "#core/release.ts";
import { matches } from "#core/trust/metadata.ts";
import type { FileInfo } from "#core/trust/metadata.ts";
import { makeFolder, namesIn, place, readIfExists, spool } from "./files.ts";
import { lockRepository } from "./lock.ts";
import type { Waiting } from "./lock.ts";
import { readRoot, readSigned } from "./metadata.ts";
import type { Metadata, Root, Snapshot, Targets, Timestamp } from "./metadata.ts";

/** Unfinished files; on the same file system, so that giving them their name is one step. */
const WORK_NAME = ".work";

/** What is published, verified. */
export interface View {
  readonly path: string;
  readonly root: Metadata<Root>;
  readonly targets: Metadata<Targets>;
  /** Delegated roles by name. */
  readonly roles: ReadonlyMap<string, Metadata<Targets>>;
  readonly snapshot: Metadata<Snapshot>;
  readonly timestamp: Metadata<Timestamp>;
}

export interface Repository extends View, AsyncDisposable {
  /** A new name for an unfinished file. */
  temporary(): string;
}

/**
 * @param now milliseconds since the epoch
 * @param waiting for another publisher, when absent not at all
 * @throws EdgeSyncError REPOSITORY_INVALID, REPOSITORY_LOCKED, METADATA_INVALID or METADATA_UNTRUSTED
 */
export async function openRepository(
  path: string,
  now: number,
  waiting?: Waiting,
): Promise<Repository> {
  await refuseOther(path);
  await using cleanup = new AsyncDisposableStack();
  cleanup.use(await lockRepository(path, now, waiting));
  const temporary = await openWork(path);
  cleanup.defer(() => closeWork(path));
  const state = await loadState(path);
  const owned = cleanup.move();
  return {
    path,
    ...state,
    temporary,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/**
 * Reads what is published, without a lock: everything that the timestamp leads to stays in place while others publish.
 *
 * @throws EdgeSyncError REPOSITORY_INVALID, METADATA_INVALID or METADATA_UNTRUSTED
 */
export async function viewRepository(path: string): Promise<View> {
  await refuseOther(path);
  return { path, ...(await loadState(path)) };
}

async function refuseOther(path: string): Promise<void> {
  if ((await readIfExists(join(path, "metadata", "timestamp.json"))) === undefined)
    throw new EdgeSyncError(
      "REPOSITORY_INVALID",
      `${path} is not a repository; expected a folder that \`edgesync init\` made`,
    );
}

/** An empty folder for unfinished files; what a publisher that died left there is removed. The lock must be held. */
export async function openWork(path: string): Promise<() => string> {
  await closeWork(path);
  await makeFolder(join(path, WORK_NAME));
  return namesIn(join(path, WORK_NAME));
}

export async function closeWork(path: string): Promise<void> {
  await rm(join(path, WORK_NAME), { recursive: true, force: true });
}

type State = Omit<View, "path">;

/** Everything is verified before a publisher signs on top of it; expiry does not matter, since that is what signing anew cures. */
async function loadState(path: string): Promise<State> {
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

/** Writes a file of the repository, whole. */
export async function write(
  { path, temporary }: Pick<Repository, "path" | "temporary">,
  name: string,
  bytes: Uint8Array,
): Promise<void> {
  const file = await spool(temporary(), [bytes]);
  await place(file.path, join(path, name));
}

/** `<directory>/<sha256>.<name>`, where a target lies in a repository with consistent snapshots. */
export function targetLocation(path: string, sha256: string): string {
  const slash = path.lastIndexOf("/") + 1;
  return `targets/${path.slice(0, slash)}${sha256}.${path.slice(slash)}`;
}

/**
 * Bytes of a published target.
 *
 * @throws EdgeSyncError RELEASE_NOT_FOUND, DIGEST_MISMATCH
 */
export async function readTarget(repository: View, role: string, path: string): Promise<Buffer> {
  const file = repository.roles.get(role)?.signed.targets[path];
  if (file === undefined)
    throw new EdgeSyncError("RELEASE_NOT_FOUND", `the repository has no target ${path}`);
  const { sha256 } = file.hashes;
  const name = targetLocation(path, sha256);
  const bytes = await readIfExists(join(repository.path, name));
  if (bytes === undefined)
    throw new EdgeSyncError("REPOSITORY_INVALID", `${repository.path} has no ${name}`);
  if (bytes.length !== file.length || hash("sha256", bytes) !== sha256)
    throw new EdgeSyncError("DIGEST_MISMATCH", `${name} does not have its signed digest`);
  return bytes;
}

export function blobFile(repository: Pick<Repository, "path">, sha256: string): string {
  return join(repository.path, blobPath(sha256));
}
