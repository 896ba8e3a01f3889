/** Tokens and leases of the development Vault: issued, renewed up to their maximum, expired by its clock, revoked. */
import { randomBytes, randomUUID } from "node:crypto";
import type { Clock } from "#core/clock.ts";
import { invalid } from "./exchange.ts";
import type { Fields } from "./exchange.ts";

/** Milliseconds: 768 hours, Vault's default for both the default and the maximal TTL of a mount. */
export const SYSTEM_TTL_MS = 768 * 3_600_000;

export interface Terms {
  /** Milliseconds; 0 leaves it to the system's default. */
  readonly ttlMs: number;
  /** Milliseconds since the issue beyond which nothing is renewed; 0 leaves it to the system. */
  readonly maxTtlMs: number;
}

export interface Token {
  readonly id: string;
  readonly accessor: string;
  readonly policies: readonly string[];
  readonly path: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly displayName: string;
  readonly issuedAt: number;
  readonly renewable: boolean;
  /** The certificate that it was had with, and must be renewed with; PEM. */
  readonly certificate?: string | undefined;
  /** The terms for a renewal, as the role now has them. */
  readonly terms: () => Terms;
  /** Milliseconds since the epoch; `undefined` for a root token. */
  expiresAt: number | undefined;
}

export interface Lease {
  readonly id: string;
  readonly tokenId: string;
  readonly issuedAt: number;
  readonly terms: () => Terms;
  /** Takes back what was issued. */
  readonly revoke: () => Promise<void>;
  expiresAt: number;
}

export interface TokenStore {
  issue(parts: {
    readonly policies: readonly string[];
    readonly path: string;
    readonly metadata?: Readonly<Record<string, string>>;
    readonly displayName?: string;
    readonly renewable?: boolean;
    readonly certificate?: string | undefined;
    readonly terms: () => Terms;
  }): Token;
  /** A token that does not expire. */
  issueRoot(): Token;
  /** `undefined` when it never was or is no more. */
  find(id: string): Token | undefined;
  findByAccessor(accessor: string): Token | undefined;
  /** @throws Refusal 400 when it cannot be renewed */
  renew(token: Token, incrementMs: number): void;
  /** With every lease that was issued to it. */
  revoke(token: Token): Promise<void>;
  lease(token: Token, path: string, terms: () => Terms, revoke: () => Promise<void>): Lease;
  findLease(id: string): Lease | undefined;
  renewLease(lease: Lease, incrementMs: number): void;
  revokeLease(lease: Lease): Promise<void>;
  revokeLeases(prefix: string): Promise<void>;
  /** Revokes what has expired, each at its time, until the signal is aborted. */
  run(signal: AbortSignal): Promise<void>;
}

export function openTokenStore(clock: Clock): TokenStore {
  const tokens = new Map<string, Token>();
  const leases = new Map<string, Lease>();
  let wake = new AbortController();

  const revokeLease = async (lease: Lease): Promise<void> => {
    if (leases.delete(lease.id)) await lease.revoke();
  };
  const revoke = async (token: Token): Promise<void> => {
    tokens.delete(token.id);
    for (const lease of leases.values()) if (lease.tokenId === token.id) await revokeLease(lease);
  };
  const isOver = (entry: { readonly expiresAt: number | undefined }): boolean =>
    entry.expiresAt !== undefined && entry.expiresAt <= clock.now();
  const sweep = async (): Promise<void> => {
    for (const token of tokens.values()) if (isOver(token)) await revoke(token);
    for (const lease of leases.values()) if (isOver(lease)) await revokeLease(lease);
  };
  const nextExpiryMs = (): number => {
    const ends = [...tokens.values(), ...leases.values()].map((e) => e.expiresAt ?? Infinity);
    // A timer of Node's holds at most 2^31 - 1 ms.
    return Math.min(86_400_000, ...ends.map((end) => end - clock.now()));
  };
  const live = <T extends { expiresAt: number | undefined }>(
    entry: T | undefined,
  ): T | undefined => (entry === undefined || isOver(entry) ? undefined : entry);
  const add = (parts: Omit<Token, "id" | "accessor" | "issuedAt">): Token => {
    const token: Token = {
      id: `hvs.${randomBytes(18).toString("base64url")}`,
      accessor: randomBytes(18).toString("base64url"),
      issuedAt: clock.now(),
      ...parts,
    };
    tokens.set(token.id, token);
    wake.abort();
    return token;
  };

  return {
    issue: (parts) =>
      add({
        metadata: {},
        displayName: "token",
        renewable: true,
        ...parts,
        expiresAt: endOf(clock.now(), clock.now(), 0, parts.terms()),
      }),
    issueRoot: () =>
      add({
        policies: ["root"],
        path: "auth/token/root",
        metadata: {},
        displayName: "root",
        renewable: false,
        terms: () => ({ ttlMs: 0, maxTtlMs: 0 }),
        expiresAt: undefined,
      }),
    find: (id) => live(tokens.get(id)),
    findByAccessor: (accessor) =>
      live([...tokens.values()].find((token) => token.accessor === accessor)),
    renew(token, incrementMs) {
      if (!token.renewable) throw invalid("lease is not renewable");
      token.expiresAt = endOf(clock.now(), token.issuedAt, incrementMs, token.terms());
    },
    revoke,
    lease(token, path, terms, revokeIssued) {
      const now = clock.now();
      const lease: Lease = {
        id: `${path}/${randomUUID()}`,
        tokenId: token.id,
        issuedAt: now,
        terms,
        revoke: revokeIssued,
        expiresAt: endOf(now, now, 0, terms()),
      };
      leases.set(lease.id, lease);
      wake.abort();
      return lease;
    },
    findLease: (id) => live(leases.get(id)),
    renewLease(lease, incrementMs) {
      lease.expiresAt = endOf(clock.now(), lease.issuedAt, incrementMs, lease.terms());
    },
    revokeLease,
    async revokeLeases(prefix) {
      for (const lease of leases.values())
        if (lease.id.startsWith(prefix)) await revokeLease(lease);
    },
    async run(signal) {
      while (!signal.aborted) {
        await sweep();
        wake = new AbortController();
        const waiting = AbortSignal.any([signal, wake.signal]);
        // Woken by a new, perhaps earlier expiry, or by the end.
        await clock.sleep(Math.max(1, nextExpiryMs()), waiting).catch(() => undefined);
      }
    },
  };
}

/** When something ends that is (re)newed at `now`: Vault's CalculateTTL, in whole seconds. */
function endOf(now: number, issuedAt: number, incrementMs: number, terms: Terms): number {
  const maximum = Math.min(terms.maxTtlMs || SYSTEM_TTL_MS, SYSTEM_TTL_MS);
  const wanted = incrementMs || terms.ttlMs || SYSTEM_TTL_MS;
  const end = Math.min(now + wanted, issuedAt + maximum);
  if (end <= now) throw invalid("past the max TTL, cannot renew");
  return end;
}

/** Whole seconds left, as Vault states durations. */
export function secondsLeft(
  entry: { readonly expiresAt: number | undefined },
  now: number,
): number {
  return entry.expiresAt === undefined
    ? 0
    : Math.max(0, Math.round((entry.expiresAt - now) / 1_000));
}

export function authOf(token: Token, now: number): Fields {
  return {
    client_token: token.id,
    accessor: token.accessor,
    policies: token.policies,
    token_policies: token.policies,
    metadata: token.metadata,
    lease_duration: secondsLeft(token, now),
    renewable: token.renewable,
    entity_id: "",
    token_type: "service",
    orphan: true,
    mfa_requirement: null,
    num_uses: 0,
  };
}
