/**
 * Phased roll-out without a server: each site has a number in [0,1) that nobody chose, and installs when its number is below the share
 * of sites that the signed channel document grants at that time (the idea of rauc#1114). Names: a site's *turn* is when the share
 * reaches its number; the *course* is what follows for it from the document.
 *
 * What holds, and is tested:
 * - Of many sites the share that installs is the share that the schedule says, whatever their names are.
 * - The number depends on site, app, channel and salt only, so it survives every change of the schedule.
 * - Who has the release keeps it, and who has begun goes on, also when `percent` is lowered or `duration` raised. Only a pause takes
 *   the begun ones back, as long as they have not swapped.
 */
import { createHash } from "node:crypto";
import type { ChannelDocument, Rollout } from "./channel-document.ts";
import { versionFor } from "./channel-document.ts";
import { EdgeSyncError } from "./errors.ts";
import type { WaitReason } from "./reasons.ts";

/** Whose number, and for which roll-out. */
export interface Ticket {
  readonly site: string;
  readonly app: string;
  readonly channel: string;
  readonly salt: string;
}

/** In [0,1), the same on every machine: the first 52 bits of a SHA-256, which a double holds exactly. */
export function siteNumber({ site, app, channel, salt }: Ticket): number {
  const hash = createHash("sha256").update([site, app, channel, salt].join("\0")).digest();
  return Number(hash.readBigUInt64BE(0) >> 12n) / 2 ** 52;
}

type Schedule = Pick<Rollout, "start" | "duration" | "percent">;

/** The share of all sites whose turn has come, in [0,1]. @param now milliseconds since the epoch, as all times here */
export function shareAt({ start, duration, percent }: Schedule, now: number): number {
  const passed = now - Date.parse(start);
  if (passed < 0) return 0;
  const progress = duration === 0 ? 1 : Math.min(1, passed / (duration * 1000));
  return (percent / 100) * progress;
}

/** When the share passes a number: whole milliseconds, at which {@link isTurn} is true for the first time. Null for never. */
export function turnOf(schedule: Schedule, number: number): number | null {
  const { start, duration, percent } = schedule;
  if (number >= percent / 100) return null;
  const guess = Date.parse(start) + Math.floor((number / (percent / 100)) * duration * 1000);
  // Rounding may be off by one either way.
  for (let time = guess - 1; time <= guess + 2; time++)
    if (isTurn(schedule, number, time)) return time;
  return null;
}

export function isTurn(schedule: Schedule, number: number, now: number): boolean {
  return number < shareAt(schedule, now);
}

/** What a site has to do with a roll-out already. */
export interface Standing {
  /** The version that it serves; null when it has nothing. */
  readonly version: string | null;
  /** Salt of the roll-out that it has begun and not been paused in. */
  readonly begun: string | null;
}

/** A site's place in a roll-out. */
export interface Place {
  readonly number: number;
  /** Milliseconds since the epoch; null when the schedule as it stands has no turn for it, or nobody knows when it goes on. */
  readonly turn: number | null;
  /** Why the site does not install what the channel points to; null when it does, or has it. */
  readonly waiting: WaitReason | null;
}

export interface Course {
  /** What the channel points to for this platform. */
  readonly wanted: string;
  /** What the site installs, or has; null when it stays as it is. */
  readonly version: string | null;
  /** Salt of the roll-out under which it installs; null for none. */
  readonly begins: string | null;
  /** Null without a roll-out. */
  readonly place: Place | null;
}

/**
 * What a site does about a channel document, but for what may lie between its release and the one that it goes to: {@link nextVersion}.
 *
 * @throws EdgeSyncError RELEASE_NOT_FOUND when the channel has no release for the platform
 */
export function courseOf(
  document: ChannelDocument,
  { site, platform }: { readonly site: string; readonly platform: string },
  standing: Standing,
  now: number,
): Course {
  const { app, channel, rollout } = document;
  const wanted = versionFor(document.releases, platform);
  if (wanted === undefined)
    throw new EdgeSyncError(
      "RELEASE_NOT_FOUND",
      `${app}/${channel} has no release for ${platform}; it has one for ${document.releases.map((one) => one.platform).join(", ") || "none"}`,
    );
  if (rollout === undefined) return { wanted, version: wanted, begins: null, place: null };
  const { salt, paused } = rollout;
  const number = siteNumber({ site, app, channel, salt });
  const has = standing.version === wanted;
  const begun = standing.begun === salt && !paused;
  const waiting = has || begun ? null : waitReason(rollout, number, now);
  const place = { number, turn: paused ? null : turnOf(rollout, number), waiting };
  if (waiting === null) return { wanted, version: wanted, begins: salt, place };
  // Whoever has a release keeps it; whoever has none gets what worked before, and never the new one out of turn.
  const before = standing.version === null ? versionFor(rollout.from, platform) : undefined;
  return { wanted, version: before ?? null, begins: null, place };
}

function waitReason(rollout: Rollout, number: number, now: number): WaitReason | null {
  if (rollout.paused) return "rollout_paused";
  if (isTurn(rollout, number, now)) return null;
  return turnOf(rollout, number) === null ? "rollout_not_included" : "rollout_not_yet";
}

/**
 * The next release on the way from the one that a site has to the one that it goes to: that one itself, or the channel's `minimum` first.
 *
 * @param orderOf what the manifest of a version says of when it was published; undefined for one that is not listed any more
 * @throws EdgeSyncError RELEASE_DOWNGRADE when it would be an older one and the document does not say that it may
 */
export function nextVersion(
  { minimum, downgrade }: Pick<ChannelDocument, "minimum" | "downgrade">,
  has: string | null,
  wanted: string,
  orderOf: (version: string) => number | undefined,
): string {
  if (has === null || has === wanted) return wanted;
  const isOlder = (a: string, b: string): boolean => rank(orderOf(a)) < rank(orderOf(b));
  if (minimum !== undefined && isOlder(has, minimum)) return minimum;
  if (downgrade !== true && isOlder(wanted, has))
    throw new EdgeSyncError(
      "RELEASE_DOWNGRADE",
      `the channel points to ${wanted}, which is older than ${has}, and does not say that sites may go back`,
    );
  return wanted;
}

/** What is not listed any more is older than all that is. */
function rank(order: number | undefined): number {
  return order ?? -1;
}

/** Milliseconds over which sites that have the same turn are spread; the default time between two looks. */
const SPREAD_MS = 900_000;

/**
 * Milliseconds until the next look, which a turn brings forward when it comes sooner. It is looked, not installed: the channel may have
 * been paused meanwhile. A schedule that is steep lets many sites have their turn at once. They are then spread over {@link SPREAD_MS},
 * and sites that look as often as that anyway are spread already; so turns never cost more requests at one time than a fleet with the
 * default interval makes when idle.
 *
 * @param delayMs until the look that is due anyway
 */
export function lookDelayMs(
  delayMs: number,
  { turn, schedule }: { readonly turn: number | null; readonly schedule: Schedule },
  { now, intervalMs, random }: { now: number; intervalMs: number; random: () => number },
): number {
  if (turn === null) return delayMs;
  const untilTurn = Math.max(0, turn - now);
  const spreadMs = Math.min(SPREAD_MS, intervalMs);
  // For all sites together to have had their turn; a part of them takes as much less.
  const steep = schedule.duration * 1000 < spreadMs * (schedule.percent / 100);
  if (!steep) return Math.min(delayMs, untilTurn + (random() * spreadMs) / 10);
  if (intervalMs <= SPREAD_MS) return delayMs;
  return Math.min(delayMs, untilTurn + random() * spreadMs);
}
