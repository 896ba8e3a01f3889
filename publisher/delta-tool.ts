/** Deltas as a tool: between two files, or two folders, without a repository. */
import { createHash } from "node:crypto";
import { lstat, rename, rm } from "node:fs/promises";
import { CODEC, decoderOf } from "#core/delta/codec.ts";
import type { RandomAccess } from "#core/delta/decoder.ts";
import { encodeDelta } from "#core/delta/encode.ts";
import { inspectDelta } from "#core/delta/inspect.ts";
import type { DeltaReport } from "#core/delta/inspect.ts";
import { EdgeSyncError } from "#core/errors.ts";
import { readRange, spool, syncFolder } from "./files.ts";
import type { Spooled } from "./files.ts";
import { openFolder, unpackFolder } from "./delta-folder.ts";
import { openRandom } from "./files.ts";
import { openMatching } from "./matching.ts";
import type { Progress } from "./work.ts";
import { openSlots } from "./work.ts";
import { dirname } from "node:path";

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
const MAGIC = Buffer.from("edgesync\u0001", "latin1");
const HEAD_BYTES = 80;
export interface Made {
  readonly oldBytes: number;
  readonly newBytes: number;
  readonly deltaBytes: number;
}

export async function makeDelta(
  oldPath: string,
  newPath: string,
  deltaPath: string,
  progress: Progress,
  signal: AbortSignal,
): Promise<Made> {
  const folders = await Promise.all([isFolder(oldPath), isFolder(newPath)]);
  if (folders[0] !== folders[1])
    throw new EdgeSyncError(
      "USAGE",
      `${oldPath} and ${newPath} must both be files or both folders`,
    );
  const [folder] = folders;
  await using old = await (folder ? openFolder(oldPath, signal) : openRandom(oldPath));
  await using target = await (folder ? openFolder(newPath, signal) : openRandom(newPath));
  await using matching = openMatching();
  progress.expect(target.size);
  const crew = {
    run: openSlots(),
    match: matching.match,
    advance: (bytes: number) => progress.advance(bytes, newPath),
  };
  const head = Buffer.alloc(HEAD_BYTES);
  MAGIC.copy(head);
  head.writeUInt8(folder ? 1 : 0, 9);
  (await digestOfFile(old, signal)).copy(head, 10);
  (await digestOfFile(target, signal)).copy(head, 42);
  head.writeUIntLE(target.size, 74, 6);
  const delta = await replaceFile(deltaPath, async function* () {
    yield head;
    yield* encodeDelta(old, target, crew, signal);
  });
  progress.end();
  return { oldBytes: old.size, newBytes: target.size, deltaBytes: delta.size };
}

/** @throws EdgeSyncError DIGEST_MISMATCH when the old file is another, or the new one does not become what it should */
export async function applyDelta(
  oldPath: string,
  deltaPath: string,
  newPath: string,
  signal: AbortSignal,
): Promise<{ readonly newBytes: number }> {
  const head = await readHead(deltaPath);
  await using old = await (head.folder ? openFolder(oldPath, signal) : openRandom(oldPath));
  if (!(await digestOfFile(old, signal)).equals(head.old))
    throw new EdgeSyncError("DIGEST_MISMATCH", `${oldPath} is not what the delta was made from`);
  const { size } = head;
  const decoded = checked(
    decoder().apply(old, readRange(deltaPath, HEAD_BYTES, head.bytes), size, signal),
    head.target,
  );
  if (head.folder) await unpackFolder(newPath, decoded, signal);
  else await replaceFile(newPath, () => decoded);
  return { newBytes: size };
}

export async function describeDelta(
  deltaPath: string,
  signal: AbortSignal,
): Promise<DeltaReport & { readonly folder: boolean; readonly deltaBytes: number }> {
  const head = await readHead(deltaPath);
  const report = await inspectDelta(readRange(deltaPath, HEAD_BYTES, head.bytes), signal);
  return { ...report, folder: head.folder, deltaBytes: head.bytes + HEAD_BYTES };
}

function decoder() {
  const found = decoderOf(CODEC);
  if (found === undefined) throw new EdgeSyncError("INTERNAL", `no decoder for ${CODEC}`);
  return found;
}

async function readHead(path: string) {
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

/** Passes pieces on and, at the end, only returns when their digest is right. */
async function* checked(
  pieces: AsyncIterable<Uint8Array>,
  expected: Buffer,
): AsyncIterable<Uint8Array> {
  const hash = createHash("sha256");
  for await (const piece of pieces) {
    hash.update(piece);
    yield piece;
  }
  if (!hash.digest().equals(expected))
    throw new EdgeSyncError("DIGEST_MISMATCH", "the delta makes something else than it says");
}

async function digestOfFile(file: RandomAccess, signal: AbortSignal): Promise<Buffer> {
  const hash = createHash("sha256");
  const buffer = Buffer.allocUnsafeSlow(Math.min(file.size, 256 * 1024));
  for (let at = 0; at < file.size; at += buffer.length) {
    signal.throwIfAborted();
    const part = buffer.subarray(0, Math.min(buffer.length, file.size - at));
    await file.readInto(part, at);
    hash.update(part);
  }
  return hash.digest();
}

async function isFolder(path: string): Promise<boolean> {
  return (await lstat(path)).isDirectory();
}

/** Whole or not at all. */
async function replaceFile(
  path: string,
  content: () => AsyncIterable<Uint8Array>,
): Promise<Spooled> {
  const partial = `${path}.partial`;
  await rm(partial, { force: true });
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => rm(partial, { force: true }));
  const spooled = await spool(partial, content());
  await rename(partial, path);
  await syncFolder(dirname(path));
  return spooled;
}
