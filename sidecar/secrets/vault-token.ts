/** The token of the login: obtained, renewed, checked when a request is denied, replaced before it ends. */
import type { Clock } from "#core/clock.ts";
import { codeOf } from "#core/errors.ts";
import type { ErrorCode } from "#core/errors.ts";
import { expiryOf, mayAskAt, newCredential, next, plan, resumedCredential } from "#core/lease.ts";
import type { Credential, Event, Grant } from "#core/lease.ts";
import type { Log, SidecarMetrics } from "#core/telemetry.ts";
import { openAlarm } from "./alarm.ts";
import { outcomeOf } from "./turnstile.ts";
import type { Outcome, Turnstile } from "./turnstile.ts";
import { answeredOf } from "./vault.ts";
import type { Vault } from "./vault.ts";

export interface Token {
  readonly token: string;
  readonly accessor: string;
  /** Counts the logins of this pod's life: what a token issued ends with it. */
  readonly generation: number;
}

/** A token that another has followed; leases may still depend on it. */
export interface FormerToken extends Token {
  /** Monotonic milliseconds. */
  readonly expiresAt: number;
}

export interface TokenDeps {
  readonly vault: Vault;
  readonly turnstile: Turnstile;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly metrics: SidecarMetrics;
  /** Something worth saving has changed. */
  readonly changed: () => void;
  /** The token was replaced in time, or, with `undefined`, is no more: so is all that it issued. */
  readonly superseded: (generation: number, expiresAt: number | undefined) => void;
}

export type Verdict = "good" | "lost" | "unknown";

export interface TokenKeeper {
  /** Keeps a token, until aborted. */
  run(signal: AbortSignal): Promise<void>;
  /** The token, as soon as there is one. */
  current(signal: AbortSignal): Promise<Token>;
  /**
   * A request that was sent with `token` at `since`, monotonic milliseconds, was denied: is it the token, or the policy?
   * `unknown` when that cannot be found out now.
   */
  doubt(token: Token, since: number, signal: AbortSignal): Promise<Verdict>;
  readonly held: Token | undefined;
  readonly former: FormerToken | undefined;
  /** Forgets the former token, and gives it back. */
  dropFormer(): FormerToken | undefined;
  readonly credential: Credential;
  /** Why there is no token, or why it could not be renewed. */
  readonly code: ErrorCode | undefined;
}

export interface Resumed {
  readonly token: Token;
  readonly lease: (Grant & { readonly remainingMs: number }) | undefined;
  readonly former: FormerToken | undefined;
}

/** Milliseconds between two looks at what has no end. */
const CHECK_MS = 3_600_000;

export function openTokenKeeper(deps: TokenDeps, resumed: Resumed | undefined): TokenKeeper {
  const { vault, turnstile, clock, random, log, metrics } = deps;
  const alarm = openAlarm(clock);
  const now = clock.monotonic();
  let credential =
    resumed === undefined
      ? newCredential(now, CHECK_MS)
      : resumedCredential(resumed.lease, now, CHECK_MS);
  let held = resumed?.token;
  let former = resumed?.former;
  let generation = resumed?.token.generation ?? 0;
  let code: ErrorCode | undefined;
  let verified = Number.NEGATIVE_INFINITY;
  let verifying: Promise<Verdict> | undefined;
  const waiters: (() => void)[] = [];

  const apply = (event: Event, at: number = clock.monotonic()): void => {
    credential = next(credential, event, at, random());
  };
  const lose = (): void => {
    if (held === undefined) return;
    log.warn({ code: "VAULT_DENIED" }, "Vault knows the token no more; logging in again");
    held = undefined;
    apply({ kind: "lost" });
    deps.superseded(generation, undefined);
    deps.changed();
    alarm.ring();
  };
  /** It could not be renewed in time: what it has issued has ended with it, and nothing more is asked for with it. */
  const end = (): void => {
    if (held === undefined) return;
    log.warn(
      code === undefined ? {} : { code },
      "the token has ended, and with it what it has issued",
    );
    held = undefined;
    deps.superseded(generation, undefined);
    deps.changed();
  };
  const fail = (error: unknown, message: string): void => {
    code = codeOf(error);
    const retryAfterMs = answeredOf(error)?.retryAfterMs;
    apply({
      kind: "failed",
      isSlow: code !== "VAULT_UNAVAILABLE",
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    });
    const delayMs = Math.round(plan(credential).at - clock.monotonic());
    log.warn({ code, err: error, attempt: credential.attempt, delayMs }, message);
    const endsAt = expiryOf(credential);
    if (endsAt !== undefined && endsAt <= clock.monotonic()) end();
  };

  const logIn = async (signal: AbortSignal): Promise<Outcome> => {
    const at = clock.monotonic();
    apply({ kind: "asked" });
    try {
      const login = await vault.login(signal);
      const expiresAt = expiryOf(credential);
      const before = held;
      held = { token: login.token, accessor: login.accessor, generation: ++generation };
      apply({ kind: "acquired", grant: login.grant }, at);
      code = undefined;
      verified = at;
      metrics.add("edgesync_sidecar_vault_logins_total", { outcome: "ok" });
      log.info({ outcome: "ok" }, "logged in at Vault");
      if (before !== undefined && expiresAt !== undefined) {
        former = { ...before, expiresAt };
        deps.superseded(before.generation, expiresAt);
      }
      deps.changed();
      for (const wake of waiters.splice(0)) wake();
      return { kind: "succeeded" };
    } catch (error) {
      signal.throwIfAborted();
      metrics.add("edgesync_sidecar_vault_logins_total", { outcome: codeOf(error) });
      fail(error, "the login at Vault failed");
      return outcomeOf(error);
    }
  };

  const renew = async (token: Token, signal: AbortSignal): Promise<Outcome> => {
    const at = clock.monotonic();
    const wantedMs = credential.phase === "leased" ? credential.lease.durationMs : CHECK_MS;
    apply({ kind: "asked" });
    try {
      const grant = await vault.renewToken(token.token, wantedMs, signal);
      apply({ kind: "renewed", grant }, at);
      code = undefined;
      verified = at;
      metrics.add("edgesync_sidecar_secret_renewals_total", { outcome: "ok" });
      deps.changed();
      return { kind: "succeeded" };
    } catch (error) {
      signal.throwIfAborted();
      metrics.add("edgesync_sidecar_secret_renewals_total", { outcome: codeOf(error) });
      const verdict = codeOf(error) === "VAULT_DENIED" ? await verify(token, signal) : "unknown";
      // 400: this kind of token cannot be renewed.
      if (verdict === "good" || codeOf(error) === "SECRET_INVALID") apply({ kind: "unrenewable" });
      else if (verdict === "unknown") fail(error, "the token could not be renewed");
      return outcomeOf(error);
    }
  };

  /** A token without an end is looked at now and then, as is one that a process before this left behind. */
  const look = async (token: Token, signal: AbortSignal): Promise<Outcome> => {
    const verdict = await verify(token, signal);
    if (verdict === "good") apply({ kind: "acquired", grant: undefined });
    else if (held === token) apply({ kind: "failed", isSlow: false });
    return { kind: verdict === "good" ? "succeeded" : verdict === "lost" ? "refused" : "failed" };
  };

  const verify = async (token: Token, signal: AbortSignal): Promise<Verdict> => {
    const at = clock.monotonic();
    if (held !== token) return "lost";
    if (mayAskAt(credential) > at) return "unknown";
    apply({ kind: "asked" });
    try {
      await vault.lookupToken(token.token, signal);
      verified = at;
      return "good";
    } catch (error) {
      signal.throwIfAborted();
      if (codeOf(error) !== "VAULT_DENIED") return "unknown";
      if (held === token) lose();
      return "lost";
    }
  };

  return {
    async run(signal) {
      for (;;) {
        await alarm.until(plan(credential).at, signal);
        const ask = async (): Promise<Outcome> => {
          const { action, at } = plan(credential);
          if (at > clock.monotonic()) return { kind: "skipped" };
          if (held === undefined) return await logIn(signal);
          if (credential.phase === "static") return await look(held, signal);
          return await (action === "renew" ? renew(held, signal) : logIn(signal));
        };
        const { attempt } = credential;
        await turnstile.pass({ attempt, endsAt: expiryOf(credential), isToken: true }, ask, signal);
      }
    },
    async current(signal) {
      for (;;) {
        if (held !== undefined) return held;
        signal.throwIfAborted();
        const { promise, resolve, reject } = Promise.withResolvers<void>();
        const abort = (): void => reject(signal.reason as Error);
        signal.addEventListener("abort", abort, { once: true });
        waiters.push(resolve);
        await promise.finally(() => signal.removeEventListener("abort", abort));
      }
    },
    async doubt(token, since, signal) {
      // Somebody else's doubt was cleared meanwhile.
      if (held === token && verified >= since) return "good";
      verifying ??= verify(token, signal).finally(() => {
        verifying = undefined;
      });
      return verifying;
    },
    get held() {
      return held;
    },
    get former() {
      return former;
    },
    dropFormer() {
      const dropped = former;
      former = undefined;
      return dropped;
    },
    get credential() {
      return credential;
    },
    get code() {
      return code;
    },
  };
}
