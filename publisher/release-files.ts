/** The files below `blobs/` that a release needs. */
import { manifestFilesOf, parseReleaseDocument } from "#core/release-document.ts";
import { filesOf } from "#core/release.ts";
import { readManifest } from "./manifests.ts";

/**
 * Digests of its manifest's files, of packs, and of blobs that are in none; some may be named more than once.
 *
 * @param root folder of the repository
 * @param target bytes of the release's document
 * @throws EdgeSyncError RELEASE_INVALID, REPOSITORY_INVALID, DIGEST_MISMATCH
 */
export async function* blobsOf(
  root: string,
  target: Uint8Array,
  signal: AbortSignal,
): AsyncGenerator<string> {
  const document = parseReleaseDocument(target);
  for (const { sha256 } of manifestFilesOf(document)) yield sha256;
  const release = await readManifest({ path: root }, document, signal);
  for (const { sha256 } of filesOf(release)) yield sha256;
}
