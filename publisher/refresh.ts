/** Signing anew what would expire, and saying what will. */
import type { Keyring } from "./keys.ts";
import { DAY_MS, LIFETIME_MS, isTopRole } from "./metadata.ts";
import type { Kind } from "./metadata.ts";
import { renew } from "./publish.ts";
import { viewRepository } from "./repository.ts";
import type { Repository, View } from "./repository.ts";

export interface Expiry {
  readonly role: string;
  /** Milliseconds since the epoch. */
  readonly expires: number;
}

export interface Refreshed {
  /** Roles that were signed anew. */
  readonly signed: readonly string[];
  /** The first to expire first. */
  readonly expiries: readonly Expiry[];
  /** Roles that were not signed anew and will expire soon: their keys are not here, or not enough of them. */
  readonly waiting: readonly Expiry[];
}

/** A role counts as about to expire in the last third of its life, but not longer before than this, in milliseconds. */
const SOON_MS = 30 * DAY_MS;

/**
 * @param now milliseconds since the epoch
 * @param withinMs how long before its expiry a role that could not be signed is complained about; a third of its life, and at most
 * {@link SOON_MS}, when not given
 * @throws EdgeSyncError KEY_INVALID when a key of snapshot or timestamp is not here
 */
export async function refreshRepository(
  repository: Repository,
  keyring: Keyring,
  now: number,
  withinMs?: number,
): Promise<Refreshed> {
  const signed = await renew(repository, keyring, now);
  // Read anew: what is told is what clients will find.
  const expiries = expiriesOf(await viewRepository(repository.path));
  const waiting = expiries.filter(({ role, expires }) => {
    const soon = withinMs ?? Math.min(SOON_MS, LIFETIME_MS[kindOf(role)] / 3);
    return !signed.includes(role) && expires - now < soon;
  });
  return { signed, expiries, waiting };
}

/** When each role expires, the first one first. */
export function expiriesOf({ root, targets, roles, snapshot, timestamp }: View): readonly Expiry[] {
  const files = [
    ["root", root],
    ["targets", targets],
    ["snapshot", snapshot],
    ["timestamp", timestamp],
    ...roles,
  ] as const;
  return files
    .map(([role, { signed }]) => ({ role, expires: Date.parse(signed.expires) }))
    .toSorted((a, b) => a.expires - b.expires || (a.role < b.role ? -1 : 1));
}

function kindOf(role: string): Kind {
  return isTopRole(role) ? role : "role";
}
