/**
 * The set of secret files as the application sees it: `<secrets-dir>/set/<file>`, a link through `..data` to the version that
 * holds now. One rename swaps all files at once, as the kubelet does for its own volumes.
 */
import * as promises from "node:fs/promises";
import { join } from "node:path";
import { EdgeSyncError } from "#core/errors.ts";
import { errnoOf } from "../disk/durable.ts";

export interface SecretFile {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly mode: number;
}

export interface Publication {
  /**
   * Makes these files the whole set, all at once, and says whether anything changed. The version before stays on disk for
   * readers that have found it already, until `tidy` or the next version.
   *
   * @throws EdgeSyncError DISK_FULL or DISK_FAILED, with the set as it was
   */
  publish(files: readonly SecretFile[]): Promise<boolean>;
  /** Removes what no link leads to. */
  tidy(): Promise<void>;
  /** Whether there was a set when this was opened: the next one is then a rotation. */
  readonly wasPublished: boolean;
}

/** What is asked of the file system; tests let each call fail in its turn. */
export type FileSystem = Pick<
  typeof promises,
  "chmod" | "lstat" | "mkdir" | "open" | "readFile" | "readdir" | "readlink" | "rename" | "rm"
> &
  Pick<typeof promises, "symlink">;

const DATA = "..data";
const DATA_NEXT = "..data_next";
const VERSION = /^\.\.(\d+)$/;

/**
 * Opens the set below `folder`, which has been found to be in memory; makes its directory and removes what an earlier process left
 * unfinished.
 *
 * @throws EdgeSyncError DISK_FULL or DISK_FAILED
 */
export async function openPublication(
  folder: string,
  fs: FileSystem = promises,
): Promise<Publication> {
  // Not the volume's root: that is sticky and root's, and a link in it would not be followed for another user.
  const set = join(folder, "set");
  const inMemory = <T>(work: () => Promise<T>): Promise<T> => guarded(folder, work);

  const current = async (): Promise<string | undefined> => {
    try {
      return await fs.readlink(join(set, DATA));
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return undefined;
      throw error;
    }
  };
  const removeStale = async (): Promise<void> => {
    const kept = await current();
    for (const name of await fs.readdir(set))
      if (name === DATA_NEXT || (VERSION.test(name) && name !== kept))
        await fs.rm(join(set, name), { recursive: true, force: true });
  };
  const nextVersion = async (): Promise<string> => {
    const numbers = (await fs.readdir(set)).map((name) => Number(VERSION.exec(name)?.[1] ?? 0));
    return `..${Math.max(0, ...numbers) + 1}`;
  };
  const writeVersion = async (path: string, files: readonly SecretFile[]): Promise<void> => {
    await ensureDirectory(path, 0o755, fs);
    for (const { name, bytes, mode } of files) {
      await using file = await fs.open(join(path, name), "wx", 0o600);
      await file.writeFile(bytes);
      await file.chmod(mode);
    }
  };
  const addLinks = async (files: readonly SecretFile[]): Promise<void> => {
    const present = new Set(await fs.readdir(set));
    for (const { name } of files)
      if (!present.has(name)) await fs.symlink(join(DATA, name), join(set, name));
  };
  /** Those of secrets that are no longer declared. */
  const removeLinks = async (files: readonly SecretFile[]): Promise<void> => {
    const wanted = new Set(files.map((file) => file.name));
    for (const name of await fs.readdir(set))
      if (!name.startsWith("..") && !wanted.has(name))
        await fs.rm(join(set, name), { force: true });
  };
  /** Whether the set already is these files, with these contents, modes and links. */
  const isPublished = async (files: readonly SecretFile[]): Promise<boolean> => {
    try {
      const inside = await fs.readdir(join(set, DATA));
      const links = (await fs.readdir(set)).filter((name) => !name.startsWith(".."));
      if (inside.length !== files.length || links.length !== files.length) return false;
      for (const { name, bytes, mode } of files) {
        const path = join(set, DATA, name);
        const found = await fs.lstat(path);
        if ((found.mode & 0o7777) !== mode || found.size !== bytes.byteLength) return false;
        if (!(await fs.readFile(path)).equals(bytes)) return false;
        if ((await fs.readlink(join(set, name))) !== join(DATA, name)) return false;
      }
      return true;
    } catch (error) {
      if (["ENOENT", "EINVAL"].includes(errnoOf(error) ?? "")) return false;
      throw error;
    }
  };

  const wasPublished = await inMemory(async () => {
    await ensureDirectory(set, 0o755, fs);
    await removeStale();
    return (await current()) !== undefined;
  });

  return {
    wasPublished,
    publish: (files) =>
      inMemory(async () => {
        if (await isPublished(files)) return false;
        await removeStale();
        const version = await nextVersion();
        await using cleanup = new AsyncDisposableStack();
        cleanup.defer(() => fs.rm(join(set, version), { recursive: true, force: true }));
        await writeVersion(join(set, version), files);
        // Before the swap, so that what may fail for want of room fails with the old set in place; until then a new link leads
        // nowhere.
        await addLinks(files);
        await fs.symlink(version, join(set, DATA_NEXT));
        await fs.rename(join(set, DATA_NEXT), join(set, DATA));
        // From here on it is what readers see: it must stay.
        cleanup.move();
        await removeLinks(files);
        return true;
      }),
    tidy: () => inMemory(removeStale),
  };
}

/** Makes a directory of exactly this mode, whatever the umask is. */
export async function ensureDirectory(
  path: string,
  mode: number,
  fs: Pick<FileSystem, "chmod" | "mkdir"> = promises,
): Promise<void> {
  await fs.mkdir(path, { recursive: true, mode });
  await fs.chmod(path, mode);
}

/** Runs `work`, and names what the file system refused. Its own messages hold paths and never contents. */
export async function guarded<T>(folder: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (cause instanceof EdgeSyncError) throw cause;
    const reason = errnoOf(cause);
    if (reason === "ENOSPC" || reason === "EDQUOT")
      throw new EdgeSyncError("DISK_FULL", `${folder} has no room left for the secrets`, { cause });
    throw new EdgeSyncError("DISK_FAILED", `${folder} cannot be written`, { cause });
  }
}
