/** What a repository lists: the releases of its apps, and what its channels say. */
import { channelPath, parseChannelDocument } from "#core/channel-document.ts";
import type { ChannelDocument } from "#core/channel-document.ts";
import { EdgeSyncError } from "#core/errors.ts";
import type { Release } from "#core/release.ts";
import { channelRef } from "#core/values.ts";
import type { ChannelRef } from "#core/values.ts";
import { readPublished } from "./manifests.ts";
import { readTarget } from "./repository.ts";
import type { View } from "./repository.ts";

/** The role that signs for the releases of an app. */
export function appRole(app: string): string {
  return `app.${app}`;
}

/** The role that signs for a channel. */
export function channelRole({ app, channel }: ChannelRef): string {
  return `channel.${app}.${channel}`;
}

/** @throws EdgeSyncError RELEASE_NOT_FOUND when nothing was ever published for the app */
export function refuseUnknown({ roles }: Pick<View, "roles">, app: string): void {
  const names = [...roles.keys()];
  if (names.some((name) => name === appRole(app) || name.startsWith(`channel.${app}.`))) return;
  const apps = names.filter((name) => name.startsWith("app.")).map((name) => name.slice(4));
  throw new EdgeSyncError(
    "RELEASE_NOT_FOUND",
    `the repository has no app ${app}; expected ${apps.length === 0 ? "one that `release add` has made" : apps.join(", ")}`,
  );
}

/** A release as the role of its app lists it. */
export interface Listed {
  readonly app: string;
  readonly version: string;
  readonly platform: string;
  /** Of its document, a target. */
  readonly path: string;
  /** Grows with every release of a platform. */
  readonly order: number;
}

/** The releases of an app, or of every app: by app, the newest first, then by platform. */
export function listReleases(
  { roles }: Pick<View, "roles">,
  { app, platform }: { readonly app?: string | undefined; readonly platform?: string | undefined },
): readonly Listed[] {
  const found: Listed[] = [];
  for (const { signed } of roles.values())
    for (const [path, { custom }] of Object.entries(signed.targets)) {
      const release = releaseOf(path);
      if (release === undefined) continue;
      if (app !== undefined && release.app !== app) continue;
      if (platform !== undefined && release.platform !== platform) continue;
      found.push({ ...release, path, order: custom?.order ?? 0 });
    }
  return found.toSorted(
    (a, b) =>
      compare(a.app, b.app) ||
      b.order - a.order ||
      compare(a.version, b.version) ||
      compare(a.platform, b.platform),
  );
}

function compare(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}

function releaseOf(path: string): Pick<Listed, "app" | "version" | "platform"> | undefined {
  const [, app, version, platform] = /^releases\/([^/]+)\/([^/]+)\/([^/]+)\.json$/.exec(path) ?? [];
  if (app === undefined || version === undefined || platform === undefined) return undefined;
  return { app, version, platform };
}

/** @throws EdgeSyncError DIGEST_MISMATCH, RELEASE_INVALID */
export async function readRelease(
  repository: View,
  { app, path }: Pick<Listed, "app" | "path">,
  signal: AbortSignal,
): Promise<Release> {
  return (await readPublished(repository, appRole(app), path, signal)).release;
}

/**
 * One release of an app. The platform may be left out where there is only one.
 *
 * @throws EdgeSyncError RELEASE_NOT_FOUND, USAGE
 */
export function findRelease(
  repository: Pick<View, "roles">,
  app: string,
  version: string,
  platform: string | undefined,
): Listed {
  const all = listReleases(repository, { app });
  const having = all.filter((item) => item.version === version);
  const found = having.filter((item) => platform === undefined || item.platform === platform);
  const [first, ...others] = found;
  if (first === undefined) {
    const expected =
      having.length > 0
        ? `one for ${having.map((item) => item.platform).join(", ")}`
        : namesOf(all.map((item) => item.version));
    throw new EdgeSyncError(
      "RELEASE_NOT_FOUND",
      `the repository has no release ${app} ${version}${platform === undefined ? "" : ` for ${platform}`}; expected ${expected}`,
    );
  }
  if (others.length > 0)
    throw new EdgeSyncError(
      "USAGE",
      `${app} ${version} is there for ${found.map((item) => item.platform).join(", ")}; say which with --platform`,
    );
  return first;
}

function namesOf(versions: readonly string[]): string {
  const known = [...new Set(versions)];
  if (known.length === 0) return "an app that has releases";
  return `one of ${known.slice(0, 10).join(", ")}${known.length > 10 ? " or an older one" : ""}`;
}

/** What an app has to offer. */
export interface Shelf {
  /** Grows with every release; undefined for one that is not listed. */
  orderOf(platform: string, version: string): number | undefined;
  /** Platforms that have a version, sorted. */
  platformsOf(version: string): readonly string[];
  /** The newest first. */
  readonly versions: readonly string[];
}

/** What channels may point to. */
export function shelfOf(repository: Pick<View, "roles">, app: string): Shelf {
  const releases = listReleases(repository, { app });
  const orders = new Map(releases.map((item) => [`${item.platform} ${item.version}`, item.order]));
  const byVersion = Map.groupBy(releases, (item) => item.version);
  return {
    orderOf: (platform, version) => orders.get(`${platform} ${version}`),
    platformsOf: (version) => (byVersion.get(version) ?? []).map((item) => item.platform),
    versions: [...byVersion.keys()],
  };
}

export interface ListedChannel {
  readonly reference: ChannelRef;
  readonly document: ChannelDocument;
  /** Milliseconds since the epoch, while it is paused. */
  readonly pausedAt: number | undefined;
}

/** Every channel, or those of an app, by name. */
export async function listChannels(
  repository: View,
  app?: string,
): Promise<readonly ListedChannel[]> {
  const found: ListedChannel[] = [];
  for (const { signed } of repository.roles.values())
    for (const path of Object.keys(signed.targets)) {
      const reference = channelOf(path);
      if (reference === undefined || (app !== undefined && reference.app !== app)) continue;
      const channel = await findChannel(repository, reference);
      if (channel !== undefined) found.push(channel);
    }
  return found.toSorted((a, b) => compare(nameOf(a), nameOf(b)));
}

function nameOf({ reference }: ListedChannel): string {
  return channelRef.format(reference);
}

function channelOf(path: string): ChannelRef | undefined {
  const name = /^channels\/([^/]+\/[^/]+)\.json$/.exec(path)?.[1];
  return name === undefined ? undefined : channelRef.parse(name);
}

export async function findChannel(
  repository: View,
  reference: ChannelRef,
): Promise<ListedChannel | undefined> {
  const role = channelRole(reference);
  const path = channelPath(reference.app, reference.channel);
  const file = repository.roles.get(role)?.signed.targets[path];
  if (file === undefined) return undefined;
  const document = parseChannelDocument(await readTarget(repository, role, path));
  const paused = file.custom?.paused;
  return {
    reference,
    document,
    pausedAt: paused === undefined ? undefined : Date.parse(paused),
  };
}

/** Versions of an app that its channels name, with who names them: what must stay listed. */
export async function namedByChannels(
  repository: View,
  app: string,
): Promise<ReadonlyMap<string, readonly string[]>> {
  const named = new Map<string, string[]>();
  for (const { reference, document } of await listChannels(repository, app)) {
    const name = channelRef.format(reference);
    const add = (version: string, how: string): void => {
      const known = named.get(version);
      if (known === undefined) named.set(version, [how]);
      else if (!known.includes(how)) known.push(how);
    };
    for (const { version } of document.releases) add(version, name);
    for (const { version } of document.rollout?.from ?? []) add(version, `${name} (roll-out from)`);
    if (document.minimum !== undefined) add(document.minimum, `${name} (minimum)`);
  }
  return named;
}
