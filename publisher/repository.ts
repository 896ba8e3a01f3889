/**
 * A repository on disk, open for writing by one publisher.
 *
 * What is published is what `timestamp.json` leads to. Everything else is written before it, under names that nothing published
 * refers to yet: a publisher that dies leaves the repository as it was, and the next one writes over what it left behind.
 */
import { hash } from "node:crypto";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { EdgeSyncError } from "#core/errors.ts";
import { blobPath } from "#core/release.ts";
import { makeFolder, namesIn, place, readIfExists, spool } from "./files.ts";
import { lockRepository } from "./lock.ts";
import type { Waiting } from "./lock.ts";
import { completeNext } from "./pending.ts";
import { loadState } from "./state.ts";
import type { State } from "./state.ts";

/** Unfinished files; on the same file system, so that giving them their name is one step. */
const WORK_NAME = ".work";

/** What is published, verified. */
export interface View extends State {
  readonly path: string;
}

export interface Repository extends View, AsyncDisposable {
  /** Whether a change of keys was found that a publisher who died had made, and was completed. */
  readonly resumed: boolean;
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
  const resumed = await completeNext({ path, temporary });
  const state = await loadState(path);
  const owned = cleanup.move();
  return {
    path,
    ...state,
    resumed,
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
