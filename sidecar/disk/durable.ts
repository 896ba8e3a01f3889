/**
 * Everything that this program does to a disk goes through a {@link Disk}, so that there is one place where errors get their codes
 * and where a test can make each single operation fail or be the last. Above it are the two ways in which something may replace
 * something else: {@link replaceFile} and {@link swapLink}. After either, a power cut leaves the old or the new, never a mixture.
 */
import { constants } from "node:fs";
import {
  chmod,
  link,
  lstat,
  mkdir,
  open,
  readdir,
  readlink,
  rename,
  rm,
  statfs,
  symlink,
  truncate,
} from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import type { Hash } from "node:crypto";
import { dirname } from "node:path";
import { EdgeSyncError } from "#core/errors.ts";

/** Every operation throws EdgeSyncError DISK_FULL or DISK_FAILED; what is said to be absent is no error. */
export interface Disk {
  /** A regular file; DISK_FAILED for anything else. */
  openRead(path: string): Promise<ReadableFile | undefined>;
  /** A new file; it must not exist. */
  create(path: string, mode: number): Promise<WritableFile>;
  /** A file to go on with at its end; made if absent. */
  append(path: string, mode: number): Promise<WritableFile & { readonly size: number }>;
  /** Takes the end off a file. It is as durable as the next sync of that file. */
  truncate(path: string, size: number): Promise<void>;
  /** Of what is there; a symbolic link is followed. */
  chmod(path: string, mode: number): Promise<void>;
  /** Sets the mode whatever the umask is. An existing directory is left as it is. */
  makeDirectory(path: string, mode: number): Promise<void>;
  /** Makes what was created, renamed or removed in a directory survive a power cut. */
  syncDirectory(path: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** False where the file system or the kernel does not allow a link between the two. */
  link(existing: string, path: string): Promise<boolean>;
  symlink(target: string, path: string): Promise<void>;
  /** Undefined for what is no link, too. */
  readLink(path: string): Promise<string | undefined>;
  /** Absent is fine. */
  remove(path: string): Promise<void>;
  /** With all that is in it; absent is fine. */
  removeTree(path: string): Promise<void>;
  /** Names and kinds in a directory, in no order; empty when it is absent. */
  list(path: string): Promise<readonly Item[]>;
  /** Of the thing itself, not of what a link points to. */
  stat(path: string): Promise<Stat | undefined>;
  /** Bytes that this user may still write to the file system. */
  freeBytes(path: string): Promise<number>;
}

export interface Item {
  readonly name: string;
  readonly kind: Kind;
}
export type Kind = "file" | "directory" | "symlink" | "other";

export interface Stat {
  readonly kind: Kind;
  readonly size: number;
  /** Permission bits. */
  readonly mode: number;
  /** Bytes on disk. */
  readonly allocated: number;
  /** Equal for two names of one file. */
  readonly identity: string;
  /** When anything about it changed last: a number that is compared and nothing else. */
  readonly changed: string;
}

export interface ReadableFile extends AsyncDisposable {
  readonly size: number;
  /** Exactly `length` bytes. */
  read(position: number, length: number): Promise<Uint8Array>;
  /** Fills the bytes that are given. */
  readInto(bytes: Uint8Array, position: number): Promise<void>;
}

export interface WritableFile extends AsyncDisposable {
  /** Appends all of the bytes. */
  write(bytes: Uint8Array): Promise<void>;
  /** Sets the mode whatever the umask is. */
  chmod(mode: number): Promise<void>;
  /** After an error the file must be thrown away: the kernel reports a lost write only once (fsync(2)). */
  sync(): Promise<void>;
}

/** The real one. */
export const nodeDisk: Disk = {
  async openRead(path) {
    // Of a pipe the opening itself would wait for somebody to write; for a file the flag means nothing.
    const flags = constants.O_RDONLY | constants.O_NONBLOCK;
    const file = await guard(path, () => unlessAbsent(open(path, flags)));
    return file === undefined ? undefined : readable(path, file);
  },
  async create(path, mode) {
    return writable(path, await guard(path, () => open(path, "wx", mode)));
  },
  async append(path, mode) {
    const file = await guard(path, () => open(path, "a", mode));
    return { ...writable(path, file), ...(await sizeOf(path, file)) };
  },
  truncate: (path, size) => guard(path, () => truncate(path, size)),
  chmod: (path, mode) => guard(path, () => chmod(path, mode)),
  makeDirectory: (path, mode) =>
    guard(path, async () => {
      try {
        await mkdir(path, { mode });
      } catch (error) {
        if (errnoOf(error) === "EEXIST") return;
        throw error;
      }
      await chmod(path, mode);
    }),
  syncDirectory: (path) =>
    guard(path, async () => {
      await using directory = await open(path, "r");
      await directory.sync();
    }),
  rename: (from, to) => guard(to, () => rename(from, to)),
  link: (existing, path) =>
    guard(path, async () => {
      try {
        await link(existing, path);
        return true;
      } catch (error) {
        // Another device, a file of another owner under fs.protected_hardlinks, too many links, a file system without them.
        if (["EXDEV", "EPERM", "EMLINK", "ENOTSUP", "ENOSYS"].includes(errnoOf(error) ?? ""))
          return false;
        throw error;
      }
    }),
  symlink: (target, path) => guard(path, () => symlink(target, path)),
  readLink: (path) => guard(path, () => unless(readlink(path), "ENOENT", "ENOTDIR", "EINVAL")),
  remove: (path) => guard(path, () => rm(path, { force: true })),
  removeTree: (path) => guard(path, () => rm(path, { recursive: true, force: true })),
  list: (path) =>
    guard(path, async () => {
      const items = (await unlessAbsent(readdir(path, { withFileTypes: true }))) ?? [];
      return items.map((item) => ({ name: item.name, kind: kindOf(item) }));
    }),
  stat: (path) =>
    guard(path, async () => {
      const stats = await unlessAbsent(lstat(path, { bigint: true }));
      if (stats === undefined) return undefined;
      return {
        kind: kindOf(stats),
        size: Number(stats.size),
        mode: Number(stats.mode & 0o7777n),
        allocated: Number(stats.blocks) * 512,
        identity: `${stats.dev}:${stats.ino}`,
        changed: String(stats.ctimeNs),
      };
    }),
  freeBytes: (path) =>
    guard(path, async () => {
      const { bavail, bsize } = await statfs(path);
      return bavail * bsize;
    }),
};

/** Of an open file, which is closed when even that cannot be told. */
async function sizeOf(
  path: string,
  file: FileHandle,
): Promise<{ readonly size: number; readonly isFile: boolean }> {
  try {
    const stats = await guard(path, () => file.stat());
    return { size: stats.size, isFile: stats.isFile() };
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function readable(path: string, file: FileHandle): Promise<ReadableFile> {
  const { size, isFile } = await sizeOf(path, file);
  if (!isFile) {
    await file.close();
    throw new EdgeSyncError("DISK_FAILED", `${path} is not a regular file`);
  }
  const readInto = (bytes: Uint8Array, position: number): Promise<void> =>
    guard(path, async () => {
      let done = 0;
      while (done < bytes.length) {
        const rest = bytes.length - done;
        const { bytesRead } = await file.read(bytes, done, rest, position + done);
        if (bytesRead === 0)
          throw new EdgeSyncError("DISK_FAILED", `${path} became shorter than ${size} bytes`);
        done += bytesRead;
      }
    });
  return {
    size,
    readInto,
    async read(position, length) {
      const bytes = Buffer.allocUnsafe(length);
      await readInto(bytes, position);
      return bytes;
    },
    [Symbol.asyncDispose]: () => guard(path, () => file.close()),
  };
}

function writable(path: string, file: FileHandle): WritableFile {
  return {
    // writeFile on a handle goes on from where the file stands, and until all is written.
    write: (bytes) => guard(path, () => file.writeFile(bytes)),
    chmod: (mode) => guard(path, () => file.chmod(mode)),
    sync: () => guard(path, () => file.sync()),
    [Symbol.asyncDispose]: () => guard(path, () => file.close()),
  };
}

function kindOf(item: {
  isFile(): boolean;
  isDirectory(): boolean;
  isSymbolicLink(): boolean;
}): Kind {
  if (item.isFile()) return "file";
  if (item.isDirectory()) return "directory";
  return item.isSymbolicLink() ? "symlink" : "other";
}

/** Gives errors of the file system their codes. */
async function guard<T>(path: string, operation: () => Promise<T>): Promise<T> {
  try {
    return await operation();
  } catch (cause) {
    if (cause instanceof EdgeSyncError) throw cause;
    const errno = errnoOf(cause);
    if (errno === undefined) throw cause;
    const full = errno === "ENOSPC" || errno === "EDQUOT";
    throw new EdgeSyncError(full ? "DISK_FULL" : "DISK_FAILED", `${path}: ${errno}`, { cause });
  }
}

/** The name of a system error, such as `ENOSPC`; undefined for anything else. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("code" in error)) return undefined;
  return typeof error.code === "string" && error.code.startsWith("E") ? error.code : undefined;
}

function unlessAbsent<T>(promise: Promise<T>): Promise<T | undefined> {
  return unless(promise, "ENOENT", "ENOTDIR");
}

async function unless<T>(
  promise: Promise<T>,
  ...errnos: readonly string[]
): Promise<T | undefined> {
  try {
    return await promise;
  } catch (error) {
    if (errnos.includes(errnoOf(error) ?? "")) return undefined;
    throw error;
  }
}

/** Bytes read at a time. */
const CHUNK = 64 * 1024;

/**
 * A stretch of a file, in order.
 *
 * @param room where each chunk stands until the next is asked for; without it each has memory of its own, which the collector takes its
 * time over
 */
export async function* chunksOf(
  file: ReadableFile,
  offset: number,
  length: number,
  room?: Buffer,
): AsyncGenerator<Uint8Array, void, void> {
  const step = room?.length ?? CHUNK;
  for (let at = 0; at < length; at += step) {
    const chunk = room?.subarray(0, length - at) ?? Buffer.allocUnsafe(Math.min(step, length - at));
    await file.readInto(chunk, offset + at);
    yield chunk;
  }
}

/** Room for a chunk of a stretch. */
export function roomForChunk(length: number): Buffer {
  return Buffer.allocUnsafeSlow(Math.min(CHUNK, length));
}

/** Feeds a stretch of a file to a hash. All of it passes through one buffer: a large file leaves nothing to be collected. */
export async function hashStretch(
  file: ReadableFile,
  length: number,
  hash: Hash,
  signal: AbortSignal,
): Promise<void> {
  const buffer = Buffer.allocUnsafe(Math.min(CHUNK, length));
  for (let at = 0; at < length; at += CHUNK) {
    signal.throwIfAborted();
    const chunk = buffer.subarray(0, Math.min(CHUNK, length - at));
    await file.readInto(chunk, at);
    hash.update(chunk);
  }
}

/**
 * A small file whole; `undefined` when it is absent.
 *
 * @throws EdgeSyncError DISK_FAILED when it has more than `limit` bytes
 */
export async function readSmallFile(
  disk: Disk,
  path: string,
  limit: number,
): Promise<Uint8Array | undefined> {
  await using file = await disk.openRead(path);
  if (file === undefined) return undefined;
  if (file.size > limit)
    throw new EdgeSyncError("DISK_FAILED", `${path} has ${file.size} bytes, allowed are ${limit}`);
  return await file.read(0, file.size);
}

/** Puts a file in place of another, or of none. */
export async function replaceFile(disk: Disk, path: string, bytes: Uint8Array): Promise<void> {
  const temporary = `${path}.new`;
  // What an interrupted attempt left behind.
  await disk.remove(temporary);
  {
    await using file = await disk.create(temporary, 0o644);
    await file.write(bytes);
    await file.sync();
  }
  await disk.rename(temporary, path);
  // Without this the rename itself can be lost in a power cut; see fsync(2).
  await disk.syncDirectory(dirname(path));
}

/** Makes a symbolic link point to `target`, at one instant for every reader. */
export async function swapLink(disk: Disk, path: string, target: string): Promise<void> {
  if ((await disk.readLink(path)) !== target) {
    const temporary = `${path}.new`;
    await disk.remove(temporary);
    await disk.symlink(target, temporary);
    await disk.rename(temporary, path);
  }
  // Also when it was right: the swap may have been made just before a crash and not be on the disk yet.
  await disk.syncDirectory(dirname(path));
}
