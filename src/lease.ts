/**
 * One credential's life, as data: the token of the login or the credential of one secret. `plan` says what is to be asked of
 * Vault next and when; `next` takes the answer. Times are monotonic milliseconds, so that setting a node's clock changes nothing.
 *
 * A lease is renewed once 50 to 60 % of it are over; while that fails it is tried again until 95 %, and then one new credential
 * is asked for. What cannot be renewed is replaced at 80 to 90 %. Whatever Vault answers, and whatever the dice say, no more than
 * {@link requestsPerHour} requests are made.
 */
import { backoffMs, retryAfterPauseMs, urgentPauseMs } from "./backoff.ts";
import { unreachable } from "./errors.ts";

/** What Vault says of a credential that ends. */
export interface Grant {
  /** Milliseconds. */
  readonly durationMs: number;
  readonly renewable: boolean;
}

/** A grant in time. */
export interface Lease extends Grant {
  readonly expiresAt: number;
}

interface Common {
  /** When the next request is due, if nothing else holds it back. */
  readonly dueAt: number;
  /** Not earlier, whatever is due: Vault said Retry-After. */
  readonly notBefore: number;
  /** Failures in a row. */
  readonly attempt: number;
  /** Milliseconds between two reads of what has no lease. */
  readonly refreshMs: number;
  /** Part of its life after which what cannot be renewed is replaced. */
  readonly replacePart: number;
  /** When the allowance of requests is full again; see {@link requestsPerHour}. */
  readonly allowance: number;
}

export type Credential =
  /** Nothing is held, or what is held is known to be worthless. */
  | ({ readonly phase: "absent" } & Common)
  /** Something without an end, to be read again now and then. */
  | ({ readonly phase: "static" } & Common)
  /** `renew`: at `dueAt`, until `replaceAt`. `replace`: at `dueAt`. */
  | ({
      readonly phase: "leased";
      readonly lease: Lease;
      readonly action: "renew" | "replace";
      readonly replaceAt: number;
    } & Common);

export interface Plan {
  /** `acquire`: log in, or read the secret, which issues a new credential. */
  readonly action: "acquire" | "renew";
  readonly at: number;
}

export type Event =
  /** A request is about to be made: it is counted, whatever comes of it. */
  | { readonly kind: "asked" }
  /**
   * A new credential, or new data without a lease. `grant` counts from `at`, when it was asked for; `readAgainMs` is when
   * there will be new data, where Vault says so.
   */
  | {
      readonly kind: "acquired";
      readonly grant: Grant | undefined;
      readonly readAgainMs?: number | undefined;
    }
  | { readonly kind: "renewed"; readonly grant: Grant }
  /** It may work another time. `isSlow`: not soon, because somebody has to change something first. */
  | { readonly kind: "failed"; readonly isSlow: boolean; readonly retryAfterMs?: number }
  /** Vault will not renew it (403): it is used to its end, and replaced in time. */
  | { readonly kind: "unrenewable" }
  /** Vault knows it no more: revoked, or its token was. */
  | { readonly kind: "lost" }
  /** The token that it belongs to ends at `expiresAt` and takes it along. */
  | { readonly kind: "bounded"; readonly expiresAt: number };

/** Requests that may be made at once, after a quiet time. */
const BURST = 60;
/** Milliseconds after which one more may be made. */
const REFILL_MS = 20_000;

/** Parts of a lease. */
const RENEW = 0.5;
const REPLACE = 0.8;
const JITTER = 0.1;
const GIVE_UP = 0.95;

/** Milliseconds between two attempts, at least. */
const LEAST_PAUSE_MS = 1_000;
const LEAST_SLOW_PAUSE_MS = 5_000;
/** Doublings that a slow retry is ahead of a quick one: the first comes within 16 s, not 1 s. */
const SLOW_ATTEMPTS = 4;

/**
 * The most requests for one credential in any 60 minutes, for any sequence of answers: 240, or what the refresh interval itself
 * asks for and 60 more, when that is shorter than 20 seconds.
 */
export function requestsPerHour(refreshMs: number): number {
  return BURST + Math.ceil(3_600_000 / refillMs(refreshMs));
}

/** A read each 0.9 refresh intervals is wanted, so it must fit. */
function refillMs(refreshMs: number): number {
  return Math.min(REFILL_MS, refreshMs * (1 - JITTER));
}

/** @param replacePart from 0 to {@link REPLACE}; of what is given without a right to renew it, like a certificate */
export function newCredential(
  now: number,
  refreshMs: number,
  replacePart: number = REPLACE,
): Credential {
  const due = { dueAt: now, notBefore: now, attempt: 0 };
  return { phase: "absent", ...due, refreshMs, replacePart, allowance: now };
}

/**
 * A credential that an earlier process left behind. How much time it has left is an estimate, made by a clock that may have been
 * set in between; so Vault is asked at once where a renewal can tell, and nothing is taken for lost before.
 */
export function resumedCredential(
  lease: (Grant & { readonly remainingMs: number }) | undefined,
  now: number,
  refreshMs: number,
  replacePart: number = REPLACE,
): Credential {
  const fresh = newCredential(now, refreshMs, replacePart);
  if (lease === undefined) return { ...fresh, phase: "static" };
  const { durationMs, renewable, remainingMs } = lease;
  const left = Math.min(Math.max(remainingMs, 0), durationMs);
  const held = { durationMs, renewable, expiresAt: now + left };
  if (renewable)
    return { ...fresh, phase: "leased", lease: held, action: "renew", replaceAt: now + durationMs };
  const dueAt = now + Math.max(0, left - durationMs * (1 - replacePart));
  return { ...fresh, phase: "leased", lease: held, action: "replace", replaceAt: dueAt, dueAt };
}

/** What to ask of Vault next, and when. */
export function plan(state: Credential): Plan {
  const earliest = Math.max(state.notBefore, mayAskAt(state));
  const renewAt = Math.max(state.dueAt, earliest);
  if (state.phase !== "leased" || state.action === "replace")
    return { action: "acquire", at: renewAt };
  if (renewAt < state.replaceAt) return { action: "renew", at: renewAt };
  return { action: "acquire", at: Math.max(state.replaceAt, earliest) };
}

/** From when on another request is within the allowance: a leaky bucket that holds {@link BURST}. */
export function mayAskAt(state: Credential): number {
  return state.allowance - (BURST - 1) * refillMs(state.refreshMs);
}

/**
 * The credential after an event at `at`.
 *
 * @param random a number in [0,1)
 */
export function next(state: Credential, event: Event, at: number, random: number): Credential {
  switch (event.kind) {
    case "asked": {
      const allowance = Math.max(state.allowance, at) + refillMs(state.refreshMs);
      return { ...state, allowance };
    }
    case "acquired":
      return acquired(settled(state, at), event, at, random);
    case "renewed":
      return renewed(state, event.grant, at, random);
    case "failed":
      return failed(state, event, at, random);
    case "unrenewable":
      if (state.phase !== "leased") return state;
      return replacing(settled(state, at), { ...state.lease, renewable: false }, at, random);
    case "lost":
      return { ...settled(state, at), phase: "absent", dueAt: at };
    case "bounded": {
      if (state.phase !== "leased") return state;
      const expiresAt = Math.min(state.lease.expiresAt, event.expiresAt);
      // It is replaced in time as it is.
      if (state.action === "replace" && state.dueAt < expiresAt) return state;
      const lease = { ...state.lease, renewable: false, expiresAt };
      // Soon, because time is short, and spread, because every other credential of the token goes with it.
      const dueAt = at + random * 0.5 * Math.max(0, expiresAt - at);
      return {
        ...settled(state, at),
        phase: "leased",
        lease,
        action: "replace",
        replaceAt: dueAt,
        dueAt,
      };
    }
    default:
      return unreachable(event);
  }
}

/** When it ends; `undefined` when nothing is held, or it has no end. */
export function expiryOf(state: Credential): number | undefined {
  return state.phase === "leased" ? state.lease.expiresAt : undefined;
}

function settled(state: Credential, at: number): Common {
  const { refreshMs, replacePart, allowance } = state;
  return { dueAt: at, notBefore: at, attempt: 0, refreshMs, replacePart, allowance };
}

function acquired(
  common: Common,
  { grant, readAgainMs }: Extract<Event, { kind: "acquired" }>,
  at: number,
  random: number,
): Credential {
  if (grant === undefined) {
    // Not before the new data is there: half of the spread would be for nothing.
    const pause =
      readAgainMs === undefined
        ? common.refreshMs * (1 - JITTER + 2 * JITTER * random)
        : readAgainMs + LEAST_PAUSE_MS * random;
    return { ...common, phase: "static", dueAt: at + pause };
  }
  const lease = { ...grant, expiresAt: at + grant.durationMs };
  return lease.renewable
    ? renewing(common, lease, at, random)
    : replacing(common, lease, at, random, common.replacePart);
}

function renewed(state: Credential, grant: Grant, at: number, random: number): Credential {
  if (state.phase !== "leased") return state;
  const common = settled(state, at);
  // What was asked for is the lease's first duration; Vault counts in whole seconds.
  const rounding = Math.min(1_000, state.lease.durationMs * 0.05);
  const isFull = grant.durationMs >= state.lease.durationMs - rounding;
  const expiresAt = at + grant.durationMs;
  if (grant.renewable && isFull)
    return renewing(common, { ...state.lease, renewable: true, expiresAt }, at, random);
  // Shorter: the maximum is near, and another renewal would only be shorter still.
  return replacing(common, { ...grant, renewable: false, expiresAt }, at, random);
}

function renewing(common: Common, lease: Lease, at: number, random: number): Credential {
  return {
    ...common,
    phase: "leased",
    lease,
    action: "renew",
    dueAt: at + lease.durationMs * (RENEW + JITTER * random),
    replaceAt: at + lease.durationMs * GIVE_UP,
  };
}

function replacing(
  common: Common,
  lease: Lease,
  at: number,
  random: number,
  part: number = REPLACE,
): Credential {
  const dueAt = at + Math.max(0, lease.expiresAt - at) * (part + JITTER * random);
  return { ...common, phase: "leased", lease, action: "replace", replaceAt: dueAt, dueAt };
}

function failed(
  state: Credential,
  { isSlow, retryAfterMs = 0 }: Extract<Event, { kind: "failed" }>,
  at: number,
  random: number,
): Credential {
  const ahead = isSlow ? SLOW_ATTEMPTS : 0;
  const least = isSlow ? LEAST_SLOW_PAUSE_MS : LEAST_PAUSE_MS;
  const expiresAt = expiryOf(state);
  const left = expiresAt === undefined ? undefined : expiresAt - at;
  const backoff = backoffMs(state.attempt + ahead, () => random);
  const pause = Math.max(least, urgentPauseMs(backoff, left, random));
  const after = {
    attempt: state.attempt + 1,
    dueAt: at + pause,
    notBefore: at + retryAfterPauseMs(retryAfterMs, left, random),
  };
  // Past the time for renewals it was the new credential that failed, so that is what is tried again.
  return state.phase === "leased" && at >= state.replaceAt
    ? { ...state, ...after, action: "replace" }
    : { ...state, ...after };
}
