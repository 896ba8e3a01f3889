/**
 * Who of several processes on one volume may act, without a clock that they share. A right has epochs; each has one holder, who renews it by a
 * counter on the volume, its beat. Pure: what is seen there and the process's own monotonic time come in, what to do comes out.
 *
 * - A holder acts only until two thirds of the lease after it began its last renewal.
 * - A renewal that takes longer than the lease since the one before is none, and the epoch is lost.
 * - Nobody takes the next epoch before it has seen the same beat for the whole lease, counted from when it first saw it, which is later than the
 *   renewal began. So with clocks that run at one speed no two may act, however long either is stopped between two of its steps.
 * - A clock that stands still while others run breaks that. Then the fence holds (`sidecar/claim/lease.ts`): an epoch's folder is taken away before
 *   the next holder acts, and nothing can be done without it.
 */

/** The highest epoch that is on the volume. */
export interface Sight {
  readonly epoch: number;
  /** Uid of the holder's pod. */
  readonly holder: string;
  readonly beat: number;
  /** Given back by its holder. */
  readonly released: boolean;
}

/** What a process knows of a right. Times are monotonic milliseconds of its own. */
export interface Lease {
  /** Uid of the process's pod: of two processes with the same one, the earlier has ended. */
  readonly me: string;
  readonly seen: Sight | undefined;
  /** Since when it has been seen so: after the first look that showed it. */
  readonly since: number;
  /** Before the last look. */
  readonly lookedAt: number;
  readonly held: { readonly epoch: number; readonly renewedAt: number } | undefined;
}

export type Move =
  | { readonly move: "wait" }
  /** Make this epoch, take away those before it, and only then tell {@link taken}. */
  | { readonly move: "take"; readonly epoch: number }
  /** Write this beat. */
  | { readonly move: "beat"; readonly beat: number }
  /** Nobody else is there to see a beat: that the epoch was still ours is a renewal. */
  | { readonly move: "keep" };

export function openLease(me: string): Lease {
  return { me, seen: undefined, since: 0, lookedAt: 0, held: undefined };
}

/** After a look at the volume, with the times before and after it: what was seen was so at some time between the two. */
export function sighted(
  lease: Lease,
  seen: Sight | undefined,
  lookedAt: number,
  at: number,
): Lease {
  const same =
    lease.seen !== undefined &&
    seen !== undefined &&
    seen.epoch === lease.seen.epoch &&
    seen.beat === lease.seen.beat &&
    seen.released === lease.seen.released;
  const ours = seen !== undefined && seen.epoch === lease.held?.epoch && !seen.released;
  const since = same ? lease.since : at;
  return { ...lease, seen, since, lookedAt, held: ours ? lease.held : undefined };
}

/**
 * What to do after a look.
 *
 * @param wanted whether the right is wanted; one that is held stays so until it is given back
 * @param alone whether before the look nobody else was registered on the volume
 */
export function moveOf(
  { me, seen, since, lookedAt, held }: Lease,
  wanted: boolean,
  alone: boolean,
  leaseMs: number,
): Move {
  if (held !== undefined)
    return alone ? { move: "keep" } : { move: "beat", beat: (seen?.beat ?? 0) + 1 };
  if (!wanted) return { move: "wait" };
  if (seen === undefined) return { move: "take", epoch: 1 };
  const free = seen.released || seen.holder === me || lookedAt - since >= leaseMs;
  return free ? { move: "take", epoch: seen.epoch + 1 } : { move: "wait" };
}

/** The epoch is ours, and those before it are gone. @param begun before the look that led to it */
export function taken(lease: Lease, epoch: number, begun: number): Lease {
  const seen: Sight = { epoch, holder: lease.me, beat: 0, released: false };
  return { ...lease, seen, since: begun, held: { epoch, renewedAt: begun } };
}

/**
 * A move `beat` or `keep` is done. One that came too late is none: somebody may have seen the beat before it for the whole lease and be on the way.
 *
 * @param begun before the look that led to it
 * @param at after the move
 */
export function renewed(lease: Lease, begun: number, at: number, leaseMs: number): Lease {
  const { held } = lease;
  if (held === undefined) return lease;
  if (at - held.renewedAt >= leaseMs) return { ...lease, held: undefined };
  return { ...lease, held: { ...held, renewedAt: begun } };
}

export function mayAct({ held }: Lease, at: number, leaseMs: number): boolean {
  return held !== undefined && at - held.renewedAt < (leaseMs * 2) / 3;
}
