/** Finds private keys where none may be: in a folder that is served. */
import { hash } from "node:crypto";
import type { Stats } from "node:fs";
import { readdir, realpath, stat } from "node:fs/promises";
import { join } from "node:path";
import { EdgeSyncError } from "#core/errors.ts";
import { isPrivateDer } from "./der.ts";
import { diskError, digestOf, errnoOf, readIfExists, readRange } from "./files.ts";
import type { Source } from "./tree.ts";

/**
 * A PEM block of any kind of private key (RFC 7468, and OpenSSL's and OpenSSH's spellings). The line of base64 after it tells a
 * key from a program that only knows the marker.
 */
const MARKER =
  /-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY-----\s{1,2}((Proc-Type|DEK-Info): [^\n]{1,200}\s{1,2})*\s{0,2}[A-Za-z0-9+/=]{32}/;
/** More than a match can be long, so that none is missed between two reads. */
const OVERLAP = 1024;
const BLOB = /^blobs\/sha256\/([0-9a-f]{64})$/;

/**
 * Paths of files that hold a private key: dot-files too, and what is behind symlinks, since most web servers follow them.
 *
 * @param root folder that is served
 */
export async function findPrivateKeys(
  root: string,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const found: string[] = [];
  /** Real paths; a symlink may lead back. */
  const visited = new Set<string>();
  const visit = async (folder: string): Promise<void> => {
    const real = await realpath(join(root, folder));
    if (visited.has(real)) return;
    visited.add(real);
    for (const entry of await readdir(real, { withFileTypes: true })) {
      signal.throwIfAborted();
      const path = folder === "" ? entry.name : `${folder}/${entry.name}`;
      const kind = entry.isSymbolicLink() ? await kindOf(join(root, path)) : entry;
      if (kind?.isDirectory() === true) await visit(path);
      else if (
        kind?.isFile() === true &&
        !(await isPayload(root, path)) &&
        (await holdsKey(join(root, path)))
      )
        found.push(path);
    }
  };
  await visit("");
  return found.toSorted();
}

/** Whether it is content of releases, which was meant to be published: not everything that only has the name of a blob is one. */
async function isPayload(root: string, path: string): Promise<boolean> {
  const [, digest] = BLOB.exec(path) ?? [];
  if (digest === undefined) return false;
  const file = join(root, path);
  try {
    return (await digestOf(readRange(file, 0, (await stat(file)).size))).sha256 === digest;
  } catch (error) {
    // Removed meanwhile.
    if (errnoOf(error) === "ENOENT") return false;
    throw error;
  }
}

async function holdsKey(path: string): Promise<boolean> {
  try {
    const { size } = await stat(path);
    let tail = "";
    for await (const chunk of readRange(path, 0, size)) {
      // No key in binary form is longer than one read.
      if (chunk.length === size && isPrivateDer(chunk)) return true;
      const text = tail + Buffer.from(chunk).toString("latin1");
      if (MARKER.test(text)) return true;
      tail = text.slice(-OVERLAP);
    }
    return false;
  } catch (error) {
    // A temporary file that has got its name meanwhile.
    if (errnoOf(error) === "ENOENT") return false;
    throw error;
  }
}

/** What a symlink leads to; `undefined` when that is nothing. */
async function kindOf(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ELOOP") return undefined;
    throw error;
  }
}

/** @throws EdgeSyncError REPOSITORY_UNSAFE */
export async function refusePrivateKeys(root: string, signal: AbortSignal): Promise<void> {
  const found = await findPrivateKeys(root, signal);
  if (found.length > 0)
    throw new EdgeSyncError(
      "REPOSITORY_UNSAFE",
      `${root} holds a private key: ${found.join(", ")}`,
    );
}

/**
 * Refuses to publish a key of the keyring in use, wherever the tree holds a copy of it.
 *
 * @param keys folder of private keys
 * @throws EdgeSyncError TREE_INVALID
 */
export async function refuseKeysInTree(sources: readonly Source[], keys: string): Promise<void> {
  const names = await readdir(keys).catch((error: unknown) => {
    if (errnoOf(error) === "ENOENT") return [];
    throw diskError(error, keys);
  });
  const digests = new Map<string, string>();
  for (const name of names.filter((item) => item.endsWith(".pem"))) {
    const path = join(keys, name);
    if (!(await stat(path).catch(() => undefined))?.isFile() || !(await holdsKey(path))) continue;
    const bytes = await readIfExists(path);
    if (bytes !== undefined) digests.set(hash("sha256", bytes), name);
  }
  const found = sources.flatMap(({ path, sha256 }) => {
    const name = digests.get(sha256);
    return name === undefined ? [] : [`${path} is the private key ${name} of ${keys}`];
  });
  if (found.length > 0) throw new EdgeSyncError("TREE_INVALID", found.join("; "));
}
