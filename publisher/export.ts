/**
 * A bundle: the part of a repository that an app needs on one platform, as a tar with metadata of its own, for sites that no network
 * reaches. It has the layout of the repository, so that whatever reads one reads the other.
 */
import { rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { channelPath, versionFor } from "#core/channel-document.ts";
import { EdgeSyncError } from "#core/errors.ts";
import { manifestFilesOf } from "#core/release-document.ts";
import { blobPath, filesOf } from "#core/release.ts";
import { END_OF_ARCHIVE, tarHeader, tarPadding } from "#core/ustar.ts";
import { appRole, channelRole, findRelease, listChannels } from "./catalog.ts";
import type { ListedChannel } from "./catalog.ts";
import { place, readRange, refuseNoFile, spool } from "./files.ts";
import { requireKeys } from "./keys.ts";
import type { Keyring } from "./keys.ts";

import { readPublished } from "./manifests.ts";
import type { PublishedRelease } from "./manifests.ts";
import { isoSeconds, makeTimestamp, sign, toBytes } from "./metadata.ts";
import { signAnew } from "./publish.ts";
import { targetLocation } from "./repository.ts";
import type { Repository } from "./repository.ts";
import { sitePlan } from "./site-plan.ts";
import type { Progress } from "./work.ts";

export interface Wanted {
  readonly app: string;
  readonly platform: string;
  /** Names of channels; none for all of the app. */
  readonly channels: readonly string[];
  /** Releases beside those that the channels name. */
  readonly versions: readonly string[];
  /** Releases that the sites have: the bundle then holds what an update from them takes. None: all that there is of a release. */
  readonly from: readonly string[];
  /** Milliseconds for which sites may take the bundle up. */
  readonly lifetimeMs: number;
}

export interface Exported {
  readonly channels: readonly string[];
  readonly versions: readonly string[];
  readonly files: number;
  readonly bytes: number;
  /** Milliseconds since the epoch: when sites stop taking it up. It is earlier than asked for where another signature expires first. */
  readonly expires: number;
}

/**
 * The timestamp in it is one of its own, so that it can live longer than that of the repository; the repository's is signed anew with a
 * number beyond, and is thereby the newer one for every site that has seen both.
 *
 * @param output replaced when it exists, and only by a whole bundle
 * @throws EdgeSyncError RELEASE_NOT_FOUND, KEY_INVALID, and as the disk
 */
export async function exportBundle(
  repository: Repository,
  keyring: Keyring,
  wanted: Wanted,
  { output, now }: { readonly output: string; readonly now: number },
  progress: Progress,
  signal: AbortSignal,
): Promise<Exported> {
  // Before anything is signed.
  await refuseNoFile(output);
  const channels = await channelsOf(repository, wanted);
  const versions = versionsOf(channels, wanted);
  const releases = await Promise.all(
    versions.map(async (version) => await releaseOf(repository, wanted, version, signal)),
  );
  const bases = await Promise.all(
    wanted.from.map(async (version) => await releaseOf(repository, wanted, version, signal)),
  );
  const files = new Set<string>();
  for (const name of metadataFiles(repository, channels, wanted.app)) files.add(name);
  for (const { reference } of channels)
    files.add(targetFileOf(repository, channelRole(reference), pathOf(reference)));
  for (const { path, published } of releases) {
    files.add(targetFileOf(repository, appRole(wanted.app), path));
    for (const sha256 of blobsOf(published, bases)) files.add(blobPath(sha256));
  }

  const set = await keyring.load();
  const { roles } = repository.root.signed;
  const signers = {
    snapshot: requireKeys(set, "snapshot", roles.snapshot),
    timestamp: requireKeys(set, "timestamp", roles.timestamp),
  };
  const listed = repository.timestamp.signed;
  const own = {
    ...makeTimestamp(listed.version + 1, listed.meta["snapshot.json"], now),
    expires: isoSeconds(now + wanted.lifetimeMs),
  };
  const timestamp = toBytes(await sign(own, signers.timestamp));
  // Before the bundle exists: no site may ever see two timestamps of one number.
  const beyond = { ...repository.timestamp, signed: { ...listed, version: own.version } };
  await signAnew({ ...repository, timestamp: beyond }, set, signers, new Map(), now);

  const written = await writeBundle(
    repository.path,
    [...files],
    timestamp,
    output,
    progress,
    signal,
  );
  return {
    channels: channels.map(({ reference }) => reference.channel),
    versions,
    ...written,
    expires: firstExpiry(repository, channels, wanted.app, own.expires),
  };
}

async function channelsOf(
  repository: Repository,
  { app, channels }: Wanted,
): Promise<readonly ListedChannel[]> {
  const all = await listChannels(repository, app);
  const names = all.map(({ reference }) => reference.channel);
  const missing = channels.find((name) => !names.includes(name));
  if (missing !== undefined || all.length === 0)
    throw new EdgeSyncError(
      "RELEASE_NOT_FOUND",
      `${app} has no channel${missing === undefined ? "" : ` ${missing}`}; expected ${names.join(", ") || "one that `channel set` has made"}`,
    );
  return all.filter(
    ({ reference }) => channels.length === 0 || channels.includes(reference.channel),
  );
}

/** What the channels name for the platform, also on the way to it and while a roll-out goes on. */
function versionsOf(
  channels: readonly ListedChannel[],
  { app, platform, versions }: Wanted,
): readonly string[] {
  const named = channels.flatMap(({ document }) => {
    const version = versionFor(document.releases, platform);
    if (version === undefined) return [];
    return [version, versionFor(document.rollout?.from ?? [], platform), document.minimum];
  });
  const all = new Set([...named.filter((version) => version !== undefined), ...versions]);
  if (all.size === 0)
    throw new EdgeSyncError(
      "RELEASE_NOT_FOUND",
      `no channel of ${app} names a release for ${platform}`,
    );
  return [...all];
}

interface Found {
  readonly path: string;
  readonly published: PublishedRelease;
}

async function releaseOf(
  repository: Repository,
  { app, platform }: Wanted,
  version: string,
  signal: AbortSignal,
): Promise<Found> {
  const { path } = findRelease(repository, app, version, platform);
  return { path, published: await readPublished(repository, appRole(app), path, signal) };
}

/** Digests of the files that bring a release: to a site that has one of the bases, by the plan that it will make; without bases to any. */
function blobsOf(
  { document, release }: PublishedRelease,
  bases: readonly Found[],
): ReadonlySet<string> {
  const needed = new Set<string>();
  for (const { sha256 } of manifestFilesOf(document)) needed.add(sha256);
  if (bases.length === 0) for (const { sha256 } of filesOf(release)) needed.add(sha256);
  for (const { published } of bases) {
    const plan = sitePlan(release, published.release);
    for (const fetch of plan.fetches)
      needed.add(fetch.fetch === "blob" ? fetch.blob.sha256 : fetch.pack.sha256);
  }
  return needed;
}

function pathOf({ app, channel }: ListedChannel["reference"]): string {
  return channelPath(app, channel);
}

function targetFileOf(repository: Repository, role: string, path: string): string {
  const file = repository.roles.get(role)?.signed.targets[path];
  if (file === undefined)
    throw new EdgeSyncError("RELEASE_NOT_FOUND", `the repository has no target ${path}`);
  return targetLocation(path, file.hashes.sha256);
}

/** Roles whose metadata a client needs for the app and the channels. */
function rolesOf(channels: readonly ListedChannel[], app: string): readonly string[] {
  return ["targets", appRole(app), ...channels.map(({ reference }) => channelRole(reference))];
}

function metadataFiles(
  { root, snapshot }: Repository,
  channels: readonly ListedChannel[],
  app: string,
): readonly string[] {
  const roots = Array.from({ length: root.signed.version }, (_, index) => `${index + 1}.root.json`);
  const roles = rolesOf(channels, app).flatMap((role) => {
    const meta = snapshot.signed.meta[`${role}.json`];
    return meta === undefined ? [] : [`${meta.version}.${role}.json`];
  });
  const names = [...roots, `${snapshot.signed.version}.snapshot.json`, ...roles];
  return names.map((name) => `metadata/${name}`);
}

function firstExpiry(
  { root, snapshot, targets, roles }: Repository,
  channels: readonly ListedChannel[],
  app: string,
  own: string,
): number {
  const others = rolesOf(channels, app).flatMap((role) => roles.get(role)?.signed.expires ?? []);
  const all = [
    own,
    root.signed.expires,
    snapshot.signed.expires,
    targets.signed.expires,
    ...others,
  ];
  return Math.min(...all.map((text) => Date.parse(text)));
}

async function writeBundle(
  root: string,
  names: readonly string[],
  timestamp: Buffer,
  output: string,
  progress: Progress,
  signal: AbortSignal,
): Promise<{ readonly files: number; readonly bytes: number }> {
  const files: { name: string; size: number }[] = [];
  for (const name of names.toSorted()) {
    const { size } = await stat(join(root, name)).catch((cause: unknown) => {
      throw new EdgeSyncError("REPOSITORY_INVALID", `${root} has no ${name}`, { cause });
    });
    files.push({ name, size });
    progress.expect(size);
  }
  async function* archive(): AsyncIterable<Uint8Array> {
    yield tarHeader({ name: "metadata/timestamp.json", size: timestamp.length });
    yield timestamp;
    yield tarPadding(timestamp.length);
    for (const { name, size } of files) {
      signal.throwIfAborted();
      yield tarHeader({ name, size });
      for await (const chunk of readRange(join(root, name), 0, size)) {
        progress.advance(chunk.length, name);
        yield chunk;
      }
      yield tarPadding(size);
    }
    yield END_OF_ARCHIVE;
  }
  // Beside its place and not in the repository, which may be on another disk.
  const part = `${output}.part`;
  await rm(part, { force: true });
  const { size } = await spool(part, archive());
  await place(part, output);
  progress.end();
  return { files: files.length + 1, bytes: size };
}
