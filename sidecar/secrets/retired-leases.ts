/**
 * What has been followed by something newer and lives on for an overlap: leases whose files readers may just have read, the
 * version of the set that held them, and the token that issued them. Then it is revoked; what cannot be revoked ends by itself.
 */
import { backoffMs } from "#core/backoff.ts";
import type { Clock } from "#core/clock.ts";
import { codeOf } from "#core/errors.ts";
import type { Log } from "#core/telemetry.ts";
import { openAlarm } from "./alarm.ts";
import type { Publication } from "./publication.ts";
import type { Turnstile } from "./turnstile.ts";
import type { Vault } from "./vault.ts";
import type { TokenKeeper } from "./vault-token.ts";

export interface RetiredLease {
  readonly leaseId: string;
  /** Of the token that it was issued to. */
  readonly generation: number;
  /** Monotonic milliseconds. */
  readonly expiresAt: number;
  /** Monotonic milliseconds; `undefined` while what follows it is not yet published. */
  revokeAt: number | undefined;
  attempt: number;
}

/** As much of a version as its end needs. */
interface Ending {
  readonly leaseId: string | undefined;
  readonly generation: number;
  readonly expiresAt: number | undefined;
}

export interface RetirementDeps {
  readonly vault: Vault;
  readonly keeper: TokenKeeper;
  readonly turnstile: Turnstile;
  readonly publication: Publication;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly changed: () => void;
  /** Whether a secret still depends on the token of that generation. */
  readonly isUsed: (generation: number) => boolean;
}

export interface Retirement {
  run(signal: AbortSignal): Promise<void>;
  supersede(version: Ending): void;
  /** For what nobody has seen. */
  discard(version: Ending): void;
  /** Those that wait for what follows them to be published. */
  pending(): readonly RetiredLease[];
  all(): readonly RetiredLease[];
  /** What follows these is published now: their overlap begins, and that of the version before if the set was swapped. */
  published(followed: readonly RetiredLease[], swapped: boolean): void;
  /** The token may have been followed by another. */
  check(): void;
}

/** Milliseconds; or what remains of the lease, if that is less. */
const OVERLAP_MS = 60_000;
/** Milliseconds for which the revocation of a lease is tried of which Vault has said no end. */
const ENDLESS_MS = 86_400_000;
/** Milliseconds, at least, until it is tried again where there is no token, or Vault fails. */
const LATER_MS = 5_000;

export function openRetirement(deps: RetirementDeps, resumed: readonly RetiredLease[]): Retirement {
  const { vault, keeper, turnstile, publication, clock, random, log, changed } = deps;
  const alarm = openAlarm(clock);
  const leases = new Set<RetiredLease>(resumed);
  let tidyAt: number | undefined;

  const add = ({ leaseId, generation, expiresAt }: Ending, revokeAt: number | undefined): void => {
    const now = clock.monotonic();
    const endsAt = expiresAt ?? now + ENDLESS_MS;
    if (leaseId === undefined || endsAt <= now) return;
    leases.add({ leaseId, generation, expiresAt: endsAt, revokeAt, attempt: 0 });
    alarm.ring();
  };
  const nextAt = (): number =>
    Math.min(
      tidyAt ?? Number.POSITIVE_INFINITY,
      ...[...leases].map((lease) => Math.min(lease.expiresAt, lease.revokeAt ?? lease.expiresAt)),
    );

  const revoke = async (lease: RetiredLease, signal: AbortSignal): Promise<void> => {
    const token = keeper.held;
    // What ends by itself is not worth a request to a Vault that fails.
    if (token === undefined || turnstile.openSince !== undefined) {
      lease.revokeAt = clock.monotonic() + LATER_MS * (1 + random());
      return;
    }
    try {
      await vault.revokeLease(token.token, lease.leaseId, signal);
      leases.delete(lease);
    } catch (error) {
      signal.throwIfAborted();
      const code = codeOf(error);
      if (code === "VAULT_DENIED" || code === "SECRET_INVALID") {
        log.info({ code }, "an old lease may not be revoked; it ends by itself");
        leases.delete(lease);
      } else {
        const pause = Math.max(1_000, backoffMs(lease.attempt++, random));
        lease.revokeAt = clock.monotonic() + pause;
      }
    }
  };
  const revokeFormer = async (signal: AbortSignal): Promise<void> => {
    const former = keeper.former;
    if (former === undefined || deps.isUsed(former.generation)) return;
    if ([...leases].some((lease) => lease.generation === former.generation)) return;
    keeper.dropFormer();
    changed();
    if (former.expiresAt <= clock.monotonic()) return;
    try {
      await vault.revokeToken(former.token, signal);
    } catch (error) {
      signal.throwIfAborted();
      log.info({ code: codeOf(error) }, "the former token could not be revoked; it ends by itself");
    }
  };

  return {
    async run(signal) {
      for (;;) {
        await alarm.until(nextAt(), signal);
        const now = clock.monotonic();
        for (const lease of leases) {
          if (lease.expiresAt <= now) leases.delete(lease);
          else if (lease.revokeAt !== undefined && lease.revokeAt <= now)
            await revoke(lease, signal);
          else continue;
          changed();
        }
        if (tidyAt !== undefined && tidyAt <= now) {
          tidyAt = undefined;
          await publication.tidy();
        }
        await revokeFormer(signal);
      }
    },
    supersede: (version) => add(version, undefined),
    discard: (version) => add(version, clock.monotonic()),
    pending: () => [...leases].filter((lease) => lease.revokeAt === undefined),
    all: () => [...leases],
    published(followed, swapped) {
      const overlapEnds = clock.monotonic() + OVERLAP_MS;
      for (const lease of followed) lease.revokeAt = overlapEnds;
      if (swapped) tidyAt = overlapEnds;
      if (followed.length > 0) changed();
      if (followed.length > 0 || swapped) alarm.ring();
    },
    check: () => alarm.ring(),
  };
}
