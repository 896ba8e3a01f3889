/**
 * Garbage collection: removes files that nothing published leads to, and that nothing did for a while. A site that read the snapshot
 * before the newest one may still be fetching what that one led to; it has that while to finish.
 */
import { readdir, rm, rmdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { EdgeSyncError } from "#core/errors.ts";
import { parseSnapshot } from "#core/trust/metadata.ts";
import { errnoOf, readIfExists } from "./files.ts";
import { listOwn, reach } from "./reach.ts";
import type { Meta, Reached } from "./reach.ts";
import type { View } from "./repository.ts";

export interface GarbageFile {
  readonly path: string;
  /** Bytes. */
  readonly size: number;
}

export interface Garbage {
  /** What is to go, in the order in which it goes. */
  readonly files: readonly GarbageFile[];
  readonly bytes: number;
  readonly kept: { readonly files: number; readonly bytes: number };
  /** Versions of snapshots that somebody may still be reading. */
  readonly snapshots: readonly number[];
  /** Paths that are not of a repository; they stay. */
  readonly others: readonly string[];
}

/**
 * @param now milliseconds since the epoch
 * @param graceMs for how long what a snapshot led to stays after the snapshot was replaced
 * @throws EdgeSyncError as `reach`, when what is published is not complete
 */
export async function findGarbage(
  repository: View,
  now: number,
  graceMs: number,
  signal: AbortSignal,
): Promise<Garbage> {
  const { path } = repository;
  const { signed } = repository.snapshot;
  const current = { version: signed.version, meta: new Map(Object.entries(signed.meta)) };
  const reached: Reached = new Map([["metadata/timestamp.json", "timestamp"]]);
  await reach(path, current, true, reached, signal);
  const previous = await listSnapshots(path, signed.version);
  const newest = { version: signed.version, issued: issuedOf(repository) };
  const inUse = inGrace(previous, newest, now - graceMs);
  for (const snapshot of inUse) await reach(path, snapshot, false, reached, signal);
  const { own, others } = await listOwn(path, signal);
  const files: GarbageFile[] = [];
  const kept = { files: 0, bytes: 0 };
  for (const [name, size] of own) {
    // Every root for ever: a site that was away for years goes through all of them.
    if (reached.has(name) || /^metadata\/\d+\.root\.json$/.test(name)) {
      kept.files++;
      kept.bytes += size;
    } else files.push({ path: name, size });
  }
  return {
    files: inOrder(files),
    bytes: files.reduce((sum, { size }) => sum + size, 0),
    kept,
    snapshots: inUse.map(({ version }) => version),
    others,
  };
}

/** What refers to others goes first: a run that is cut short leaves nothing that leads to what is gone. */
export function inOrder<T extends GarbageFile>(files: readonly T[]): readonly T[] {
  return files.toSorted((a, b) => rank(a.path) - rank(b.path) || (a.path < b.path ? -1 : 1));
}

function rank(path: string): number {
  if (path.endsWith(".snapshot.json")) return 0;
  return path.startsWith("metadata/") ? 1 : path.startsWith("targets/") ? 2 : 3;
}

interface Dated extends Meta {
  /** Milliseconds since the epoch; -Infinity where it is not told. */
  readonly issued: number;
}

function issuedOf({ snapshot }: View): number {
  // One that does not tell may have been signed just now.
  return timeOf(snapshot.signed["x-edgesync-issued"], Number.POSITIVE_INFINITY);
}

function timeOf(input: unknown, otherwise: number): number {
  const time = typeof input === "string" ? Date.parse(input) : Number.NaN;
  return Number.isNaN(time) ? otherwise : time;
}

/** Snapshots other than the current one, as they lie there; one that cannot be read leads nowhere. */
async function listSnapshots(root: string, current: number): Promise<readonly Dated[]> {
  const found: Dated[] = [];
  for (const name of await readdir(join(root, "metadata"))) {
    const version = /^(\d{1,16})\.snapshot\.json$/.exec(name)?.[1];
    if (version === undefined || Number(version) === current) continue;
    const bytes = await readIfExists(join(root, "metadata", name));
    if (bytes === undefined) continue;
    try {
      const { signed } = parseSnapshot(bytes);
      const { signed: plain }: { signed: Record<string, unknown> } = JSON.parse(bytes.toString());
      found.push({
        version: signed.version,
        meta: signed.meta,
        issued: timeOf(plain["x-edgesync-issued"], Number.NEGATIVE_INFINITY),
      });
    } catch (error) {
      if (!(error instanceof EdgeSyncError)) throw error;
    }
  }
  return found;
}

/**
 * Those that were replaced after a time. One of a higher version that was signed later than the current one was never published; a
 * higher version alone may be from before the numbers began anew.
 */
function inGrace(
  previous: readonly Dated[],
  current: { readonly version: number; readonly issued: number },
  since: number,
): readonly Dated[] {
  const published = previous.filter(
    ({ version, issued }) => version < current.version || issued <= current.issued,
  );
  const found: Dated[] = [];
  let replaced = current.issued;
  for (const snapshot of published.toSorted(
    (a, b) => b.issued - a.issued || b.version - a.version,
  )) {
    // Publishers' clocks differ: none is replaced before it is signed.
    replaced = Math.max(replaced, snapshot.issued);
    if (replaced > since) found.push(snapshot);
    replaced = snapshot.issued;
  }
  return found;
}

/** The lock must be held. Whatever it is cut short at, the next run goes on. */
export async function removeGarbage(
  root: string,
  files: readonly GarbageFile[],
  signal: AbortSignal,
): Promise<void> {
  for (const { path } of files) {
    signal.throwIfAborted();
    await rm(join(root, path), { force: true });
    if (path.startsWith("targets/")) await removeEmpty(root, dirname(path));
  }
}

async function removeEmpty(root: string, folder: string): Promise<void> {
  if (folder === "targets" || folder === ".") return;
  try {
    await rmdir(join(root, folder));
  } catch (error) {
    if (["ENOTEMPTY", "EEXIST", "ENOENT"].includes(errnoOf(error) ?? "")) return;
    throw error;
  }
  await removeEmpty(root, dirname(folder));
}
