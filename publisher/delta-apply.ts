/** Applies the file of a delta. It loads nothing that only makers of deltas need: it runs on small machines too. */
import { createHash } from "node:crypto";
import { CODEC } from "#core/delta/codec-names.ts";
import { decoderOf } from "#core/delta/codec.ts";
import { EdgeSyncError, codeOf } from "#core/errors.ts";
import {
  isFolder,
  refuseFolder,
  refuseSame,
  HEAD_BYTES,
  digestOfFile,
  readHead,
  replaceFile,
} from "./delta-file.ts";
import { openRandom, refuseNoFile } from "./files.ts";
import type { RandomAccess } from "#core/delta/decoder.ts";

export async function applyDelta(
  oldPath: string,
  deltaPath: string,
  newPath: string,
  signal: AbortSignal,
): Promise<{ readonly newBytes: number }> {
  const isOldFolder = await isFolder(oldPath);
  await refuseFolder(deltaPath);
  await refuseSame(newPath, [oldPath, deltaPath]);
  const head = await readHead(deltaPath);
  if (head.folder !== isOldFolder) {
    const expected = head.folder ? "a folder" : "a file";
    throw new EdgeSyncError("USAGE", `${oldPath} is not ${expected}; expected what the delta was made from`); // prettier-ignore
  }
  if (!head.folder) await refuseNoFile(newPath);
  const folders = head.folder ? await import("./delta-folder.ts") : undefined;
  await using old = await (folders?.openFolder(oldPath, "old", signal) ?? openRandom(oldPath));
  const { size } = head;
  await using delta = await openRandom(deltaPath);
  const pieces = decoder().apply(old, bodyOf(delta), size, signal);
  try {
    if (folders !== undefined)
      await folders.unpackFolder(newPath, checked(pieces, head.target), signal);
    else
      await replaceFile(
        newPath,
        () => pieces,
        ({ sha256 }) => {
          if (sha256 !== head.target.toString("hex")) throw mismatch();
        },
      );
  } catch (error) {
    if (!MADE_WRONG.has(codeOf(error) ?? "")) throw error;
    // What comes out right was made from the right file; only now it is worth looking whether it was another.
    if ((await digestOfFile(old, signal)).equals(head.old)) throw error;
    throw new EdgeSyncError("DIGEST_MISMATCH", `${oldPath} is not what the delta was made from`);
  }
  return { newBytes: size };
}

const MADE_WRONG: ReadonlySet<string> = new Set([
  "DIGEST_MISMATCH",
  "DELTA_INVALID",
  "TREE_INVALID",
]);

const READ_BYTES = 64 * 1024;

/** What stands behind the head, in one buffer: of new ones tens of megabytes would come together before they are collected. */
async function* bodyOf(delta: RandomAccess): AsyncIterable<Uint8Array> {
  const buffer = Buffer.allocUnsafeSlow(Math.min(READ_BYTES, delta.size));
  for (let at = HEAD_BYTES; at < delta.size; at += buffer.length) {
    const piece = buffer.subarray(0, Math.min(buffer.length, delta.size - at));
    await delta.readInto(piece, at);
    yield piece;
  }
}

function decoder() {
  const found = decoderOf(CODEC);
  if (found === undefined) throw new EdgeSyncError("INTERNAL", `no decoder for ${CODEC}`);
  return found;
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
  if (!hash.digest().equals(expected)) throw mismatch();
}

function mismatch(): EdgeSyncError {
  return new EdgeSyncError("DIGEST_MISMATCH", "the delta makes something else than it says");
}
