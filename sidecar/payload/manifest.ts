/** The manifest of a release on its way: fetched whole or as a delta from that of the installed release, and read piece by piece. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { knownCodecs } from "#core/delta/codec-names.ts";
import { decodeFull } from "#core/delta/full.ts";
import { EdgeSyncError } from "#core/errors.ts";
import { openManifestReader } from "#core/manifest.ts";
import type { ManifestFile, ReleaseDocument } from "#core/release-document.ts";
import type { Release } from "#core/release.ts";
import type { Downloads } from "../repository/download.ts";
import { chunksOf, hashStretch, roomForChunk } from "../disk/durable.ts";
import type { Disk } from "../disk/durable.ts";
import { hasDigest, unlessInvalid, writeFile } from "./make-file.ts";
import { atOnce } from "../disk/unsynced.ts";

interface ManifestDeps {
  readonly disk: Disk;
  /** Absolute path of `partial/`. */
  readonly partial: string;
  readonly downloads: Downloads;
}

/** A manifest in `partial/`, named by its digest. */
export interface BroughtManifest {
  readonly release: Release;
  readonly path: string;
}

/**
 * @param base path of a manifest that may serve as the base of a delta
 * @throws EdgeSyncError RELEASE_INVALID, DIGEST_MISMATCH, and as `Downloads.fetch`
 */
export async function bringManifest(
  { manifest, ...document }: ReleaseDocument,
  base: string | undefined,
  deps: ManifestDeps,
  signal: AbortSignal,
): Promise<BroughtManifest> {
  const { disk, partial } = deps;
  const path = join(partial, manifest.sha256);
  if (!(await hasDigest(disk, path, manifest.sha256, signal))) {
    if (!(await fromDelta(manifest, path, base, deps, signal)))
      await fromFull(manifest, path, deps, signal);
  }
  const release = await readManifest(disk, path, signal);
  const same = (["app", "version", "platform", "tree"] as const).every(
    (field) => release?.[field] === document[field],
  );
  if (release === undefined || !same)
    throw new EdgeSyncError(
      "RELEASE_INVALID",
      `the manifest of ${document.app} ${document.version} ${document.platform} describes another release`,
    );
  return { release, path };
}

async function fromDelta(
  manifest: ManifestFile,
  path: string,
  base: string | undefined,
  { disk, downloads }: ManifestDeps,
  signal: AbortSignal,
): Promise<boolean> {
  if (base === undefined || manifest.deltas.length === 0) return false;
  await using old = await disk.openRead(base);
  if (old === undefined) return false;
  const hash = createHash("sha256");
  await hashStretch(old, old.size, hash, signal);
  const digest = hash.digest("hex");
  const delta = manifest.deltas.find(
    (item) => item.base === digest && knownCodecs.includes(item.codec),
  );
  if (delta === undefined || delta.size >= manifest.full.size) return false;
  await downloads.bring(delta, signal);
  await disk.remove(path);
  const { decoderOf } = await import("#core/delta/codec.ts");
  const read = downloads.read(delta, roomForChunk(delta.size));
  const bytes = decoderOf(delta.codec)?.apply(old, read, manifest.size, signal);
  return (
    bytes !== undefined &&
    (await unlessInvalid(
      writeFile({ disk, path, mode: FILE_MODE, unsynced: atOnce }, manifest, bytes, signal),
    ))
  );
}

async function fromFull(
  manifest: ManifestFile,
  path: string,
  { disk, downloads }: ManifestDeps,
  signal: AbortSignal,
): Promise<void> {
  const { full, size } = manifest;
  await downloads.bring(full, signal);
  // Then the blob is the manifest, and has its name already.
  if (full.encoding === "identity" && full.sha256 === manifest.sha256) return;
  await disk.remove(path);
  const bytes = decodeFull(full.encoding, downloads.read(full), size, signal);
  if (
    !(await writeFile({ disk, path, mode: FILE_MODE, unsynced: atOnce }, manifest, bytes, signal))
  )
    throw new EdgeSyncError(
      "DIGEST_MISMATCH",
      `the full blob ${full.sha256} does not give the manifest ${manifest.sha256}`,
    );
}

const FILE_MODE = 0o644;

/**
 * `undefined` when there is no such file.
 *
 * @throws EdgeSyncError RELEASE_INVALID
 */
export async function readManifest(
  disk: Disk,
  path: string,
  signal: AbortSignal,
): Promise<Release | undefined> {
  await using file = await disk.openRead(path);
  if (file === undefined) return undefined;
  const reader = openManifestReader();
  for await (const chunk of chunksOf(file, 0, file.size)) {
    signal.throwIfAborted();
    reader.take(chunk);
  }
  return reader.done();
}
