/** Contents to blobs: full ones, and deltas from the contents of earlier releases. */
import { hash } from "node:crypto";
import { readFile, rm, stat } from "node:fs/promises";
import type { Run } from "#core/delta/encode.ts";
import { decodeFull } from "#core/delta/full.ts";
import { EdgeSyncError } from "#core/errors.ts";
import { openLanes } from "#core/lanes.ts";
import type { Content, DeltaBlob, FullBlob, PlacedBlob, Release } from "#core/release.ts";
import {
  LARGE_FILE,
  SMALL_FILE,
  compressFile,
  compressInMemory,
  isCompressible,
} from "./compress.ts";
import { CODEC } from "#core/delta/codec-names.ts";
import type { Deltas } from "./deltas.ts";
import { readRange, spool } from "./files.ts";
import type { Spooled } from "./files.ts";
import { PACKED_BELOW } from "./packs.ts";
import { blobFile } from "./repository.ts";
import type { Repository } from "./repository.ts";
import type { Source } from "./tree.ts";
import type { Location, Made, Unfinished } from "./unfinished.ts";
import type { Progress } from "./work.ts";

/**
 * A delta is kept only when it is smaller than this part of the compressed full blob, and saves more bytes than its digest and those
 * around it take in the manifest.
 */
const WORTH = 0.9;
const LISTING_BYTES = 80;

/** Bytes from which on a delta is no good. */
function limitOf(full: FullBlob): number {
  return Math.min(full.size * WORTH, full.size - LISTING_BYTES);
}

export interface BlobMaker {
  /** The content of a source, with deltas from `bases` (digests of earlier contents); equal for equal arguments. */
  make(source: Source, bases: readonly string[], signal: AbortSignal): Promise<Content>;
  /** Whether a blob of an earlier release is still there; it can be located from then on. */
  reuse(blob: PlacedBlob, release: Release): Promise<boolean>;
  /** Where a blob that was made or reused is. */
  locate(sha256: string): Promise<Location>;
}

export interface BlobDeps {
  readonly repository: Repository;
  /** Releases of the app from which blobs are reused and old contents are read. */
  readonly earlier: readonly Release[];
  readonly unfinished: Unfinished;
  /** Of zstd, for full blobs. */
  readonly level: number;
  readonly threads: number;
  readonly run: Run;
  readonly deltas: Deltas;
  readonly progress: Progress;
}

export function openBlobMaker(deps: BlobDeps): BlobMaker {
  const { repository, earlier, unfinished, level, threads, run, deltas, progress } = deps;
  const locations = new Map<string, Location>();
  // Each takes all threads by itself.
  const oneLarge = openLanes(1);

  /** An earlier release's content, and the release. */
  function earlierContent(sha256: string): { content: Content; release: Release } | undefined {
    for (const release of earlier) {
      const number = release.find(sha256);
      if (number !== undefined) return { content: release.contents.at(number), release };
    }
    return undefined;
  }

  async function locate(sha256: string): Promise<Location> {
    const known = locations.get(sha256);
    if (known !== undefined) return known;
    const file = blobFile(repository, sha256);
    try {
      return { file, offset: 0, size: (await stat(file)).size };
    } catch (cause) {
      throw new EdgeSyncError("REPOSITORY_INVALID", `the repository has no blob ${sha256}`, {
        cause,
      });
    }
  }

  async function has({ sha256, size, places }: PlacedBlob, { packs }: Release): Promise<boolean> {
    const place = places[0];
    const holder = place === undefined ? sha256 : packs[place.pack]?.sha256;
    if (holder === undefined) return false;
    const file = blobFile(repository, holder);
    const found = await stat(file).catch(() => undefined);
    const offset = place?.offset ?? 0;
    if (found === undefined || found.size < offset + size) return false;
    locations.set(sha256, { file, offset, size });
    return true;
  }

  /** An old content as a file. */
  async function decodeBase(sha256: string, signal: AbortSignal): Promise<string> {
    const known = earlierContent(sha256);
    if (known === undefined || !(await has(known.content.full, known.release)))
      throw new EdgeSyncError("REPOSITORY_INVALID", `no release has the content ${sha256}`);
    const { content } = known;
    const { file, offset, size } = await locate(content.full.sha256);
    const blob = readRange(file, offset, size);
    const decoded = decodeFull(content.full.encoding, blob, content.size, signal);
    const out = await spool(repository.temporary(), decoded);
    if (out.sha256 !== sha256)
      throw new EdgeSyncError(
        "DIGEST_MISMATCH",
        `blob ${content.full.sha256} is not what it should be`,
      );
    return out.path;
  }

  function taken({ sha256, size, encoding, location }: Made): FullBlob {
    locations.set(sha256, location);
    return { sha256, size, places: [], encoding };
  }

  async function makeFull(source: Source, signal: AbortSignal): Promise<FullBlob> {
    const known = earlierContent(source.sha256);
    if (known !== undefined && (await has(known.content.full, known.release))) {
      progress.advance(source.size, source.path);
      return { ...known.content.full, places: [] };
    }
    const key = `full ${source.sha256} ${level}`;
    const made = unfinished.find(key);
    if (made !== undefined && made !== null) {
      progress.advance(source.size, source.path);
      return taken(made);
    }
    if (source.size <= SMALL_FILE) return taken(await run(() => makeSmall(source, key)));
    if (source.size < LARGE_FILE) return taken(await run(() => makeLarge(source, key, signal)));
    return taken(await oneLarge(() => makeLarge(source, key, signal)));
  }

  async function makeSmall(source: Source, key: string): Promise<Made> {
    const { plain, frame, of } = await compressInMemory(fileOf(source), level);
    refuseChanged(source, of);
    progress.advance(source.size, source.path);
    const encoding = frame.length < plain.length ? "zstd" : "identity";
    const bytes = encoding === "zstd" ? frame : plain;
    const sha256 = encoding === "zstd" ? hash("sha256", frame) : of;
    if (bytes.length < PACKED_BELOW) return await unfinished.keep(key, bytes, sha256, encoding);
    const file = await spool(repository.temporary(), [bytes]);
    return await unfinished.keepFile(key, file, encoding);
  }

  async function makeLarge(source: Source, key: string, signal: AbortSignal): Promise<Made> {
    const read = (bytes: number): void => progress.advance(bytes, source.path);
    const file = fileOf(source);
    let frame: Spooled | undefined;
    if (await isCompressible(file)) {
      const options = { level, threads };
      const out = await compressFile(file, repository.temporary(), options, read, signal);
      refuseChanged(source, out.of);
      if (out.size < source.size) frame = out;
      else await rm(out.path);
    } else read(source.size);
    if (frame === undefined) {
      const copy = await spool(repository.temporary(), readRange(file.path, 0, file.size));
      refuseChanged(source, copy.sha256);
      return await unfinished.keepFile(key, copy, "identity");
    }
    return await keep(key, frame, "zstd");
  }

  /** A blob that was made as a file, whatever its size came out as. */
  async function keep(key: string, file: Spooled, encoding: Made["encoding"]): Promise<Made> {
    if (file.size >= PACKED_BELOW) return await unfinished.keepFile(key, file, encoding);
    const bytes = await readFile(file.path);
    await rm(file.path);
    return await unfinished.keep(key, bytes, file.sha256, encoding);
  }

  async function makeDeltaFrom(
    source: Source,
    base: string,
    full: FullBlob,
    signal: AbortSignal,
  ): Promise<DeltaBlob | undefined> {
    const known = earlierContent(source.sha256);
    const earlier = known?.content.deltas.find(
      (item) => item.base === base && item.codec === CODEC,
    );
    const useful = earlier !== undefined && earlier.size < limitOf(full);
    if (known !== undefined && useful && (await has(earlier, known.release))) {
      progress.advance(source.size, source.path);
      return { ...earlier, places: [] };
    }
    const key = `delta ${source.sha256} ${base} ${CODEC} ${full.sha256}`;
    const found = unfinished.find(key);
    if (found !== undefined) progress.advance(source.size, source.path);
    const made = found === undefined ? await newDelta(key, source, base, full, signal) : found;
    return made === null ? undefined : { ...taken(made), base, codec: CODEC };
  }

  async function newDelta(
    key: string,
    source: Source,
    base: string,
    full: FullBlob,
    signal: AbortSignal,
  ): Promise<Made | null> {
    // Not even an empty one would be worth it.
    if (limitOf(full) <= LISTING_BYTES) {
      progress.advance(source.size, source.path);
      return null;
    }
    const old = await decodeBase(base, signal);
    const target = { ...fileOf(source), sha256: source.sha256 };
    const advance = (bytes: number): void => progress.advance(bytes, source.path);
    const delta = await deltas.make(old, target, repository.temporary(), advance, signal);
    await rm(old);
    if (delta !== undefined && delta.size < limitOf(full))
      return await keep(key, delta, "identity");
    if (delta !== undefined) await rm(delta.path);
    await unfinished.keepNothing(key);
    return null;
  }

  return {
    reuse: has,
    locate,
    async make(source, baseDigests, signal) {
      signal.throwIfAborted();
      const full = await makeFull(source, signal);
      const found = await Promise.all(
        baseDigests.map((base) => makeDeltaFrom(source, base, full, signal)),
      );
      return {
        sha256: source.sha256,
        size: source.size,
        full,
        deltas: found.filter((delta) => delta !== undefined),
      };
    },
  };
}

function fileOf(source: Source): { readonly path: string; readonly size: number } {
  return { path: source.file, size: source.size };
}

/** What is compressed must be what was listed, also when somebody writes into the folder meanwhile. */
function refuseChanged(source: Source, sha256: string): void {
  if (sha256 !== source.sha256)
    throw new EdgeSyncError("TREE_INVALID", `${source.path} changed while it was read`);
}
