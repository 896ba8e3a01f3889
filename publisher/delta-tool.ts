/** Deltas as a tool: between two files, or two folders, without a repository. */
import { encodeDelta } from "#core/delta/encode.ts";
import { openSharedMemory } from "#core/delta/shared-memory.ts";
import { inspectDelta } from "#core/delta/inspect.ts";
import type { DeltaReport } from "#core/delta/inspect.ts";
import { EdgeSyncError } from "#core/errors.ts";
import {
  HEAD_BYTES,
  MAGIC,
  digestOfFile,
  readHead,
  replaceFile,
  isFolder,
  refuseFolder,
  refuseSame,
} from "./delta-file.ts";
import { openFolder } from "./delta-folder.ts";
import { openRandom, readRange, refuseNoFile } from "./files.ts";
import { openMatching } from "./matching.ts";
import type { Progress } from "./work.ts";
import { openSlots } from "./work.ts";

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
  await refuseSame(deltaPath, [oldPath, newPath]);
  await refuseNoFile(deltaPath);
  const [folder] = folders;
  await using old = await (folder ? openFolder(oldPath, "old", signal) : openRandom(oldPath));
  await using target = await (folder ? openFolder(newPath, "new", signal) : openRandom(newPath));
  await using matching = openMatching();
  progress.expect(target.size);
  const crew = {
    run: openSlots(),
    search: matching.search,
    memory: openSharedMemory(),
    advance: (bytes: number) => progress.advance(bytes, newPath),
  };
  const head = Buffer.alloc(HEAD_BYTES);
  MAGIC.copy(head);
  head.writeUInt8(folder ? 1 : 0, 9);
  (await digestOfFile(old, signal)).copy(head, 10);
  (await digestOfFile(target, signal)).copy(head, 42);
  head.writeUIntLE(target.size, 74, 6);
  const delta = await replaceFile(
    deltaPath,
    async function* () {
      yield head;
      yield* encodeDelta(old, target, crew, signal);
    },
    () => undefined,
  );
  progress.end();
  return { oldBytes: old.size, newBytes: target.size, deltaBytes: delta.size };
}

/** @throws EdgeSyncError DIGEST_MISMATCH when the old file is another, or the new one does not become what it should */
export async function describeDelta(
  deltaPath: string,
  signal: AbortSignal,
): Promise<DeltaReport & { readonly folder: boolean; readonly deltaBytes: number }> {
  await refuseFolder(deltaPath);
  const head = await readHead(deltaPath);
  const report = await inspectDelta(readRange(deltaPath, HEAD_BYTES, head.bytes), signal);
  return { ...report, folder: head.folder, deltaBytes: head.bytes + HEAD_BYTES };
}
