/** What lies in an offline bundle: some of the files of a repository, under the names that they have there. */
import { tarEntries } from "./ustar.ts";
import type { TarEntry } from "./ustar.ts";
import type { RandomAccess } from "./delta/decoder.ts";
import { EdgeSyncError } from "./errors.ts";

/** Files in one bundle: those of a release of 50,000 files several times over. */
export const BUNDLE_FILES_LIMIT = 250_000;

/** What a bundle may hold. Some tars begin every name with `./`. */
const NAME =
  /^(?:\.\/)?(metadata\/[^/]{1,255}\.json|targets\/(?:[^/]{1,255}\/){1,8}([0-9a-f]{64})\.[^/]{1,190}|blobs\/sha256\/([0-9a-f]{64}))$/;

export interface BundleFile {
  /** Relative to the root of the repository. */
  readonly name: string;
  /** The digest that the name promises; metadata have none. */
  readonly sha256: string | undefined;
}

/** `undefined` for what no repository has. */
export function bundleFile(path: string): BundleFile | undefined {
  const [, name, target, blob] = NAME.exec(path) ?? [];
  return name === undefined ? undefined : { name, sha256: target ?? blob };
}

/**
 * Where each file of a bundle is; what does not belong in one is passed over.
 *
 * @throws EdgeSyncError BUNDLE_INVALID
 */
export async function readBundle(
  archive: RandomAccess,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, Pick<TarEntry, "offset" | "size">>> {
  const places = new Map<string, Pick<TarEntry, "offset" | "size">>();
  let count = 0;
  for await (const { name, offset, size } of tarEntries(archive, signal)) {
    // Also what does not belong in one: an archive of something else must not hold up a look for hours.
    if (++count > BUNDLE_FILES_LIMIT)
      throw new EdgeSyncError(
        "BUNDLE_INVALID",
        `the bundle holds more than ${BUNDLE_FILES_LIMIT} files`,
      );
    const file = bundleFile(name);
    if (file === undefined) continue;
    places.set(file.name, { offset, size });
  }
  return places;
}
