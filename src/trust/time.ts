/**
 * The time that expiry is judged by. The clock of a site may be wrong: behind, where a battery is empty, or ahead. What can be trusted is
 * a floor: `x-edgesync-issued` of the newest verified timestamp, when the publisher signed it, and the time that this process has
 * seen pass since.
 *
 * Nothing here ever stops what runs: it decides what is still adopted.
 */
import * as s from "valibot";
import type { ClockSkew, SkewedRole } from "../clock-skew.ts";
import { EdgeSyncError } from "../errors.ts";
import type { ClockReason } from "../reasons.ts";
import type { Role, Timestamp } from "./metadata.ts";

/** What it cannot be before, as a verified timestamp has said. It is bound to the keys that vouched for it. */
export interface Floor {
  /** Milliseconds since the epoch; never past `limit`. */
  readonly time: number;
  /** Signed expiry of the timestamp that it came with. */
  readonly limit: number;
  /** Of the role `timestamp` then. When one of them is withdrawn, what they said about the time counts no more. */
  readonly keyids: readonly string[];
}

/** A floor in this process, where it goes on with the monotonic clock: also past its limit, for then that much time has really passed. */
export interface Anchor extends Floor {
  /** Monotonic milliseconds at which the time was `time` or later. */
  readonly at: number;
}

/** The time of one cycle (5.1): fixed for all that is judged in it. */
export interface TrustedTime {
  /** Milliseconds since the epoch: what expiry is judged by. */
  readonly now: number;
  /** What the wall clock says. */
  readonly wall: number;
  /** What it cannot be before, by signed statements. Undefined where there are none yet. */
  readonly floor: number | undefined;
  /** Why the wall clock is suspected; null when it is plausible. */
  readonly suspect: ClockReason | null;
  readonly skew: ClockSkew;
}

/** Milliseconds. A publisher's clock may be that much ahead of a site's without either being wrong. */
const TOLERANCE_MS = 5 * 60_000;

/**
 * Milliseconds. Beyond it the wall clock is believed to have jumped, rather than the site to have been off for so long: the longest
 * lifetime that a signature has by default, and a month.
 */
const MAX_AHEAD_MS = 400 * 86_400_000;

/** Milliseconds that a floor must have gained. What is not saved is little, and the stored timestamp tells most of it again. */
const WORTH_SAVING_MS = 3_600_000;

/**
 * @param wall milliseconds since the epoch
 * @param monotonic milliseconds
 */
export function judgeTime(
  wall: number,
  anchor: Anchor | undefined,
  monotonic: number,
  skew: ClockSkew,
): TrustedTime {
  if (anchor === undefined) return { now: wall, wall, floor: undefined, suspect: null, skew };
  const least = atLeast(anchor, monotonic);
  const floor = Math.min(least, anchor.limit);
  if (wall > least + MAX_AHEAD_MS) return { now: least, wall, floor, suspect: "clock_ahead", skew };
  const suspect = wall < least - TOLERANCE_MS ? "clock_behind" : null;
  return { now: Math.max(wall, least), wall, floor, suspect, skew };
}

function atLeast({ time, at }: Anchor, monotonic: number): number {
  return time + Math.max(0, monotonic - at);
}

/** @throws EdgeSyncError METADATA_EXPIRED */
export function refuseExpired(
  name: string,
  kind: SkewedRole,
  expires: number,
  { now, skew, suspect }: TrustedTime,
): void {
  if (now < expires + skew[kind]) return;
  const clock = suspect === null ? "" : `, by a time that is not the clock's (${suspect})`;
  throw new EdgeSyncError(
    "METADATA_EXPIRED",
    `${name} expired at ${isoOf(expires)}, and it is ${isoOf(now)}${clock}`,
  );
}

function isoOf(ms: number): string {
  return new Date(ms).toISOString();
}

/** Of two that hold the one that says more. */
export function later(
  a: Anchor | undefined,
  b: Anchor | undefined,
  monotonic: number,
): Anchor | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return atLeast(a, monotonic) >= atLeast(b, monotonic) ? a : b;
}

/** Whether the keys of the role `timestamp` still hold every one that vouched for a floor. */
export function isVouchedFor(floor: Floor, { keyids }: Role): boolean {
  return floor.keyids.every((id) => keyids.includes(id));
}

/**
 * After a timestamp has been verified. A time of issue beyond the expiry that is signed beside it says no more than that expiry.
 *
 * @param role `timestamp`, as root names it
 */
export function raised(
  before: Anchor | undefined,
  { issued, expires }: Timestamp,
  { keyids }: Role,
  monotonic: number,
): Anchor | undefined {
  if (issued === undefined) return before;
  const known = before === undefined ? -Infinity : atLeast(before, monotonic);
  return {
    time: Math.max(known, Math.min(issued, expires)),
    limit: Math.max(before?.limit ?? -Infinity, expires),
    keyids,
    at: monotonic,
  };
}

/** What is to be stored in the place of what is; undefined when it is not worth a write to flash. */
export function worthSaving(
  anchor: Anchor,
  stored: Floor | undefined,
  monotonic: number,
): Floor | undefined {
  const { limit, keyids } = anchor;
  const time = Math.floor(Math.min(atLeast(anchor, monotonic), limit));
  const gained = time - (stored?.time ?? -Infinity);
  return gained >= WORTH_SAVING_MS ? { time, limit, keyids } : undefined;
}

const ms = s.pipe(s.number(), s.safeInteger());
const floorFile = s.object({
  schema: s.literal(1),
  time: ms,
  limit: ms,
  keyids: s.array(s.string()),
});

/** Undefined for what is no floor: a torn file counts as none, and the next timestamp tells the time again. */
export function parseFloor(bytes: Uint8Array): Floor | undefined {
  try {
    const parsed = s.safeParse(floorFile, JSON.parse(Buffer.from(bytes).toString()));
    if (!parsed.success || parsed.output.time > parsed.output.limit) return undefined;
    const { time, limit, keyids } = parsed.output;
    return { time, limit, keyids };
  } catch {
    // Not JSON.
    return undefined;
  }
}

export function formatFloor(floor: Floor): Uint8Array {
  return Buffer.from(`${JSON.stringify({ schema: 1, ...floor })}\n`);
}
