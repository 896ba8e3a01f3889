/**
 * Copies what is published to another folder, such as the one that a web server serves or a mounted bucket. A reader of that folder
 * finds a good repository at every moment: what refers to a file is copied after it, and nothing is removed before the rest is done.
 */
import { join, relative, resolve, sep } from "node:path";
import { EdgeSyncError } from "#core/errors.ts";
import { parseRoot, parseTimestamp } from "#core/trust/metadata.ts";
import { makeFolder, place, readIfExists, readRange, refuseNoFolder, spool } from "./files.ts";
import { inOrder, removeGarbage } from "./gc.ts";
import type { GarbageFile } from "./gc.ts";
import { isSignedFor, readRoot, toBytes } from "./metadata.ts";
import type { Root } from "./metadata.ts";
import { refusePrivateKeys } from "./private-keys.ts";
import { STEPS, listOwn, reach, sizeOf } from "./reach.ts";
import type { Reached, Step } from "./reach.ts";
import { closeWork, openWork } from "./repository.ts";
import type { View } from "./repository.ts";

export interface OrderedFile {
  /** In the repository. */
  readonly path: string;
  readonly step: Step;
  /** Bytes. */
  readonly size: number;
}

/**
 * Everything that a reader needs, in the order in which it must be copied.
 *
 * @param destination root that its readers have; without it the one before the newest
 * @throws EdgeSyncError as `reach`
 */
export async function orderedFiles(
  repository: View,
  destination: Root | undefined,
  signal: AbortSignal,
): Promise<readonly OrderedFile[]> {
  const { path, root, snapshot } = repository;
  const reached: Reached = new Map();
  const meta = new Map(Object.entries(snapshot.signed.meta));
  await reach(path, { version: snapshot.signed.version, meta }, true, reached, signal);
  const before = destination ?? (await rootBefore(repository));
  const roots = Array.from({ length: root.signed.version }, (_, at) => `${at + 1}.root.json`);
  const late = before !== undefined && isGoodFor(repository, before);
  const last = ["timestamp.json"];
  if (late) last.push(...roots.splice(before.version));
  for (const name of roots) reached.set(`metadata/${name}`, "metadata");
  const files: OrderedFile[] = [];
  for (const [name, step] of [
    ...reached,
    ...last.map((name) => [`metadata/${name}`, "timestamp"] as const),
  ]) {
    const size = await sizeOf(join(path, name));
    if (size === undefined) throw new EdgeSyncError("REPOSITORY_INVALID", `${path} lacks ${name}`);
    files.push({ path: name, step, size });
  }
  return files.toSorted((a, b) => rank(a) - rank(b));
}

/** Within metadata what is delegated comes first, then what delegates, then the list of both, then roots. */
function rank({ path, step }: OrderedFile): number {
  const within =
    step !== "metadata"
      ? 0
      : /\/\d+\.targets\.json$/.test(path)
        ? 1
        : /\/\d+\.snapshot\.json$/.test(path)
          ? 2
          : /\/\d+\.root\.json$/.test(path)
            ? 3
            : 0;
  return STEPS.indexOf(step) * 10 + within;
}

async function rootBefore({ path, root }: View): Promise<Root | undefined> {
  const { version } = root.signed;
  if (version === 1) return undefined;
  const bytes = await readIfExists(join(path, "metadata", `${version - 1}.root.json`));
  return bytes === undefined ? undefined : readRoot(bytes).signed;
}

/**
 * Whether readers that have an older root can read what is published, and those with the newest could not read what is there now: then
 * the newest root comes after the timestamp, which both sets of keys have signed.
 */
function isGoodFor(repository: View, old: Root): boolean {
  const { signed } = repository.root;
  const roles = ["timestamp", "snapshot", "targets"] as const;
  const changed = roles.some(
    (role) => String(old.roles[role].keyids) !== String(signed.roles[role].keyids),
  );
  return (
    changed &&
    roles.every((role) => isSignedFor(role, toBytes(repository[role]), old.keys, old.roles[role]))
  );
}

export interface Synced {
  readonly copied: number;
  readonly copiedBytes: number;
  /** Files that were there already. */
  readonly same: number;
  readonly deleted: readonly GarbageFile[];
  /** Files that are to be deleted when readers have had time enough. */
  readonly doomed: number;
}

/** Where it is noted since when files of the destination have not been in the repository. Not served. */
const RECORD = ".edgesync-sync.json";

/**
 * @param keys folder that must not be in the destination, nor the other way round
 * @param deletion undefined to delete nothing
 * @throws EdgeSyncError REPOSITORY_UNSAFE, REPOSITORY_INVALID when the destination is of another repository or newer, DIGEST_MISMATCH,
 * and as the disk
 */
export async function syncRepository(
  repository: View,
  destination: string,
  deletion: { readonly now: number; readonly graceMs: number } | undefined,
  signal: AbortSignal,
): Promise<Synced> {
  await refuseNoFolder(destination, "a folder to copy to, which may be new");
  refuseNested(repository.path, destination);
  await makeFolder(destination);
  const there = await refuseOther(repository, destination);
  const files = await orderedFiles(repository, there, signal);
  const temporary = await openWork(destination);
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => closeWork(destination));
  // The first time it may be any folder, and what is in it will be served.
  if (there === undefined) await refusePrivateKeys(destination, signal);
  let [copied, copiedBytes] = [0, 0];
  for (const file of files) {
    signal.throwIfAborted();
    if (await isThere(repository.path, destination, file)) continue;
    await copy(repository.path, destination, file, temporary());
    copied++;
    copiedBytes += file.size;
  }
  const same = files.length - copied;
  if (deletion === undefined) return { copied, copiedBytes, same, deleted: [], doomed: 0 };
  const deleted = await deleteOthers(repository.path, destination, deletion, temporary, signal);
  return { copied, copiedBytes, same, ...deleted };
}

/** @throws EdgeSyncError REPOSITORY_UNSAFE */
function refuseNested(source: string, destination: string): void {
  const way = (from: string, to: string): boolean => {
    const path = relative(resolve(from), resolve(to));
    return path === "" || (path !== ".." && !path.startsWith(`..${sep}`));
  };
  if (way(source, destination) || way(destination, source))
    throw new EdgeSyncError(
      "REPOSITORY_UNSAFE",
      `${source} and ${destination} lie in each other; expected a folder apart`,
    );
}

/** @returns the newest root that the destination has */
async function refuseOther(
  { path, timestamp, root }: View,
  destination: string,
): Promise<Root | undefined> {
  const first = await readIfExists(join(destination, "metadata", "1.root.json"));
  if (first === undefined) return undefined;
  if (!first.equals((await readIfExists(join(path, "metadata", "1.root.json"))) ?? Buffer.of()))
    throw new EdgeSyncError(
      "REPOSITORY_INVALID",
      `${destination} holds another repository, with another first root`,
    );
  let newest = readRoot(first).signed;
  for (;;) {
    const name = `${newest.version + 1}.root.json`;
    const bytes = await readIfExists(join(destination, "metadata", name));
    if (bytes === undefined) break;
    parseRoot(bytes);
    newest = readRoot(bytes).signed;
  }
  const shown = await readIfExists(join(destination, "metadata", "timestamp.json"));
  const version = shown === undefined ? 0 : parseTimestamp(shown).signed.version;
  // Numbers begin anew only when keys are withdrawn, and then with a newer root.
  if (
    newest.version > root.signed.version ||
    (version > timestamp.signed.version && newest.version === root.signed.version)
  )
    throw new EdgeSyncError(
      "REPOSITORY_INVALID",
      `${destination} is newer (timestamp ${version}) than ${path} (timestamp ${timestamp.signed.version}); sites would refuse to go back`,
    );
  return newest;
}

/** Blobs and targets bear their digest in their name; metadata is small and compared. */
async function isThere(
  source: string,
  destination: string,
  { path, step, size }: OrderedFile,
): Promise<boolean> {
  if ((await sizeOf(join(destination, path))) !== size) return false;
  if (step === "blobs" || step === "targets") return true;
  const [mine, its] = await Promise.all([
    readIfExists(join(source, path)),
    readIfExists(join(destination, path)),
  ]);
  return mine !== undefined && its !== undefined && mine.equals(its);
}

async function copy(
  source: string,
  destination: string,
  { path, size }: OrderedFile,
  temporary: string,
): Promise<void> {
  const spooled = await spool(temporary, readRange(join(source, path), 0, size));
  const digest = /(?:^blobs\/sha256\/|\/)([0-9a-f]{64})(?:\.[^/]+)?$/.exec(path)?.[1];
  // What is damaged here must not be spread.
  if (digest !== undefined && spooled.sha256 !== digest)
    throw new EdgeSyncError("DIGEST_MISMATCH", `${path} does not have the digest in its name`);
  await place(spooled.path, join(destination, path));
}

/** What is not in the repository any more, once it has not been for a while: readers may be on their way to it. */
async function deleteOthers(
  source: string,
  destination: string,
  { now, graceMs }: { readonly now: number; readonly graceMs: number },
  temporary: () => string,
  signal: AbortSignal,
): Promise<Pick<Synced, "deleted" | "doomed">> {
  const { own: mine } = await listOwn(source, signal);
  const { own: its } = await listOwn(destination, signal);
  const known = await readRecord(destination);
  const gone = [...its]
    .filter(([path]) => !mine.has(path) && !/^metadata\/(\d+\.root|timestamp)\.json$/.test(path))
    .map(([path, size]) => ({ path, size, since: Math.min(known.get(path) ?? now, now) }));
  const old = gone.filter(({ since }) => now - since >= graceMs);
  const rest = gone.filter((file) => !old.includes(file));
  const record = Object.fromEntries(rest.map(({ path, since }) => [path, since]));
  const text = Buffer.from(`${JSON.stringify({ missing: record })}\n`);
  await place((await spool(temporary(), [text])).path, join(destination, RECORD));
  await removeGarbage(destination, inOrder(old), signal);
  return { deleted: old.map(({ path, size }) => ({ path, size })), doomed: rest.length };
}

async function readRecord(destination: string): Promise<ReadonlyMap<string, number>> {
  const bytes = await readIfExists(join(destination, RECORD));
  if (bytes === undefined) return new Map();
  try {
    const { missing }: { missing: Record<string, number> } = JSON.parse(bytes.toString());
    return new Map(Object.entries(missing).filter(([, since]) => Number.isFinite(since)));
  } catch {
    // Not one of ours: readers get their time once more.
    return new Map();
  }
}
