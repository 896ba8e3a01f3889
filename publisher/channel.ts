/** Points a channel at a version. */
import { EdgeSyncError } from "#core/errors.ts";
import { channelPath, parseChannelDocument } from "#core/channel-document.ts";
import { serialize } from "#core/document.ts";
import { parseReleaseDocument } from "#core/release-document.ts";
import { manifestPath } from "#core/release.ts";
import type { ChannelDocument } from "#core/channel-document.ts";
import type { Keyring } from "./keys.ts";
import { findSigners, publish } from "./publish.ts";
import { appRole } from "./catalog.ts";
import { readTarget } from "./repository.ts";
import type { Repository } from "./repository.ts";

/**
 * For each platform that has the version. The sequence grows each time, also when nothing else changes or the version goes back.
 *
 * @throws EdgeSyncError RELEASE_NOT_FOUND, KEY_INVALID, and as the disk
 */
export async function setChannel(
  repository: Repository,
  keyring: Keyring,
  {
    app,
    channel,
    version,
  }: { readonly app: string; readonly channel: string; readonly version: string },
  now: number,
): Promise<ChannelDocument> {
  const releases = await platformsOf(repository, app, version);
  if (releases.length === 0)
    throw new EdgeSyncError("RELEASE_NOT_FOUND", `the repository has no release ${app} ${version}`);
  const role = `channel.${app}.${channel}`;
  const path = channelPath(app, channel);
  const listed = repository.roles.get(role)?.signed.targets[path] !== undefined;
  const before = listed
    ? parseChannelDocument(await readTarget(repository, role, path))
    : undefined;
  const document: ChannelDocument = {
    schema: 1,
    app,
    channel,
    sequence: (before?.sequence ?? 0) + 1,
    releases,
  };
  const bytes = serialize(document);
  parseChannelDocument(bytes);
  const signers = await findSigners(repository, keyring, role);
  await publish(
    repository,
    keyring,
    signers,
    { role, paths: [path], targets: [{ path, bytes }] },
    now,
  );
  return document;
}

async function platformsOf(
  repository: Repository,
  app: string,
  version: string,
): Promise<ChannelDocument["releases"]> {
  const targets = repository.roles.get(appRole(app))?.signed.targets ?? {};
  const found: { platform: string; version: string }[] = [];
  for (const path of Object.keys(targets)) {
    const platform = /\/([^/]+)\.json$/.exec(path)?.[1] ?? "";
    if (path !== manifestPath(app, version, platform)) continue;
    // A channel never points to what clients could not read.
    parseReleaseDocument(await readTarget(repository, appRole(app), path));
    found.push({ platform, version });
  }
  return found.toSorted((a, b) => (a.platform < b.platform ? -1 : 1));
}
