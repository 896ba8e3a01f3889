/** Contents to blobs: full ones, and deltas from the contents of earlier releases. */
import { stat } from "node:fs/promises";
import type { Run } from "#core/delta/encode.ts";
import { decodeFull } from "#core/delta/full.ts";
import { EdgeSyncError, codeOf } from "#core/errors.ts";
import type { Content, DeltaBlob, FullBlob, PlacedBlob, Release } from "#core/release.ts";
import { HIGHEST_LEVEL, compressFile } from "./compress.ts";
import { CODEC, makeDelta } from "./deltas.ts";
import { readRange, spool } from "./files.ts";
import { blobFile } from "./repository.ts";
import type { Repository } from "./repository.ts";
import type { Source } from "./tree.ts";
import type { Progress } from "./work.ts";

/** A delta is kept only when it is smaller than this part of the compressed full blob. */
const WORTH = 0.9;

/** Where the bytes of a blob are: a file of their own, or a part of a pack. */
export interface Location {
  readonly file: string;
  readonly offset: number;
  readonly size: number;
}

export interface BlobMaker {
  /** The content of a source, with deltas from `bases` (digests of earlier contents); equal for equal arguments. */
  make(source: Source, bases: readonly string[], signal: AbortSignal): Promise<Content>;
  /** Where a blob that was made or reused is. */
  locate(sha256: string): Promise<Location>;
}

/**
 * @param earlier manifests of the app, from which blobs are reused and old contents are read
 */
export function openBlobMaker(
  repository: Repository,
  earlier: readonly Release[],
  run: Run,
  progress: Progress,
): BlobMaker {
  const made = new Map<string, Location>();
  const bases = new Map<string, Promise<string>>();

  /** An earlier release's content, and the release. */
  function earlierContent(sha256: string): { content: Content; release: Release } | undefined {
    for (const release of earlier) {
      const number = release.find(sha256);
      if (number !== undefined) return { content: release.contents.at(number), release };
    }
    return undefined;
  }

  async function locate(sha256: string): Promise<Location> {
    const known = made.get(sha256);
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

  /** Whether a blob of an earlier release is where it says; it can be located from then on. */
  async function has({ sha256, size, places }: PlacedBlob, { packs }: Release): Promise<boolean> {
    const place = places[0];
    const pack = place && packs[place.pack];
    try {
      if (place === undefined || pack === undefined) return (await locate(sha256)).size === size;
      const { file } = await locate(pack.sha256);
      made.set(sha256, { file, offset: place.offset, size });
      return true;
    } catch (error) {
      if (codeOf(error) === "REPOSITORY_INVALID") return false;
      throw error;
    }
  }

  /** An old content as a file, decoded once. */
  function baseFile(sha256: string, signal: AbortSignal): Promise<string> {
    const known = bases.get(sha256);
    if (known !== undefined) return known;
    const decoding = decodeBase(sha256, signal);
    bases.set(sha256, decoding);
    return decoding;
  }

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

  async function makeFull(source: Source, signal: AbortSignal): Promise<FullBlob> {
    const known = earlierContent(source.sha256);
    if (known !== undefined && (await has(known.content.full, known.release)))
      return { ...known.content.full, places: [] };
    const read = (bytes: number): void => progress.advance(bytes, source.path);
    const file = { path: source.file, size: source.size };
    const out = await run(() =>
      compressFile(file, repository.temporary(), HIGHEST_LEVEL, read, signal),
    );
    refuseChanged(source, out.of);
    const smaller = out.size < source.size;
    const blob = smaller ? out : await spool(repository.temporary(), readSource(source));
    if (!smaller) refuseChanged(source, blob.sha256);
    made.set(blob.sha256, { file: blob.path, offset: 0, size: blob.size });
    const encoding = smaller ? "zstd" : "identity";
    return { sha256: blob.sha256, size: blob.size, places: [], encoding };
  }

  async function makeDeltaFrom(
    source: Source,
    base: string,
    signal: AbortSignal,
  ): Promise<DeltaBlob | undefined> {
    const known = earlierContent(source.sha256);
    const earlier = known?.content.deltas.find(
      (item) => item.base === base && item.codec === CODEC,
    );
    if (known !== undefined && earlier !== undefined && (await has(earlier, known.release)))
      return { ...earlier, places: [] };
    const target = { path: source.file, sha256: source.sha256, size: source.size };
    const oldFile = await baseFile(base, signal);
    const delta = await makeDelta(oldFile, target, repository.temporary(), run, signal);
    progress.advance(source.size, source.path);
    if (delta === undefined) return undefined;
    made.set(delta.sha256, { file: delta.path, offset: 0, size: delta.size });
    return { sha256: delta.sha256, size: delta.size, places: [], base, codec: delta.codec };
  }

  return {
    locate,
    async make(source, baseDigests, signal) {
      progress.expect(source.size * (1 + baseDigests.length));
      const [full, ...deltas] = await Promise.all([
        makeFull(source, signal),
        ...baseDigests.map((base) => makeDeltaFrom(source, base, signal)),
      ]);
      return {
        sha256: source.sha256,
        size: source.size,
        full,
        deltas: deltas
          .filter((delta) => delta !== undefined)
          .filter((delta) => delta.size < full.size * WORTH),
      };
    },
  };
}

function readSource(source: Source): AsyncIterable<Uint8Array> {
  return readRange(source.file, 0, source.size);
}

/** What is compressed must be what was listed, also when somebody writes into the folder meanwhile. */
function refuseChanged(source: Source, sha256: string): void {
  if (sha256 !== source.sha256)
    throw new EdgeSyncError("TREE_INVALID", `${source.path} changed while it was read`);
}
