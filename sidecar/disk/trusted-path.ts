/** Paths that nobody but root and one user can make mean something else, whatever folders and links they lead through. */
import { lstat, readlink, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { errnoOf } from "./durable.ts";

export type TrustedPath =
  /** The file that was looked at: without links, so that whoever uses it uses the same. */
  | { readonly path: string }
  /** Why the path is not to be trusted; `absent` where nothing is there. */
  | { readonly problem: string; readonly absent?: true };

/** As many as the kernel follows; see path_resolution(7). */
const LINKS_LIMIT = 40;

/**
 * Follows a path to a file, as the kernel would, and looks at each folder and link on the way before what is in it counts.
 *
 * @param owner uid that all of it may belong to, besides root's
 * @param never folders through which the path must not lead, by whatever name
 */
export async function trustedPath(
  written: string,
  owner: number,
  never: readonly string[] = [],
): Promise<TrustedPath> {
  try {
    return await follow(written, owner, await identitiesOf(never));
  } catch (error) {
    const problem = error instanceof Error ? error.message : `${written} cannot be looked at`;
    const isAbsent = ["ENOENT", "ENOTDIR"].includes(errnoOf(error) ?? "");
    return { problem, ...(isAbsent && { absent: true }) };
  }
}

async function follow(
  written: string,
  owner: number,
  never: ReadonlySet<string>,
): Promise<TrustedPath> {
  const full = written.startsWith("/") ? written : `${resolve(".")}/${written}`;
  // The last is the next one to look at.
  const ahead = full.split("/").toReversed();
  let at = "/";
  let isFile = false;
  let links = 0;
  for (let part: string | undefined = ""; part !== undefined; part = ahead.pop()) {
    if (part === "..") {
      at = dirname(at);
      isFile = false;
    }
    if (part === "." || part === ".." || (part === "" && at !== "/")) continue;
    const path = join(at, part);
    const stats = await lstat(path, { bigint: true });
    const isSticky = stats.isDirectory() && (stats.mode & 0o1000n) !== 0n;
    if (stats.uid !== 0n && stats.uid !== BigInt(owner))
      return { problem: `${path} does not belong to root` };
    if (never.has(`${stats.dev}:${stats.ino}`))
      return { problem: `${written} leads through ${path}, whose contents are not the machine's` };
    if (stats.isSymbolicLink()) {
      if (++links > LINKS_LIMIT) return { problem: `${written} leads through too many links` };
      const target = await readlink(path);
      if (target.startsWith("/")) at = "/";
      ahead.push(...target.split("/").toReversed());
      continue;
    }
    // In a sticky folder only the owner of a thing can replace it; a file is written as its other bits say.
    if ((stats.mode & 0o022n) !== 0n && !isSticky)
      return { problem: `${path} can be written by others` };
    isFile = stats.isFile();
    at = path;
  }
  return isFile ? { path: at } : { problem: `${written} is not a file` };
}

/** Of what is there: nothing can lead through the others. */
async function identitiesOf(folders: readonly string[]): Promise<ReadonlySet<string>> {
  const found = new Set<string>();
  for (const folder of folders) {
    try {
      const { dev, ino } = await stat(folder, { bigint: true });
      found.add(`${dev}:${ino}`);
    } catch (error) {
      if (!["ENOENT", "ENOTDIR"].includes(errnoOf(error) ?? "")) throw error;
    }
  }
  return found;
}
