/**
 * The channel document: which release a channel points to, and how its sites get there. It is a TUF target, so by the time it is
 * parsed here its bytes are authentic; it is checked all the same, because a publisher can be wrong.
 */
import * as s from "valibot";
import { name, parseDocument, platform, version } from "./document.ts";

/** Bytes; beyond it a document is neither fetched nor published. */
export const CHANNEL_DOCUMENT_LIMIT = 64 * 1024;

/** Seconds; ten years, so that every time made from it is one that a `Date` can hold. */
export const ROLLOUT_DURATION_LIMIT = 10 * 365 * 86_400;

/** A version for each platform that has one. */
export type Releases = readonly { readonly platform: string; readonly version: string }[];

/** Which release a channel points to, for each platform. */
export interface ChannelDocument {
  readonly schema: 1;
  readonly app: string;
  readonly channel: string;
  /**
   * Grows with every change of what sites shall run, also when the version goes back. It stays when only the schedule of the roll-out
   * changes: a grown number means that a release that failed at a site is to be tried there again.
   */
  readonly sequence: number;
  readonly releases: Releases;
  /** Absent: every site installs at its next look. */
  readonly rollout?: Rollout | undefined;
  /** A site whose release is older installs this one first: what cannot be skipped on the way. */
  readonly minimum?: string | undefined;
  /** Without it no site goes to a release that is older than its own. */
  readonly downgrade?: true | undefined;
  /** Sites shall not wait for their windows, budgets and the like. */
  readonly urgency?: "urgent" | undefined;
}

/** When it is whose turn; `src/rollout.ts` says what follows from it. */
export interface Rollout {
  /** In ISO 8601, UTC, whole seconds, such as `2026-03-01T06:00:00Z`. */
  readonly start: string;
  /** Seconds in which the share grows evenly from nothing to `percent`; 0 for all of it at once. */
  readonly duration: number;
  /** Of all sites, from 0 to 100, with decimals. */
  readonly percent: number;
  /** Nobody begins, and who has begun but not yet swapped stops. */
  readonly paused: boolean;
  /**
   * Gives each site its number. It never changes in the life of a roll-out, whatever else of it does: another salt is another order of
   * sites. By default the sequence number at which the roll-out began, so that it is not always the same sites that go first.
   */
  readonly salt: string;
  /**
   * What the channel pointed to before: a site that has nothing installs it while it waits. Where a roll-out takes the place of one
   * that was not complete this is still what was there before both, because nothing else is known to work everywhere.
   */
  readonly from: Releases;
}

export function channelPath(app: string, channel: string): string {
  return `channels/${app}/${channel}.json`;
}

const releases = s.pipe(
  s.array(s.object({ platform, version }), "a list of platforms and versions"),
  s.maxLength(64, "a list of at most 64 platforms"),
  s.check(
    (list) => new Set(list.map((item) => item.platform)).size === list.length,
    "a list that names each platform once",
  ),
);

const percent = s.pipe(
  s.number("a number from 0 to 100"),
  s.minValue(0, "a number from 0 to 100"),
  s.maxValue(100, "a number from 0 to 100"),
);
const DURATION = `whole seconds from 0 to ${ROLLOUT_DURATION_LIMIT}`;

const rollout = s.object({
  start: s.pipe(
    s.string(),
    s.check(isTime, "a time in UTC with whole seconds, such as 2026-03-01T06:00:00Z"),
  ),
  duration: s.pipe(
    s.number(DURATION),
    s.safeInteger(DURATION),
    s.minValue(0, DURATION),
    s.maxValue(ROLLOUT_DURATION_LIMIT, DURATION),
  ),
  percent,
  paused: s.boolean("true or false"),
  salt: s.pipe(s.string(), s.check(isSalt, "1 to 64 printable ASCII characters without spaces")),
  from: releases,
});

const channelDocument = s.object({
  schema: s.literal(1),
  app: name,
  channel: name,
  sequence: s.pipe(s.number(), s.safeInteger(), s.minValue(1)),
  releases,
  rollout: s.optional(rollout),
  minimum: s.optional(version),
  downgrade: s.optional(s.literal(true, "true, or absent")),
  urgency: s.optional(s.unknown()),
});

/** Whether a text is a time as a roll-out begins at, one that exists in the calendar. */
export function isTime(input: string): boolean {
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(input)) return false;
  const time = Date.parse(input);
  return !Number.isNaN(time) && new Date(time).toISOString() === input.replace("Z", ".000Z");
}

/** Whether a text can be the salt of a roll-out. */
export function isSalt(input: string): boolean {
  return /^[\x21-\x7e]{1,64}$/.test(input);
}

/** @throws EdgeSyncError RELEASE_INVALID */
export function parseChannelDocument(bytes: Uint8Array): ChannelDocument {
  const { urgency, ...document } = parseDocument(
    channelDocument,
    bytes,
    CHANNEL_DOCUMENT_LIMIT,
    "channel document",
  );
  // What later versions may say of it means nothing here.
  return urgency === "urgent" ? { ...document, urgency } : document;
}

/** The version that a list names for a platform. */
export function versionFor(list: Releases, wanted: string): string | undefined {
  return list.find((item) => item.platform === wanted)?.version;
}
