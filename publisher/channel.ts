/** Changes channels: reads what one says, lets channel-change.ts decide, signs. */
import { channelPath, parseChannelDocument } from "#core/channel-document.ts";
import type { ChannelDocument } from "#core/channel-document.ts";
import { serialize } from "#core/document.ts";
import { parseReleaseDocument } from "#core/release-document.ts";
import { manifestPath } from "#core/release.ts";
import type { ChannelRef } from "#core/values.ts";
import { appRole, channelRole, findChannel, shelfOf } from "./catalog.ts";
import { pointTo, releasesOf } from "./channel-change.ts";
import type { Before } from "./channel-change.ts";
import type { Keyring } from "./keys.ts";
import { refuseFull } from "./limits.ts";
import { isoSeconds } from "./metadata.ts";
import { findSigners, publish } from "./publish.ts";
import { readTarget } from "./repository.ts";
import type { Repository, View } from "./repository.ts";

/** A channel as it is, with what a change needs to know. */
export interface Look extends Before {
  /** Milliseconds since the epoch, while it is paused. */
  readonly pausedAt: number | undefined;
}

export async function lookAt(repository: View, reference: ChannelRef): Promise<Look> {
  const channel = await findChannel(repository, reference);
  return {
    reference,
    document: channel?.document,
    pausedAt: channel?.pausedAt,
    shelf: shelfOf(repository, reference.app),
  };
}

/**
 * Signs what a channel says from now on.
 *
 * @param change from what it says; pure
 * @throws EdgeSyncError KEY_INVALID, whatever `change` throws, and as the disk
 */
export async function changeChannel(
  repository: Repository,
  keyring: Keyring,
  reference: ChannelRef,
  change: (before: Look) => ChannelDocument,
  now: number,
): Promise<ChannelDocument> {
  const before = await lookAt(repository, reference);
  const document = change(before);
  const { app, channel } = reference;
  // A channel never points to what clients could not read.
  for (const { platform, version } of document.releases)
    parseReleaseDocument(
      await readTarget(repository, appRole(app), manifestPath(app, version, platform)),
    );
  const path = channelPath(app, channel);
  const bytes = serialize(document);
  parseChannelDocument(bytes);
  const role = channelRole(reference);
  refuseFull(repository, role);
  const signers = await findSigners(repository, keyring, role);
  const paused = pausedSince(before, document, now);
  const target = { path, bytes, ...(paused !== undefined && { custom: { paused } }) };
  await publish(repository, keyring, signers, { role, paths: [path], targets: [target] }, now);
  return document;
}

/** Beside the document and not in it: sites need not know, and `resume` does. */
function pausedSince(
  { pausedAt }: Look,
  { rollout }: ChannelDocument,
  now: number,
): string | undefined {
  return rollout?.paused === true ? isoSeconds(pausedAt ?? now) : undefined;
}

/**
 * Points a channel at a version at once, for every platform that has it.
 *
 * @throws EdgeSyncError RELEASE_NOT_FOUND, RELEASE_DOWNGRADE, and as {@link changeChannel}
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
  return await changeChannel(
    repository,
    keyring,
    { app, channel },
    (before) => pointTo(before, releasesOf(before, { version, platforms: [] }), {}),
    now,
  );
}
