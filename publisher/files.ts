/** Files that are whole or absent, whatever happens to the machine. */
import { createHash } from "node:crypto";
import { constants, readSync, writeSync } from "node:fs";
import { lstat, mkdir, open, rename, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { setImmediate } from "node:timers/promises";
import type { FileHandle } from "node:fs/promises";
import { EdgeSyncError } from "#core/errors.ts";
import type { RandomAccess } from "#core/delta/decoder.ts";

/** The code of a system error, such as `ENOENT`. */
export function errnoOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string"
    ? error.code
    : undefined;
}

/** What ordinary mistakes with paths look like to a file system. */
const MISTAKES: Readonly<Record<string, string>> = {
  ENOENT: "does not exist; expected a file or folder there",
  ENOTDIR: "is not a folder, or lies below a file; expected a folder",
  EEXIST: "exists; expected nothing, or a folder, there",
  EISDIR: "is a folder; expected a file",
  ENAMETOOLONG: "has a name that is too long; expected one that the file system allows",
  ELOOP: "is a symlink that leads back to itself; expected a file or folder",
};

/** The error to throw for one that a file system reported: DISK_FULL, DISK_FAILED, or anything else as it is. */
export function diskError(error: unknown, path: string): unknown {
  const code = errnoOf(error);
  if (code === "ENOSPC" || code === "EDQUOT")
    return new EdgeSyncError("DISK_FULL", `no room for ${path}`, { cause: error });
  if (code === "EIO" || code === "EROFS" || code === "EACCES" || code === "EPERM")
    return new EdgeSyncError("DISK_FAILED", `cannot use ${path} (${code})`, { cause: error });
  const mistake = code === undefined ? undefined : MISTAKES[code];
  if (mistake !== undefined)
    return new EdgeSyncError("DISK_FAILED", `${path} ${mistake}`, { cause: error });
  return error;
}

/** Makes the entries of a folder durable: a rename can be lost in a power cut without it, see fsync(2). */
export async function syncFolder(path: string): Promise<void> {
  await using folder = await open(path, "r");
  await folder.sync();
}

/** Makes a folder and those above it, durably. */
export async function makeFolder(path: string): Promise<void> {
  // Absolute: above "." there is only "." again.
  const whole = resolve(path);
  const first = await mkdir(whole, { recursive: true });
  if (first === undefined) return;
  for (let made = whole; made.length >= first.length; made = dirname(made))
    await syncFolder(dirname(made));
}

export interface Spooled {
  readonly path: string;
  readonly size: number;
  readonly sha256: string;
}

/** Writes a temporary file and tells its size and digest. */
export async function spool(
  path: string,
  content: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): Promise<Spooled> {
  const hash = createHash("sha256");
  let size = 0;
  try {
    await using file = await open(path, "wx", 0o644);
    for await (const chunk of content) {
      hash.update(chunk);
      size += chunk.length;
      // By this thread, as it is read: what hands it to another costs as much as the write.
      for (let done = 0; done < chunk.length;) done += writeSync(file.fd, chunk, done);
    }
  } catch (error) {
    throw diskError(error, path);
  }
  return { path, size, sha256: hash.digest("hex") };
}

/** Gives a spooled file its name, durably, replacing what had it; readers see the old one or the new one. */
export async function place(spooled: string, path: string): Promise<void> {
  try {
    {
      await using file = await open(spooled, "r+");
      await file.sync();
    }
    await makeFolder(dirname(path));
    await rename(spooled, path);
    await syncFolder(dirname(path));
  } catch (error) {
    throw diskError(error, path);
  }
}

/**
 * Opens a regular file, and does not wait for somebody to write into a FIFO.
 *
 * @throws EdgeSyncError REPOSITORY_INVALID when it is something else
 */
async function openRegular(path: string): Promise<FileHandle> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw new EdgeSyncError("REPOSITORY_INVALID", `${path} is not a file; expected a regular one`);
}

/** @throws EdgeSyncError REPOSITORY_INVALID when it is no regular file */
export async function readIfExists(path: string): Promise<Buffer | undefined> {
  try {
    await using file = await openRegular(path);
    return await file.readFile();
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw error;
  }
}

function isAbsent(error: unknown): boolean {
  const code = errnoOf(error);
  return code === "ENOENT" || code === "ENOTDIR";
}

/**
 * Refuses what is there and is no folder.
 *
 * @param what the path is for
 * @throws EdgeSyncError USAGE
 */
export async function refuseNoFolder(path: string, what: string): Promise<void> {
  const found = await stat(path).catch((error: unknown) => {
    if (errnoOf(error) === "ENOENT") return undefined;
    if (errnoOf(error) !== "ENOTDIR") throw diskError(error, path);
    throw new EdgeSyncError("USAGE", `${path} lies below a file; expected ${what}`, {
      cause: error,
    });
  });
  if (found?.isDirectory() === false)
    throw new EdgeSyncError("USAGE", `${path} is not a folder; expected ${what}`);
}

/**
 * Refuses what can be no output: a place without a folder, and what a file would replace and is none, such as a folder or a device.
 *
 * @throws EdgeSyncError USAGE
 */
export async function refuseNoFile(output: string): Promise<void> {
  const folder = await stat(dirname(output)).catch(() => undefined);
  if (folder?.isDirectory() !== true)
    throw new EdgeSyncError(
      "USAGE",
      `--output: ${dirname(output)} is not a folder; expected one that exists`,
    );
  // Not what a symlink leads to: the link would be replaced, which may be /dev/stdout.
  const found = await lstat(output).catch(() => undefined);
  if (found?.isFile() === false || output.endsWith("/"))
    throw new EdgeSyncError("USAGE", `--output: ${output} is not a file; expected a file's name`);
}

/** Bytes of a file; `undefined` when there is none. */
export async function sizeIfExists(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw error;
  }
}

/** A part of a file as a stream. */
export async function* readRange(
  path: string,
  offset: number,
  length: number,
): AsyncIterable<Uint8Array> {
  await using file = await openRegular(path);
  for (let done = 0; done < length;) {
    const buffer = Buffer.allocUnsafe(Math.min(256 * 1024, length - done));
    const { bytesRead } = await file.read(buffer, 0, buffer.length, offset + done);
    if (bytesRead === 0)
      throw new EdgeSyncError("REPOSITORY_INVALID", `${path} is shorter than it should be`);
    done += bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
}

export async function digestOf(content: AsyncIterable<Uint8Array>): Promise<{
  readonly sha256: string;
  readonly size: number;
}> {
  const hash = createHash("sha256");
  let size = 0;
  for await (const chunk of content) {
    hash.update(chunk);
    size += chunk.length;
  }
  return { sha256: hash.digest("hex"), size };
}

/** Bytes that are read without a pause, in which signals and timers have their turn. */
const TURN_BYTES = 8 * 2 ** 20;

/** A file, read by position. */
export async function openRandom(path: string): Promise<RandomAccess & AsyncDisposable> {
  const file = await open(path, "r");
  const { size } = await file.stat();
  let read = 0;
  return {
    size,
    async readInto(bytes, position) {
      if (read >= TURN_BYTES) {
        read = 0;
        await setImmediate();
      }
      read += bytes.length;
      readAt(file.fd, path, bytes, position);
    },
    [Symbol.asyncDispose]: () => file.close(),
  };
}

/**
 * Reads while everything waits: a delta reads single pages, and the way through Node's threads costs ten times as much as a page that
 * the kernel has. Commands have nothing else to do meanwhile.
 */
function readAt(fd: number, path: string, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.length;) {
    const count = readSync(fd, bytes, done, bytes.length - done, position + done);
    if (count === 0)
      throw new EdgeSyncError("REPOSITORY_INVALID", `${path} became shorter while it was read`);
    done += count;
  }
}

/** Unique names below a folder. */
export function namesIn(folder: string): () => string {
  let count = 0;
  return () => join(folder, String(count++));
}
