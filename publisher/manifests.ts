/** Manifests in a repository: read through the signed document that leads to them, and written with deltas from earlier ones. */
import { createHash } from "node:crypto";
import { stat } from "node:fs/promises";
import type { Run } from "#core/delta/encode.ts";
import { decodeFull } from "#core/delta/full.ts";
import { EdgeSyncError } from "#core/errors.ts";
import { formatManifest, openManifestReader } from "#core/manifest.ts";
import { parseReleaseDocument } from "#core/release-document.ts";
import type { ManifestFile, ReleaseDocument } from "#core/release-document.ts";
import type { Release, ReleaseParts } from "#core/release.ts";
import { HIGHEST_LEVEL, compressFile } from "./compress.ts";
import type { Deltas } from "./deltas.ts";
import { place, readRange, spool } from "./files.ts";
import { blobFile, readTarget } from "./repository.ts";
import type { Repository, View } from "./repository.ts";

/** Bytes of a manifest that is fetched whole: a delta would save nothing that counts. */
const WITHOUT_DELTAS = 4096;
/** A delta is kept only when it is smaller than this part of the full blob. */
const WORTH = 0.9;

/** A published release, and what it is known by. */
export interface PublishedRelease {
  readonly document: ReleaseDocument;
  readonly release: Release;
}

/**
 * @param path of the document, as `manifestPath` gives it
 * @throws EdgeSyncError RELEASE_NOT_FOUND, RELEASE_INVALID, DIGEST_MISMATCH, REPOSITORY_INVALID
 */
export async function readPublished(
  repository: View,
  role: string,
  path: string,
  signal: AbortSignal,
): Promise<PublishedRelease> {
  const document = parseReleaseDocument(await readTarget(repository, role, path));
  return { document, release: await readManifest(repository, document, signal) };
}

/**
 * The manifest that a document leads to, from the full blob.
 *
 * @throws EdgeSyncError RELEASE_INVALID, DIGEST_MISMATCH, REPOSITORY_INVALID
 */
export async function readManifest(
  repository: Pick<Repository, "path">,
  document: ReleaseDocument,
  signal: AbortSignal,
): Promise<Release> {
  const reader = openManifestReader();
  for await (const chunk of manifestBytes(repository, document.manifest, signal))
    reader.take(chunk);
  const release = reader.done();
  const same = (["app", "version", "platform", "tree"] as const).every(
    (field) => release[field] === document[field],
  );
  if (!same)
    throw new EdgeSyncError(
      "RELEASE_INVALID",
      `the manifest of ${document.app} ${document.version} ${document.platform} describes another release`,
    );
  return release;
}

/** The text of a manifest, whose digest has been checked when the last piece has been given. */
export async function* manifestBytes(
  repository: Pick<Repository, "path">,
  { sha256, size, full }: ManifestFile,
  signal: AbortSignal,
): AsyncIterable<Uint8Array> {
  const path = blobFile(repository, full.sha256);
  const found = await stat(path).catch((cause: unknown) => {
    throw new EdgeSyncError("REPOSITORY_INVALID", `${path} is missing`, { cause });
  });
  if (found.size !== full.size)
    throw new EdgeSyncError("REPOSITORY_INVALID", `${path} does not have ${full.size} bytes`);
  const blob = readRange(path, 0, full.size);
  const hash = createHash("sha256");
  for await (const chunk of decodeFull(full.encoding, blob, size, signal)) {
    hash.update(chunk);
    yield chunk;
  }
  if (hash.digest("hex") !== sha256)
    throw new EdgeSyncError("DIGEST_MISMATCH", `blob ${full.sha256} makes another manifest`);
}

/**
 * Writes the manifest of a new release into the repository, compressed, with deltas from those of earlier releases.
 *
 * @param earlier manifests that a site may have
 * @throws EdgeSyncError RELEASE_INVALID for one that sites would not take
 */
export async function writeManifest(
  repository: Repository,
  parts: ReleaseParts & { readonly tree: string },
  earlier: readonly ManifestFile[],
  { run, deltas: maker }: { readonly run: Run; readonly deltas: Deltas },
  signal: AbortSignal,
): Promise<{ readonly release: Release; readonly manifest: ManifestFile }> {
  // As clients will read it; one that they would refuse is not published.
  const reader = openManifestReader();
  function* text(): Generator<Buffer> {
    for (const piece of inPieces(formatManifest(parts))) {
      reader.take(piece);
      yield piece;
    }
  }
  const file = await spool(repository.temporary(), text());
  const release = reader.done();
  const { sha256, size } = file;
  const compressed = await run(() =>
    compressFile(
      file,
      repository.temporary(),
      { level: HIGHEST_LEVEL, threads: 1 },
      () => undefined,
      signal,
    ),
  );
  const zstd = compressed.size < size;
  const full = zstd ? compressed : file;
  const deltas: ManifestFile["deltas"][number][] = [];
  for (const base of size < WITHOUT_DELTAS ? [] : earlier) {
    const old = await spool(repository.temporary(), manifestBytes(repository, base, signal));
    const delta = await maker.make(old.path, file, repository.temporary(), () => undefined, signal);
    if (delta === undefined || delta.size >= full.size * WORTH) continue;
    deltas.push({ sha256: delta.sha256, size: delta.size, base: base.sha256, codec: delta.codec });
    await place(delta.path, blobFile(repository, delta.sha256));
  }
  await place(full.path, blobFile(repository, full.sha256));
  const encoding = zstd ? "zstd" : "identity";
  return {
    release,
    manifest: {
      sha256,
      size,
      full: { sha256: full.sha256, size: full.size, encoding },
      deltas,
    },
  };
}

/** Lines together, so that there are not as many writes as lines. */
function* inPieces(lines: Iterable<string>): Generator<Buffer> {
  let piece = "";
  for (const line of lines) {
    piece += line;
    if (piece.length < 256 * 1024) continue;
    yield Buffer.from(piece);
    piece = "";
  }
  yield Buffer.from(piece);
}
