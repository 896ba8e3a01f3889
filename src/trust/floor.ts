/** The floor of the time between the metadata that raise it, the store that keeps it, and the expiry that is judged by it. */
import { NO_SKEW } from "../clock-skew.ts";
import type { SkewedRole } from "../clock-skew.ts";
import type { Role, Root, Timestamp } from "./metadata.ts";
import {
  formatFloor,
  isVouchedFor,
  judgeTime,
  later,
  parseFloor,
  raised,
  refuseExpired,
  worthSaving,
} from "./time.ts";
import type { Anchor, Floor, TrustedTime } from "./time.ts";
import type { TrustDeps } from "./trusted.ts";

/** Without `.json`, so that no role can have the name. */
const FLOOR = "time-floor";

/**
 * The time of a cycle, once its root is known.
 *
 * @param timestamp the stored one
 */
export async function judge(
  root: Root,
  timestamp: Timestamp | undefined,
  { store, now, timing }: TrustDeps,
): Promise<TrustedTime> {
  if (timing === undefined) return judgeTime(now, undefined, 0, NO_SKEW);
  const { memory, monotonic, skew } = timing;
  const role = root.roles.timestamp;
  const floor = await loadFloor(role, store);
  const known = memory.anchor !== undefined && isVouchedFor(memory.anchor, role);
  let anchor: Anchor | undefined = later(
    known ? memory.anchor : undefined,
    floor && { ...floor, at: monotonic },
    monotonic,
  );
  if (timestamp !== undefined) anchor = raised(anchor, timestamp, role, monotonic);
  memory.anchor = anchor;
  memory.judged = judgeTime(now, anchor, monotonic, skew);
  return memory.judged;
}

async function loadFloor(role: Role, store: TrustDeps["store"]): Promise<Floor | undefined> {
  const bytes = await store.load(FLOOR);
  const floor = bytes && parseFloor(bytes);
  return floor !== undefined && isVouchedFor(floor, role) ? floor : undefined;
}

/** Raises the floor to what a timestamp says that has been accepted. */
export async function learn(root: Root, timestamp: Timestamp, deps: TrustDeps): Promise<void> {
  const { store, timing } = deps;
  if (timing === undefined) return;
  const { memory, monotonic } = timing;
  const role = root.roles.timestamp;
  memory.anchor = raised(memory.anchor, timestamp, role, monotonic);
  if (memory.anchor === undefined) return;
  const floor = worthSaving(memory.anchor, await loadFloor(role, store), monotonic);
  if (floor !== undefined) await store.save(FLOOR, formatFloor(floor));
}

/** The keys that vouched for the floor have been withdrawn. */
export async function forget({ store, timing }: TrustDeps): Promise<void> {
  if (timing !== undefined) timing.memory.anchor = undefined;
  await store.remove(FLOOR);
}

/** @throws EdgeSyncError METADATA_EXPIRED */
export function refuseStale(
  name: string,
  kind: SkewedRole,
  expires: number,
  time: TrustedTime,
  { timing }: TrustDeps,
): void {
  timing?.memory.expiries.set(name, expires);
  refuseExpired(name, kind, expires, time);
}
