/**
 * What becomes of a channel document: pure, so that every rule about going forward and back is in one place. Sites follow what is
 * signed here without asking; what would surprise them is refused.
 */
import type { ChannelDocument, Releases, Rollout } from "#core/channel-document.ts";
import { versionFor } from "#core/channel-document.ts";
import { EdgeSyncError } from "#core/errors.ts";
import { shareAt } from "#core/rollout.ts";
import type { ChannelRef } from "#core/values.ts";
import type { Shelf } from "./catalog.ts";
import { isoSeconds } from "./metadata.ts";

/** A channel as it is, or as it would begin. */
export interface Before {
  readonly reference: ChannelRef;
  /** Undefined for a channel that does not exist yet. */
  readonly document: ChannelDocument | undefined;
  readonly shelf: Shelf;
}

export interface Target {
  readonly version: string;
  /** Empty for every platform that has the version. */
  readonly platforms: readonly string[];
}

/** Absent: as before. */
export interface Minimum {
  /** Null for none. */
  readonly minimum?: string | null;
}

export interface Schedule {
  /** Milliseconds since the epoch. */
  readonly start?: number;
  /** Seconds. */
  readonly duration?: number;
  readonly percent?: number;
  readonly salt?: string;
}

/** A platform that lacks the version stays where it is. @throws EdgeSyncError RELEASE_NOT_FOUND */
export function releasesOf({ shelf, reference }: Before, { version, platforms }: Target): Releases {
  const having = shelf.platformsOf(version);
  const missing = platforms.find((platform) => !having.includes(platform));
  if (having.length === 0 || missing !== undefined)
    throw new EdgeSyncError(
      "RELEASE_NOT_FOUND",
      `the repository has no release ${reference.app} ${version}${missing === undefined ? "" : ` for ${missing}`}; expected ${listed(having.length === 0 ? shelf.versions : having)}`,
    );
  return (platforms.length === 0 ? having : platforms).map((platform) => ({ platform, version }));
}

function listed(words: readonly string[]): string {
  const shown = words.slice(0, 10).join(", ");
  if (words.length === 0) return "one that `edgesync release add` has made";
  return words.length > 10 ? `${shown} or an older one` : `one of ${shown}`;
}

/** Points at releases, for every site at once. @throws EdgeSyncError RELEASE_DOWNGRADE */
export function pointTo(before: Before, wanted: Releases, minimum: Minimum): ChannelDocument {
  const next = forward(before, wanted, minimum);
  refuseOlder(before, wanted);
  return next;
}

/**
 * Points at releases, for more and more sites. @throws EdgeSyncError RELEASE_DOWNGRADE, USAGE when the channel points there already
 */
export function rollOut(
  before: Before,
  wanted: Releases,
  minimum: Minimum,
  schedule: Schedule,
  now: number,
): ChannelDocument {
  const { document, reference } = before;
  const next = forward(before, wanted, minimum);
  refuseOlder(before, wanted);
  if (document !== undefined && wanted.every((item) => points(document.releases, item)))
    throw wrong(
      `${nameOf(reference)} points to ${versionsOf(wanted)} already; a roll-out needs another version, or one that is under way`,
    );
  const { start = now, duration = 0, percent = 100, salt = String(next.sequence) } = schedule;
  const from = steady(document, now);
  return {
    ...next,
    rollout: { start: isoSeconds(start), duration, percent, paused: false, salt, from },
  };
}

/** Another schedule for the roll-out that is under way: every site keeps its number. @throws EdgeSyncError USAGE */
export function reschedule(before: Before, minimum: Minimum, schedule: Schedule): ChannelDocument {
  const { document, rollout } = underWay(before, "name a version to begin one");
  if (schedule.salt !== undefined && schedule.salt !== rollout.salt)
    throw wrong(
      "the salt of a roll-out that is under way cannot change: sites would change places",
    );
  const { start, duration = rollout.duration, percent = rollout.percent } = schedule;
  return {
    ...withMinimum(before, document, minimum),
    rollout: {
      ...rollout,
      start: start === undefined ? rollout.start : isoSeconds(start),
      duration,
      percent,
    },
  };
}

/**
 * Keeps every site that has not swapped yet from it.
 *
 * @param from what sites that have nothing install meanwhile; needed when every site was told at once, since then nothing tells what was
 * there before
 * @throws EdgeSyncError USAGE
 */
export function pause(before: Before, from: Releases | undefined, now: number): ChannelDocument {
  const document = existing(before);
  const { rollout } = document;
  const name = nameOf(before.reference);
  if (rollout?.paused === true) throw wrong(`${name} is paused already`);
  if (rollout !== undefined && from !== undefined)
    throw wrong(`${name} has a roll-out, which knows what was before; --from is for one without`);
  if (rollout !== undefined) return { ...document, rollout: { ...rollout, paused: true } };
  if (from === undefined)
    throw wrong(
      `${name} has no roll-out under way; --from <version> says what sites that have nothing install while it is paused`,
    );
  const salt = String(document.sequence);
  const start = isoSeconds(now);
  return { ...document, rollout: { start, duration: 0, percent: 100, paused: true, salt, from } };
}

/**
 * The schedule goes on from where it was: time in which it was paused does not count.
 *
 * @param pausedAt milliseconds since the epoch, where it is known
 * @throws EdgeSyncError USAGE
 */
export function resume(before: Before, pausedAt: number | undefined, now: number): ChannelDocument {
  const { document, rollout } = underWay(before, "there is nothing to resume");
  if (!rollout.paused) throw wrong(`${nameOf(before.reference)} is not paused`);
  const begun = Date.parse(rollout.start);
  const passed = pausedAt === undefined ? now - begun : Math.max(0, pausedAt - begun);
  const start = isoSeconds(Math.max(begun, now - passed));
  return { ...document, rollout: { ...rollout, start, paused: false } };
}

/** Takes every site back. @throws EdgeSyncError USAGE when it is not back */
export function downgrade(before: Before, wanted: Releases): ChannelDocument {
  const document = existing(before);
  const older = wanted.some((item) => isOlder(before.shelf, item, document.releases));
  if (!older)
    throw wrong(
      `${versionsOf(wanted)} is not older than what ${nameOf(before.reference)} points to; expected an older version, or \`edgesync channel set\``,
    );
  const { minimum } = document;
  const keep =
    minimum !== undefined && !wanted.some((item) => isBelow(before.shelf, item, minimum));
  const next = forward(before, wanted, keep ? {} : { minimum: null });
  return { ...next, downgrade: true };
}

/** What a channel points to, for another channel to follow. @throws EdgeSyncError USAGE while it is paused */
export function promoted(source: Before, into: Before): Releases {
  const document = existing(source);
  if (source.reference.app !== into.reference.app)
    throw wrong("a channel follows another one of the same app");
  if (document.rollout?.paused === true)
    throw wrong(
      `${nameOf(source.reference)} is paused; resume it, or name a version to \`edgesync channel set\``,
    );
  return document.releases;
}

function forward(before: Before, wanted: Releases, minimum: Minimum): ChannelDocument {
  const { reference, document, shelf } = before;
  const releases = merged(document?.releases ?? [], wanted);
  const { schema, app, channel } = { schema: 1 as const, ...reference };
  const sequence = (document?.sequence ?? 0) + 1;
  const back = document?.downgrade === true && releases.some((item) => !isNewest(shelf, item));
  const next: ChannelDocument = {
    schema,
    app,
    channel,
    sequence,
    releases,
    ...(document?.minimum !== undefined && { minimum: document.minimum }),
    // Sites that missed the way back still have the newer one.
    ...(back && { downgrade: true }),
  };
  return withMinimum(before, next, minimum);
}

function withMinimum(
  { shelf, reference }: Before,
  { minimum: old, ...document }: ChannelDocument,
  { minimum = old ?? null }: Minimum,
): ChannelDocument {
  if (minimum === null) return document;
  const platforms = shelf.platformsOf(minimum);
  const without = document.releases.find(({ platform }) => !platforms.includes(platform));
  if (minimum !== old && without !== undefined)
    throw new EdgeSyncError(
      "RELEASE_NOT_FOUND",
      `--minimum: the repository has no release ${reference.app} ${minimum} for ${without.platform}`,
    );
  const beyond = document.releases.find((item) => isBelow(shelf, item, minimum));
  if (beyond !== undefined)
    throw wrong(
      `the minimum ${minimum} is newer than ${beyond.version}; expected an older one, or --minimum none`,
    );
  return { ...document, minimum };
}

/** A platform that is not wanted stays where it is. */
function merged(before: Releases, wanted: Releases): Releases {
  const kept = before.filter(({ platform }) => versionFor(wanted, platform) === undefined);
  return [...kept, ...wanted]
    .map(({ platform, version }) => ({ platform, version }))
    .toSorted((a, b) => (a.platform < b.platform ? -1 : 1));
}

/** What is known to work: what a channel points to, or did before a roll-out that is not complete. */
function steady(document: ChannelDocument | undefined, now: number): Releases {
  if (document === undefined) return [];
  const { rollout, releases } = document;
  if (rollout === undefined || isComplete(rollout, now)) return releases;
  return rollout.from;
}

/** Whether every site's turn has come. */
export function isComplete(rollout: Rollout, now: number): boolean {
  return !rollout.paused && shareAt(rollout, now) >= 1;
}

type Item = Releases[number];

function points(releases: Releases, { platform, version }: Item): boolean {
  return versionFor(releases, platform) === version;
}

/** What is not listed is older than all that is, for publishers as for sites. */
function rank(shelf: Shelf, platform: string, version: string): number {
  return shelf.orderOf(platform, version) ?? -1;
}

function isBelow(shelf: Shelf, { platform, version }: Item, other: string): boolean {
  return version !== other && rank(shelf, platform, version) < rank(shelf, platform, other);
}

function isOlder(shelf: Shelf, item: Item, before: Releases): boolean {
  const old = versionFor(before, item.platform);
  return old !== undefined && isBelow(shelf, item, old);
}

function isNewest(shelf: Shelf, item: Item): boolean {
  return !shelf.versions.some((version) => isBelow(shelf, item, version));
}

function refuseOlder({ document, reference, shelf }: Before, wanted: Releases): void {
  const older = wanted.find((item) => isOlder(shelf, item, document?.releases ?? []));
  if (older === undefined) return;
  const now = versionFor(document?.releases ?? [], older.platform);
  throw new EdgeSyncError(
    "RELEASE_DOWNGRADE",
    `${nameOf(reference)} points to ${now} for ${older.platform}, and ${older.version} is older`,
  );
}

function underWay(
  before: Before,
  otherwise: string,
): { readonly document: ChannelDocument; readonly rollout: Rollout } {
  const document = existing(before);
  const { rollout } = document;
  if (rollout === undefined)
    throw wrong(`${nameOf(before.reference)} has no roll-out under way; ${otherwise}`);
  return { document, rollout };
}

/** @throws EdgeSyncError RELEASE_NOT_FOUND */
function existing({ document, reference }: Before): ChannelDocument {
  if (document !== undefined) return document;
  throw new EdgeSyncError(
    "RELEASE_NOT_FOUND",
    `the repository has no channel ${nameOf(reference)}`,
  );
}

export function nameOf({ app, channel }: ChannelRef): string {
  return `${app}/${channel}`;
}

export function versionsOf(releases: Releases): string {
  return [...new Set(releases.map((item) => item.version))].join(", ");
}

function wrong(message: string): EdgeSyncError {
  return new EdgeSyncError("USAGE", message);
}
