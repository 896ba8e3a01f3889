/**
 * What a client can come to from a snapshot: its roles, their targets, and the blobs of their releases. What garbage collection keeps and
 * what a copy of the repository needs is this and nothing else.
 */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { EdgeSyncError } from "#core/errors.ts";
import { blobPath } from "#core/release.ts";
import { matches, parseTargets } from "#core/trust/metadata.ts";
import type { TargetFile } from "#core/trust/metadata.ts";
import { errnoOf, readIfExists } from "./files.ts";
import { blobsOf } from "./release-files.ts";
import { targetLocation } from "./repository.ts";

/** In the order in which a reader must find them: what refers to a file comes after it. */
export const STEPS = ["blobs", "targets", "metadata", "timestamp"] as const;
export type Step = (typeof STEPS)[number];

/** Files by their path in the repository. */
export type Reached = Map<string, Step>;

/** What a snapshot lists, such as a parsed one. */
export interface Meta {
  readonly version: number;
  readonly meta: ReadonlyMap<string, { readonly version: number }>;
}

/**
 * Adds what a snapshot leads to, itself too.
 *
 * @param complete whether it is an error when something is missing; what an old snapshot lists may have been removed
 * @throws EdgeSyncError REPOSITORY_INVALID, METADATA_INVALID, RELEASE_INVALID, DIGEST_MISMATCH
 */
export async function reach(
  root: string,
  snapshot: Meta,
  complete: boolean,
  reached: Reached,
  signal: AbortSignal,
): Promise<void> {
  reached.set(`metadata/${snapshot.version}.snapshot.json`, "metadata");
  for (const [file, { version }] of snapshot.meta) {
    const path = `metadata/${version}.${file}`;
    // Reached from a newer snapshot too, and complete from there.
    if (reached.has(path)) continue;
    signal.throwIfAborted();
    const bytes = await readIfExists(join(root, path));
    if (bytes === undefined) {
      if (complete) throw missing(root, path);
      continue;
    }
    reached.set(path, "metadata");
    const { signed } = parseTargets(bytes, file.replace(/\.json$/, ""));
    for (const [name, target] of signed.targets)
      await reachTarget(root, name, target, complete, reached, signal);
  }
}

async function reachTarget(
  root: string,
  name: string,
  target: TargetFile,
  complete: boolean,
  reached: Reached,
  signal: AbortSignal,
): Promise<void> {
  const path = targetLocation(name, target.hashes["sha256"] ?? "");
  if (reached.has(path)) return;
  signal.throwIfAborted();
  const bytes = await readIfExists(join(root, path));
  if (bytes === undefined || !matches(bytes, target)) {
    if (complete && bytes !== undefined)
      throw new EdgeSyncError("DIGEST_MISMATCH", `${path} does not have its signed digest`);
    if (complete) throw missing(root, path);
    return;
  }
  reached.set(path, "targets");
  if (!name.startsWith("releases/")) return;
  try {
    for await (const sha256 of blobsOf(root, bytes, signal)) reached.set(blobPath(sha256), "blobs");
  } catch (error) {
    if (complete || !(error instanceof EdgeSyncError)) throw error;
    // Of an old release that is partly gone: what is known to belong to it stays.
  }
}

function missing(root: string, path: string): EdgeSyncError {
  return new EdgeSyncError("REPOSITORY_INVALID", `${root} lacks ${path}`);
}

/** Files in the places of a repository that have the form of ours, with their sizes; anything else is somebody else's. */
export async function listOwn(
  root: string,
  signal: AbortSignal,
): Promise<{ readonly own: ReadonlyMap<string, number>; readonly others: readonly string[] }> {
  const own = new Map<string, number>();
  const others: string[] = [];
  for (const folder of ["blobs", "targets", "metadata"])
    for (const path of await filesBelow(root, folder)) {
      signal.throwIfAborted();
      if (!isOwn(path)) others.push(path);
      else {
        const size = await sizeOf(join(root, path));
        if (size !== undefined) own.set(path, size);
      }
    }
  return { own, others };
}

function isOwn(path: string): boolean {
  return (
    /^blobs\/sha256\/[0-9a-f]{64}$/.test(path) ||
    /^targets\/([^/]+\/)*[0-9a-f]{64}\.[^/]+$/.test(path) ||
    /^metadata\/(\d{1,16}\.[^/]+|timestamp)\.json$/.test(path)
  );
}

async function filesBelow(root: string, folder: string): Promise<readonly string[]> {
  try {
    const entries = await readdir(join(root, folder), { recursive: true, withFileTypes: true });
    return entries
      .filter((entry) => !entry.isDirectory())
      .map((entry) => join(entry.parentPath, entry.name).slice(join(root, "x").length - 1));
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
}

/** Undefined when there is no such file. */
export async function sizeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}
