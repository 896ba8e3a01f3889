/** Takes releases off the list of their app; their files go with the next garbage collection. */
import { EdgeSyncError } from "#core/errors.ts";
import { appRole, findRelease, listReleases, namedByChannels } from "./catalog.ts";
import type { Listed } from "./catalog.ts";
import type { Keyring } from "./keys.ts";
import { findSigners, publish } from "./publish.ts";
import type { Repository } from "./repository.ts";

/**
 * @param platform undefined for every one
 * @throws EdgeSyncError RELEASE_NOT_FOUND, RELEASE_IN_USE when a channel names one of them, KEY_INVALID, and as the disk
 */
export async function removeReleases(
  repository: Repository,
  keyring: Keyring,
  wanted: {
    readonly app: string;
    readonly versions: readonly string[];
    readonly platform: string | undefined;
  },
  now: number,
): Promise<readonly Listed[]> {
  const { app, platform } = wanted;
  const named = await namedByChannels(repository, app);
  const removed: Listed[] = [];
  for (const version of new Set(wanted.versions)) {
    const found = listReleases(repository, { app, platform }).filter(
      (item) => item.version === version,
    );
    // Says what there is.
    if (found.length === 0) findRelease(repository, app, version, platform);
    const channels = named.get(version);
    if (channels !== undefined)
      throw new EdgeSyncError(
        "RELEASE_IN_USE",
        `${app} ${version} is named by ${channels.join(", ")}`,
      );
    removed.push(...found);
  }
  const role = appRole(app);
  const signers = await findSigners(repository, keyring, role);
  const remove = removed.map((item) => item.path);
  await publish(repository, keyring, signers, { role, paths: [], targets: [], remove }, now);
  return removed;
}
