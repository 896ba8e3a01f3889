/** The file of a delta that is used as a tool: what stands before the delta, and how such files and what is made of them are written. */
import { createHash } from "node:crypto";
import { mkdtemp, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { RandomAccess } from "#core/delta/decoder.ts";
import { EdgeSyncError } from "#core/errors.ts";
import { diskError, errnoOf, openRandom, spool } from "./files.ts";
import type { Spooled } from "./files.ts";

/**
 * A delta file: this, the digests, and a delta as repositories have it.
 *
 *     0   8   "edgesync"
 *     8   1   version, 1
 *     9   1   0 for files, 1 for folders
 *     10  32  SHA-256 of the old file
 *     42  32  SHA-256 of the new file
 *     74  6   bytes of the new file, little-endian
 */
export const MAGIC = Buffer.from("edgesync\u0001", "latin1");
export const HEAD_BYTES = 80;

/** Whether a path that a user gave is a folder; a FIFO or a device would be waited for. @throws EdgeSyncError USAGE */
export async function isFolder(path: string): Promise<boolean> {
  const found = await stat(path).catch((error: unknown) => {
    if (errnoOf(error) !== "ENOENT") throw diskError(error, path);
    throw new EdgeSyncError("USAGE", `${path} does not exist; expected a file or folder there`);
  });
  if (!found.isFile() && !found.isDirectory())
    throw new EdgeSyncError("USAGE", `${path} is neither a file nor a folder; expected one`);
  return found.isDirectory();
}

/** @throws EdgeSyncError USAGE */
export async function refuseFolder(path: string): Promise<void> {
  if (await isFolder(path))
    throw new EdgeSyncError("USAGE", `${path} is a folder; expected the file of a delta`);
}

/** What is read must not be replaced. @throws EdgeSyncError USAGE */
export async function refuseSame(output: string, inputs: readonly string[]): Promise<void> {
  const there = await stat(output).catch(() => undefined);
  if (there === undefined) return;
  for (const input of inputs) {
    const { dev, ino } = await stat(input);
    if (there.dev === dev && there.ino === ino)
      throw new EdgeSyncError("USAGE", `${output} is ${input}; expected another place to write to`);
  }
}

/** @throws EdgeSyncError DELTA_INVALID */
export async function readHead(path: string) {
  await using file = await openRandom(path);
  const head = Buffer.alloc(HEAD_BYTES);
  if (file.size >= HEAD_BYTES) await file.readInto(head, 0);
  if (!head.subarray(0, MAGIC.length).equals(MAGIC) || head.readUInt8(9) > 1)
    throw new EdgeSyncError("DELTA_INVALID", `${path} is not a delta that edgesync made`);
  return {
    folder: head.readUInt8(9) === 1,
    old: head.subarray(10, 42),
    target: head.subarray(42, 74),
    size: head.readUIntLE(74, 6),
    bytes: file.size - HEAD_BYTES,
  };
}

/** Bytes of a piece of a file that is hashed. */
const HASH_BYTES = 128 * 1024;

export async function digestOfFile(file: RandomAccess, signal: AbortSignal): Promise<Buffer> {
  const hash = createHash("sha256");
  const memory = Buffer.allocUnsafeSlow(HASH_BYTES);
  for (let at = 0; at < file.size; at += HASH_BYTES) {
    signal.throwIfAborted();
    const piece = memory.subarray(0, Math.min(HASH_BYTES, file.size - at));
    await file.readInto(piece, at);
    hash.update(piece);
  }
  return hash.digest();
}

/**
 * A folder of its own beside a path, for what is to get that name when it is whole. Its name is free for certain: what stands there
 * under any other may be somebody's only copy.
 */
export async function roomBeside(
  path: string,
): Promise<{ readonly path: string } & AsyncDisposable> {
  const room = await mkdtemp(join(dirname(path), ".edgesync-")).catch((error: unknown) => {
    throw diskError(error, path);
  });
  return {
    path: room,
    [Symbol.asyncDispose]: () => rm(room, { recursive: true, force: true }),
  };
}

/**
 * Whole or not at all, whatever ends the command. The disk may have it later, as with any tool that makes a file: what must outlive a
 * power cut at once is a matter of repositories and banks.
 *
 * @param check is told what was written, before it gets its name
 */
export async function replaceFile(
  path: string,
  content: () => AsyncIterable<Uint8Array>,
  check: (spooled: Spooled) => void,
): Promise<Spooled> {
  await using room = await roomBeside(path);
  const partial = join(room.path, basename(path));
  const spooled = await spool(partial, content());
  check(spooled);
  await rename(partial, path);
  return spooled;
}
