/** Files that prove who somebody is, such as a token or a key, and that others put where they are. */
import { readFile, stat } from "node:fs/promises";

/** Bytes. Kubernetes' tokens have about one kilobyte, a certificate with those of its authorities a few. */
const LIMIT = 65_536;

/** @throws Error of the file system, or one that says what the file is instead */
export async function readProof(path: string): Promise<string> {
  const found = await stat(path);
  // Of a pipe or a device nobody knows when it ends: to read it could take for ever, or all memory.
  if (!found.isFile()) throw new TypeError("not a regular file");
  if (found.size > LIMIT) throw new RangeError(`${found.size} bytes`);
  return await readFile(path, "utf8");
}
