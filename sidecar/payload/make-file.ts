/**
 * Makes one file of a tree: as a link to one that is there, as a copy, from a delta, along a chain of deltas, or from a full blob. Every
 * byte is hashed on its way, those of linked files too; modes and earlier checks are not relied on. Memory does not depend on its size.
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { constants, zstdDecompressSync } from "node:zlib";
import { FULL_WINDOW_LOG, decodeFull } from "#core/delta/full.ts";
import { EdgeSyncError, codeOf, unreachable } from "#core/errors.ts";
import type { Blob, Content, DeltaBlob, FullBlob } from "#core/release.ts";
import type { Link, Source } from "#core/route.ts";
import { chunksOf, hashStretch, roomForChunk } from "../disk/durable.ts";
import type { Disk } from "../disk/durable.ts";
import { notKept } from "../disk/unsynced.ts";
import type { Unsynced } from "../disk/unsynced.ts";

/** Files that are there already, by the digest of their content. */
export type OldFiles = Pick<ReadonlyMap<string, OldFile>, "get">;

export interface OldFile {
  /** Absolute. */
  readonly path: string;
  /** Whether it lies on another volume, from which it can only be copied. */
  readonly foreign: boolean;
}

/** The bytes of a blob that was fetched. */
export type ReadBlob = (blob: Blob, room?: Buffer) => AsyncIterable<Uint8Array>;

/** What turned out not to be usable. */
export type Trouble = { readonly damaged: string } | { readonly rejected: string } | undefined;

/** Readable by whatever user the application runs as, writable by nobody. */
export const FILE_MODE = 0o444;
export const EXECUTABLE_MODE = 0o555;

/** What a file is made from. */
export interface Stock {
  readonly old: OldFiles;
  readonly read: ReadBlob;
  /** A folder of the payload volume, for what is made on the way and removed again. */
  readonly room: string;
}

/** @throws EdgeSyncError DIGEST_MISMATCH when a full blob does not give its file; DISK_FULL, DISK_FAILED */
export async function makeFile(
  source: Source,
  place: FilePlace,
  stock: Stock,
  signal: AbortSignal,
): Promise<Trouble> {
  const { content } = source;
  const { old, read } = stock;
  switch (source.how) {
    case "keep": {
      const file = old.get(content.sha256);
      const kept = file !== undefined && (await keepFile(place, file, content, signal));
      return kept ? undefined : { damaged: content.sha256 };
    }
    case "delta": {
      const { sha256, size } = content;
      return await followLinks([{ delta: source.delta, sha256, size }], place, stock, signal);
    }
    case "chain":
      return await followLinks(source.links, place, stock, signal);
    case "full": {
      const { full, size } = content;
      const bytes = size === 0 ? none() : decode(full, size, read, signal);
      if (await writeFile(place, content, bytes, signal)) return undefined;
      throw new EdgeSyncError(
        "DIGEST_MISMATCH",
        `the full blob ${content.full.sha256} does not give the file ${content.sha256}`,
      );
    }
    default:
      return unreachable(source);
  }
}

/**
 * What is made on the way is verified like any file, lies outside of the tree, and goes as soon as the next one is there. What comes out
 * right was made from the right file; only what does not is worth reading the old one for: of a gigabyte, once instead of twice.
 */
async function followLinks(
  links: readonly Link[],
  place: FilePlace,
  { old, read, room }: Stock,
  signal: AbortSignal,
): Promise<Trouble> {
  const { disk } = place;
  const [first] = links;
  if (first === undefined) throw new RangeError("no links to follow");
  const base = old.get(first.delta.base);
  if (base === undefined) return { damaged: first.delta.base };
  const isBaseGood = (): Promise<boolean> => hasDigest(disk, base.path, first.delta.base, signal);
  let from = base.path;
  /** What was made on the way and is still there. */
  let between: string | undefined;
  try {
    for (const [index, link] of links.entries()) {
      const last = index === links.length - 1;
      const path = join(room, `${link.sha256}.step`);
      if (!last) await disk.remove(path);
      const target = last ? place : { disk, path, mode: STEP_MODE, unsynced: notKept };
      const bytes = expand(disk, from, link, read, signal);
      const fits = await unlessInvalid(writeFile(target, link, bytes, signal)).catch(
        async (error: unknown) => {
          // Of the two files it may be the old one that cannot be read.
          if (index > 0 || codeOf(error) !== "DISK_FAILED" || (await isBaseGood())) throw error;
          return false;
        },
      );
      if (!fits)
        return index > 0 || (await isBaseGood())
          ? { rejected: link.delta.sha256 }
          : { damaged: first.delta.base };
      if (between !== undefined) await disk.remove(between);
      between = last ? undefined : path;
      from = path;
    }
    return undefined;
  } finally {
    if (between !== undefined) await disk.remove(between);
  }
}

const STEP_MODE = 0o600;

/** False when the old file is not what it was; it is linked where that is possible, and copied where not. */
async function keepFile(
  place: FilePlace,
  file: OldFile,
  content: Content,
  signal: AbortSignal,
): Promise<boolean> {
  const { disk, path, mode } = place;
  if (file.foreign) return await copyFile(place, file.path, content, signal);
  const stat = await disk.stat(file.path);
  // A link to what became a symlink would be one more of it.
  if (stat?.kind !== "file" || stat.size !== content.size) return false;
  // By the mode that it has, and not by the one that it was given: a link shares it.
  const sameMode = ((stat.mode & 0o111) !== 0) === (mode === EXECUTABLE_MODE);
  if (!sameMode || !(await disk.link(file.path, path)))
    return await copyFile(place, file.path, content, signal);
  if (await hasDigest(disk, path, content.sha256, signal)) return true;
  await disk.remove(path);
  return false;
}

export async function copyFile(
  place: FilePlace,
  from: string,
  content: Content,
  signal: AbortSignal,
): Promise<boolean> {
  await using file = await place.disk.openRead(from);
  if (file?.size !== content.size) return false;
  return await writeFile(
    place,
    content,
    chunksOf(file, 0, file.size, roomForChunk(file.size)),
    signal,
  );
}

/** Where a new file is to be. */
export interface FilePlace {
  readonly disk: Disk;
  readonly path: string;
  readonly mode: number;
  /** Takes the file that has been written, to make it durable together with others. */
  readonly unsynced: Pick<Unsynced, "take">;
}

/** Writes a new file, and says whether it came out as it should; if not, it is gone again. */
export async function writeFile(
  { disk, path, mode, unsynced }: FilePlace,
  content: Blob,
  bytes: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<boolean> {
  const hash = createHash("sha256");
  let size = 0;
  try {
    await using cleanup = new AsyncDisposableStack();
    const file = cleanup.use(await disk.create(path, 0o600));
    for await (const chunk of bytes) {
      signal.throwIfAborted();
      size += chunk.byteLength;
      // A small blob can make a very large file; no more is written than is signed.
      if (size > content.size) break;
      // Hashed while it is written.
      const writing = file.write(chunk);
      hash.update(chunk);
      await writing;
    }
    if (size === content.size && hash.digest("hex") === content.sha256) {
      await file.chmod(mode);
      cleanup.move();
      await unsynced.take(file, size);
      return true;
    }
  } catch (error) {
    await disk.remove(path);
    throw error;
  }
  await disk.remove(path);
  return false;
}

/** False also when the file cannot be read: it is then as good as damaged. */
export async function hasDigest(
  disk: Disk,
  path: string,
  sha256: string,
  signal: AbortSignal,
): Promise<boolean> {
  const hash = createHash("sha256");
  try {
    await using file = await disk.openRead(path);
    if (file === undefined) return false;
    await hashStretch(file, file.size, hash, signal);
  } catch (error) {
    if (codeOf(error) === "DISK_FAILED") return false;
    throw error;
  }
  return hash.digest("hex") === sha256;
}

async function* expand(
  disk: Disk,
  base: string,
  { delta, size }: { readonly delta: DeltaBlob; readonly size: number },
  read: ReadBlob,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, void> {
  // On demand: many sidecars never meet a delta.
  const { decoderOf } = await import("#core/delta/codec.ts");
  const decoder = decoderOf(delta.codec);
  if (decoder === undefined)
    throw new EdgeSyncError("DELTA_INVALID", `codec ${delta.codec} is not known`);
  await using file = await disk.openRead(base);
  if (file === undefined) throw new EdgeSyncError("DELTA_INVALID", `${base} is gone`);
  yield* decoder.apply(file, read(delta, roomForChunk(delta.size)), size, signal);
}

/** False also for what is no delta. */
export async function unlessInvalid(written: Promise<boolean>): Promise<boolean> {
  try {
    return await written;
  } catch (error) {
    if (codeOf(error) === "DELTA_INVALID") return false;
    throw error;
  }
}

/** Bytes of a file that is decoded in one go, without the machinery of a stream. */
const SMALL_FILE = 256 * 1024;

async function* decode(
  full: FullBlob,
  size: number,
  read: ReadBlob,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, void> {
  if (size > SMALL_FILE || full.size > SMALL_FILE || full.encoding === "identity") {
    yield* decodeFull(full.encoding, read(full), size, signal);
    return;
  }
  const chunks: Uint8Array[] = [];
  for await (const chunk of read(full)) chunks.push(chunk);
  let file: Buffer;
  try {
    file = zstdDecompressSync(Buffer.concat(chunks), { maxOutputLength: size, params: WINDOW });
  } catch (cause) {
    throw new EdgeSyncError("DIGEST_MISMATCH", `full blob ${full.sha256} cannot be decompressed`, {
      cause,
    });
  }
  yield file;
}

const WINDOW = { [constants.ZSTD_d_windowLogMax]: FULL_WINDOW_LOG };

/** An empty file is not fetched, whatever its blob is called. */
async function* none(): AsyncGenerator<Uint8Array, void, void> {}
