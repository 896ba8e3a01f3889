/**
 * The last good set of secrets, as it is kept for a start without a link: what it holds, whom it is for, and until when it may be used.
 * Pure; how it is sealed is the sidecar's.
 */
import * as v from "valibot";
import { EdgeSyncError } from "./errors.ts";
import type { OfflineReason } from "./reasons.ts";

export interface OfflineSet {
  /** Whose it is, and what was declared: another pod's set, or that of an older declaration, is worthless. */
  readonly identity: string;
  /** Milliseconds since the epoch: when Vault last vouched for all of it. */
  readonly sealedAt: number;
  /** Milliseconds since the epoch: the latest time that is known to have come since. No clock makes the set younger than this. */
  readonly seenAt: number;
  readonly secrets: readonly OfflineSecret[];
  readonly files: readonly OfflineFile[];
}

export interface OfflineSecret {
  readonly name: string;
  /** Milliseconds since the epoch: the end of its lease, or of its certificate. */
  readonly endsAt?: number | undefined;
}

export interface OfflineFile {
  readonly name: string;
  readonly mode: number;
  readonly bytes: Uint8Array;
}

const VERSION = 1;

const ms = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const setFile = v.object({
  version: v.literal(VERSION),
  identity: v.string(),
  sealedAt: ms,
  seenAt: ms,
  secrets: v.array(v.object({ name: v.string(), endsAt: v.optional(ms) })),
  files: v.array(
    v.object({
      name: v.pipe(v.string(), v.regex(/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$/)),
      mode: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0o777)),
      base64: v.pipe(v.string(), v.base64()),
    }),
  ),
});

/** Plain text: only ever in memory. */
export function formatOfflineSet(set: OfflineSet): Uint8Array {
  const files = set.files.map(({ name, mode, bytes }) => ({
    name,
    mode,
    base64: Buffer.from(bytes).toString("base64"),
  }));
  return Buffer.from(JSON.stringify({ version: VERSION, ...set, files }));
}

/** @throws EdgeSyncError SECRET_INVALID, which quotes nothing of it */
export function parseOfflineSet(bytes: Uint8Array): OfflineSet {
  try {
    const json: unknown = JSON.parse(Buffer.from(bytes).toString("utf8"));
    const { identity, sealedAt, seenAt, secrets, files } = v.parse(setFile, json);
    return {
      identity,
      sealedAt,
      seenAt,
      secrets,
      files: files.map(({ name, mode, base64 }) => ({
        name,
        mode,
        bytes: Buffer.from(base64, "base64"),
      })),
    };
  } catch {
    // No cause: it would quote the set.
    throw new EdgeSyncError("SECRET_INVALID", "the sealed set is not one that this version writes");
  }
}

/**
 * The time by which a set is judged: a clock that is behind what has been seen already, or behind a signed time, does not count.
 *
 * @param wall milliseconds since the epoch, by the node's clock
 * @param floor of the trusted time, where one is known
 */
export function timeFor(set: OfflineSet, wall: number, floor: number | undefined): number {
  return Math.max(wall, floor ?? 0, set.sealedAt, set.seenAt);
}

/** Milliseconds since the epoch: the end of a secret of the set, be it its own or that of the set's age. */
export function endOf(set: OfflineSet, secret: OfflineSecret, maxAgeMs: number): number {
  return Math.min(secret.endsAt ?? Number.POSITIVE_INFINITY, set.sealedAt + maxAgeMs);
}

/** Why a set must not be used; undefined when it may. The set is one: a start with half of it would be none. */
export function offlineProblem(
  set: OfflineSet,
  identity: string,
  now: number,
  maxAgeMs: number,
): OfflineReason | undefined {
  if (set.identity !== identity) return "other_declaration";
  if (now >= set.sealedAt + maxAgeMs) return "too_old";
  return set.secrets.some(({ endsAt }) => endsAt !== undefined && endsAt <= now)
    ? "secret_ended"
    : undefined;
}

/**
 * When a set that has not changed is to be sealed again, so that what is on the disk stays of use: after a share of the age that it may
 * reach, and before the first end in it comes. Milliseconds since the epoch.
 */
export function sealAgainAt(set: OfflineSet, maxAgeMs: number): number {
  const byAge = Math.min(maxAgeMs / 8, SEAL_INTERVAL_MS);
  const ends = set.secrets.map(({ endsAt }) => ((endsAt ?? Infinity) - set.sealedAt) / 2);
  return set.sealedAt + Math.max(LEAST_INTERVAL_MS, Math.min(byAge, ...ends));
}

/** Milliseconds: flash wears out. */
const SEAL_INTERVAL_MS = 6 * 3_600_000;
export const LEAST_INTERVAL_MS = 60_000;
