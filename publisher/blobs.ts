/** Contents to blobs: full ones, and deltas from the contents of earlier releases. */
import { createHash } from "node:crypto";
import { stat } from "node:fs/promises";
import { Readable, pipeline } from "node:stream";
import { constants, createZstdCompress } from "node:zlib";
import { CODEC, decoderOf } from "#core/delta/codec.ts";
import { encodeDelta } from "#core/delta/encode.ts";
import type { Run } from "#core/delta/encode.ts";
import { FULL_WINDOW_LOG, decodeFull } from "#core/delta/full.ts";
import { EdgeSyncError, codeOf } from "#core/errors.ts";
import { openLanes } from "#core/lanes.ts";
import type { Blob, Content, DeltaBlob, FullBlob, Release } from "#core/release.ts";
import { digestOf, openRandom, readRange, spool } from "./files.ts";
import type { Spooled } from "./files.ts";
import { blobFile } from "./repository.ts";
import { openMatching } from "./matching.ts";
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
  const contents = new Map(
    earlier.flatMap((release) =>
      release.contents.map((content) => [content.sha256, content] as const),
    ),
  );
  const packed = packedParts(repository, earlier);
  const made = new Map<string, Location>();
  const bases = new Map<string, Promise<string>>();
  const matching = openMatching();
  // Each holds about ten bytes for each byte of its file, and uses every processor by itself.
  const encoding = openLanes(1);

  async function locate(sha256: string): Promise<Location> {
    const known = made.get(sha256) ?? packed.get(sha256);
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

  async function has({ sha256, size }: Blob): Promise<boolean> {
    try {
      return (await locate(sha256)).size === size;
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
    const content = contents.get(sha256);
    if (content === undefined)
      throw new EdgeSyncError("REPOSITORY_INVALID", `no release has the content ${sha256}`);
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
    const known = contents.get(source.sha256)?.full;
    if (known !== undefined && (await has(known))) return known;
    const out = await run(() => compress(source, repository.temporary(), progress, signal));
    const smaller = out.size < source.size;
    const blob = smaller ? out : await spool(repository.temporary(), readSource(source));
    if (!smaller) refuseChanged(source, blob.sha256);
    made.set(blob.sha256, { file: blob.path, offset: 0, size: blob.size });
    return { sha256: blob.sha256, size: blob.size, encoding: smaller ? "zstd" : "identity" };
  }

  async function makeDelta(
    source: Source,
    base: string,
    signal: AbortSignal,
  ): Promise<DeltaBlob | undefined> {
    const known = contents
      .get(source.sha256)
      ?.deltas.find((delta) => delta.base === base && delta.codec === CODEC);
    if (known !== undefined && (await has(known))) return known;
    const oldFile = await baseFile(base, signal);
    await using old = await openRandom(oldFile);
    await using target = await openRandom(source.file);
    if (old.size === 0 || target.size !== source.size) return undefined;
    const advance = (bytes: number): void => progress.advance(bytes, source.path);
    const crew = { run, match: matching.match, advance };
    try {
      const delta = await encoding(() =>
        spool(repository.temporary(), encodeDelta(old, target, crew, signal)),
      );
      // The proof: only a delta from which a decoder has made the file is offered.
      const bytes = readRange(delta.path, 0, delta.size);
      const decoder = decoderOf(CODEC);
      const proof = decoder && (await digestOf(decoder.apply(old, bytes, source.size, signal)));
      if (proof?.sha256 !== source.sha256) return undefined;
      made.set(delta.sha256, { file: delta.path, offset: 0, size: delta.size });
      return { sha256: delta.sha256, size: delta.size, base, codec: CODEC };
    } catch (error) {
      // This pair cannot be encoded: the full blob does.
      if (codeOf(error) === "DELTA_INVALID") return undefined;
      throw error;
    }
  }

  return {
    locate,
    async make(source, baseDigests, signal) {
      progress.expect(source.size * (1 + baseDigests.length));
      const [full, ...deltas] = await Promise.all([
        makeFull(source, signal),
        ...baseDigests.map((base) => makeDelta(source, base, signal)),
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

function packedParts(
  repository: Repository,
  releases: readonly Release[],
): ReadonlyMap<string, Location> {
  const parts = new Map<string, Location>();
  for (const release of releases) {
    const sizes = new Map<string, number>();
    for (const content of release.contents)
      for (const blob of [content.full, ...content.deltas]) sizes.set(blob.sha256, blob.size);
    for (const pack of release.packs)
      for (const { sha256, offset } of pack.parts)
        parts.set(sha256, {
          file: blobFile(repository, pack.sha256),
          offset,
          size: sizes.get(sha256) ?? 0,
        });
  }
  return parts;
}

function readSource(source: Source): AsyncIterable<Uint8Array> {
  return readRange(source.file, 0, source.size);
}

async function compress(
  source: Source,
  path: string,
  progress: Progress,
  signal: AbortSignal,
): Promise<Spooled> {
  const hash = createHash("sha256");
  async function* input(): AsyncIterable<Uint8Array> {
    for await (const chunk of readSource(source)) {
      signal.throwIfAborted();
      hash.update(chunk);
      progress.advance(chunk.length, source.path);
      yield chunk;
    }
  }
  const encoder = createZstdCompress({
    pledgedSrcSize: source.size,
    params: {
      [constants.ZSTD_c_compressionLevel]: 19,
      // Never above what clients decode with; smaller for small files.
      [constants.ZSTD_c_windowLog]: Math.min(
        FULL_WINDOW_LOG,
        Math.max(10, Math.ceil(Math.log2(source.size + 1))),
      ),
    },
  });
  // Its error destroys the encoder, so that spool meets it.
  pipeline(Readable.from(input(), { objectMode: false }), encoder, () => undefined);
  const out = await spool(path, encoder);
  refuseChanged(source, hash.digest("hex"));
  return out;
}

/** What is compressed must be what was listed, also when somebody writes into the folder meanwhile. */
function refuseChanged(source: Source, sha256: string): void {
  if (sha256 !== source.sha256)
    throw new EdgeSyncError("TREE_INVALID", `${source.path} changed while it was read`);
}
