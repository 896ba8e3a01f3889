/**
 * Builds the tree of a release as a bank: unchanged files are links to those of the old bank, the others are made from deltas or
 * full blobs. Every byte is hashed on its way into the tree, those of linked files too, so what is complete is also verified; modes
 * and earlier checks are not relied on. Memory does not depend on the size of files.
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { constants, zstdDecompressSync } from "node:zlib";
import { decoderOf } from "#core/delta/codec.ts";
import { FULL_WINDOW_LOG, decodeFull } from "#core/delta/full.ts";
import { EdgeSyncError, codeOf, unreachable } from "#core/errors.ts";
import type { Plan, Source } from "#core/plan.ts";
import type { Blob, Content, FullBlob, Release } from "#core/release.ts";
import { parentOf } from "#core/tree-path.ts";
import { chunksOf, hashStretch } from "./durable.ts";
import type { Disk } from "./durable.ts";
import { openUnsynced } from "./unsynced.ts";
import type { Unsynced } from "./unsynced.ts";
import type { Store } from "./store.ts";

/** The files of the bank that is there already, by the digest of their content. */
export type OldFiles = Pick<ReadonlyMap<string, OldFile>, "get">;

export interface OldFile {
  /** Absolute. */
  readonly path: string;
  readonly executable: boolean;
}

/** What turned out not to be usable; the plan has to be made anew without it. */
export interface Setback {
  /** Contents of old files that are damaged. */
  readonly damaged: readonly string[];
  /** Deltas that do not give their file. */
  readonly rejected: readonly string[];
}

/** The bytes of a blob that was fetched. */
export type ReadBlob = (blob: Blob) => AsyncIterable<Uint8Array>;

export interface Building extends AsyncDisposable {
  /**
   * Adds every file that is still missing and whose source works.
   *
   * @throws EdgeSyncError DIGEST_MISMATCH when a full blob does not give its file; DISK_FULL, DISK_FAILED
   */
  add(plan: Plan, old: OldFiles, read: ReadBlob, signal: AbortSignal): Promise<Setback>;
  /** Bytes written so far; links take none. */
  written(): number;
  /**
   * Makes the tree durable and gives it its name; every file must have been added.
   *
   * @param manifest as `completeBank` takes it
   */
  complete(manifest: string): Promise<void>;
}

type Trouble = { readonly damaged: string } | { readonly rejected: string } | undefined;

/** Readable by whatever user the application runs as, writable by nobody. */
const FILE_MODE = 0o444;
const EXECUTABLE_MODE = 0o555;
type Mode = typeof FILE_MODE | typeof EXECUTABLE_MODE;
const DIRECTORY_MODE = 0o755;

/**
 * Begins a bank. What has not been completed is removed at the end of the scope, or after an abort by the next sweep: a process that
 * is told to end has no time for it.
 */
export async function beginBank(
  store: Store,
  id: string,
  release: Release,
  signal: AbortSignal,
): Promise<Building> {
  const { disk } = store;
  const folder = await store.beginBank(id);
  // By content, the entry that has it already, counted from 1: equal files are links to each other.
  const placed = {
    [FILE_MODE]: new Uint32Array(release.contents.length),
    [EXECUTABLE_MODE]: new Uint32Array(release.contents.length),
  };
  const done = new Uint8Array(release.entries.length);
  const unsynced = openUnsynced();
  let completed = false;
  let written = 0;
  for (const entry of release.entries) {
    const path = join(folder, entry.path);
    if (entry.type === "directory") await disk.makeDirectory(path, DIRECTORY_MODE);
    else if (entry.type === "symlink") await disk.symlink(entry.target, path);
  }

  function placedPath(mode: Mode, content: number): string | undefined {
    const number = placed[mode][content] ?? 0;
    return number === 0 ? undefined : join(folder, release.entries.at(number - 1).path);
  }

  async function addFile(
    number: number,
    contentNumber: number,
    source: Source,
    old: OldFiles,
    read: ReadBlob,
    signal: AbortSignal,
  ): Promise<Trouble> {
    const { content } = source;
    const entry = release.entries.at(number);
    const path = join(folder, entry.path);
    const executable = entry.type === "file" && (entry.mode & 0o111) !== 0;
    const mode = executable ? EXECUTABLE_MODE : FILE_MODE;
    const twin = placedPath(mode, contentNumber);
    if (twin !== undefined && (await disk.link(twin, path))) return undefined;
    const sibling = twin ?? placedPath(executable ? FILE_MODE : EXECUTABLE_MODE, contentNumber);
    if (sibling !== undefined) {
      if (!(await copyFile({ disk, path, mode, unsynced }, sibling, content, signal)))
        throw new EdgeSyncError("DISK_FAILED", `${sibling} reads back as something else`);
      return undefined;
    }
    const trouble = await make(source, path, mode, old, read, signal);
    if (trouble !== undefined) return trouble;
    placed[mode][contentNumber] = number + 1;
    if (source.how !== "keep") written += content.size;
    return undefined;
  }

  async function make(
    source: Source,
    path: string,
    mode: number,
    old: OldFiles,
    read: ReadBlob,
    signal: AbortSignal,
  ): Promise<Trouble> {
    const { content } = source;
    const place = { disk, path, mode, unsynced };
    switch (source.how) {
      case "keep": {
        const file = old.get(content.sha256);
        const kept = file !== undefined && (await keepFile(place, file, content, signal));
        return kept ? undefined : { damaged: content.sha256 };
      }
      case "delta": {
        const { delta } = source;
        const base = old.get(delta.base);
        // Before it is used: a delta on top of something else is much work for nothing.
        if (base === undefined || !(await hasDigest(disk, base.path, delta.base, signal)))
          return { damaged: delta.base };
        const expanded = expand(disk, base.path, source, read, signal);
        const fits = await unlessInvalid(writeFile(place, content, expanded, signal));
        return fits ? undefined : { rejected: delta.sha256 };
      }
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

  return {
    async add(plan, old, read, signal) {
      const damaged = new Set<string>();
      const rejected = new Set<string>();
      for (let number = 0; number < done.length; number++) {
        const content = release.contentOf(number);
        if (content === undefined || done[number] === 1) continue;
        const trouble = await addFile(number, content, plan.source(content), old, read, signal);
        if (trouble === undefined) done[number] = 1;
        else if ("damaged" in trouble) damaged.add(trouble.damaged);
        else rejected.add(trouble.rejected);
      }
      await unsynced.sync();
      return { damaged: [...damaged], rejected: [...rejected] };
    },
    written: () => written,
    async complete(manifest) {
      // Children first: a directory is on the disk only when what it names is.
      for (let number = done.length - 1; number >= 0; number--) {
        const entry = release.entries.at(number);
        if (entry.type === "directory") await disk.syncDirectory(join(folder, entry.path));
      }
      await disk.syncDirectory(folder);
      await store.completeBank(folder, id, manifest);
      completed = true;
    },
    async [Symbol.asyncDispose]() {
      await unsynced[Symbol.asyncDispose]();
      if (completed || signal.aborted) return;
      try {
        await disk.removeTree(folder);
      } catch {
        // The error that brought us here matters more, and the next sweep removes what is left.
      }
    },
  };
}

/** Whether a bank on disk is exactly the tree of a release: nothing is missing, damaged or added. */
export async function verifyBank(
  disk: Disk,
  folder: string,
  release: Release,
  signal: AbortSignal,
): Promise<boolean> {
  const names = new Map<string, number>();
  for (const entry of release.entries) {
    const path = join(folder, entry.path);
    const stat = await disk.stat(path);
    if (stat?.kind !== entry.type) return false;
    if (entry.type === "symlink" && (await disk.readLink(path)) !== entry.target) return false;
    if (entry.type === "file") {
      if (((stat.mode & 0o111) === 0) !== ((entry.mode & 0o111) === 0)) return false;
      if (!(await hasDigest(disk, path, entry.sha256, signal))) return false;
    }
    const parent = parentOf(entry.path);
    names.set(parent, (names.get(parent) ?? 0) + 1);
    if (entry.type === "directory") names.set(entry.path, names.get(entry.path) ?? 0);
  }
  for (const [directory, count] of names)
    if ((await disk.list(join(folder, directory))).length !== count) return false;
  return true;
}

/** False when the old file is not what it was; it is linked where that is possible, and copied where not. */
async function keepFile(
  place: FilePlace,
  file: OldFile,
  content: Content,
  signal: AbortSignal,
): Promise<boolean> {
  const { disk, path, mode } = place;
  const sameMode = file.executable === (mode === EXECUTABLE_MODE);
  if ((await disk.stat(file.path))?.size !== content.size) return false;
  if (!sameMode || !(await disk.link(file.path, path)))
    return await copyFile(place, file.path, content, signal);
  if (await hasDigest(disk, path, content.sha256, signal)) return true;
  await disk.remove(path);
  return false;
}

async function copyFile(
  place: FilePlace,
  from: string,
  content: Content,
  signal: AbortSignal,
): Promise<boolean> {
  await using file = await place.disk.openRead(from);
  if (file?.size !== content.size) return false;
  return await writeFile(place, content, chunksOf(file, 0, file.size), signal);
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
      hash.update(chunk);
      await file.write(chunk);
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
  { content, delta }: Extract<Source, { how: "delta" }>,
  read: ReadBlob,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, void> {
  const decoder = decoderOf(delta.codec);
  if (decoder === undefined)
    throw new EdgeSyncError("DELTA_INVALID", `codec ${delta.codec} is not known`);
  await using file = await disk.openRead(base);
  if (file === undefined) throw new EdgeSyncError("DELTA_INVALID", `${base} is gone`);
  yield* decoder.apply(file, read(delta), content.size, signal);
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
