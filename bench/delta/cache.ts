/** Where the bench keeps what it has downloaded or made: an ignored folder, safe to delete at any time. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { access, mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";

const ROOT = resolve(import.meta.dirname, "../../.cache/bench");

/** A folder in the cache, made when it is not there. */
export async function cacheFolder(...names: readonly string[]): Promise<string> {
  const folder = join(ROOT, ...names);
  await mkdir(folder, { recursive: true });
  return folder;
}

export async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch {
    return false;
  }
}

export async function sha256Of(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 }))
    hash.update(chunk as Buffer);
  return hash.digest("hex");
}
