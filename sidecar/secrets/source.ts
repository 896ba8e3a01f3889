/**
 * One thing that is asked of Vault, and the files that come of it. Secrets with the same request share one source, so that the
 * user of one file and the password of another are of one credential. What goes wrong here touches no other source.
 */
import type { Clock } from "#core/clock.ts";
import { codeOf } from "#core/errors.ts";
import type { ErrorCode } from "#core/errors.ts";
import { expiryOf, newCredential, next, plan, resumedCredential } from "#core/lease.ts";
import type { Credential, Event, Grant } from "#core/lease.ts";
import type { SecretOptions } from "#core/pod-options.ts";
import type { SecretData } from "#core/secret-file.ts";
import type { SecretRequest, VaultRequest } from "#core/secret-request.ts";
import type { Log, SidecarMetrics } from "#core/telemetry.ts";
import { openAlarm } from "./alarm.ts";
import type { FilesOf } from "./files.ts";
import type { SecretFile } from "./publication.ts";
import { outcomeOf } from "./turnstile.ts";
import type { Outcome, Turnstile } from "./turnstile.ts";
import { answeredOf } from "./vault.ts";
import { isEndless } from "./reading.ts";
import type { Secret } from "./reading.ts";
import type { Vault } from "./vault.ts";
import type { Token, TokenKeeper } from "./vault-token.ts";

/** What a source gave at one time. */
export interface Version {
  readonly data: SecretData;
  readonly files: readonly SecretFile[];
  readonly leaseId: string | undefined;
  /** Of the token that it was issued to. */
  readonly generation: number;
  readonly grant: Grant | undefined;
  /** Monotonic milliseconds; `undefined` for what has no end. Moves with each renewal. */
  expiresAt: number | undefined;
}

export interface SourceDeps {
  readonly vault: Vault;
  readonly keeper: TokenKeeper;
  /** Where requests pass, so that many secrets do not ask all at once. */
  readonly turnstile: Turnstile;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly metrics: SidecarMetrics;
  readonly refreshMs: number;
  readonly filesOf: FilesOf;
  /** There is something to save and to publish. */
  readonly changed: () => void;
  /** Vault has given once more what is held already: there is nothing to save or to publish. */
  readonly confirmed: () => void;
  /** Another version takes the place of this one. */
  readonly replaced: (version: Version) => void;
  /** A version that cannot be used, and never was. */
  readonly discarded: (version: Version) => void;
}

export interface Source {
  /** The request's text form. */
  readonly key: string;
  readonly kind: SecretRequest["kind"] | "template";
  readonly secrets: readonly SecretOptions[];
  readonly current: Version | undefined;
  /** Why the last request failed; `undefined` when it did not. */
  readonly code: ErrorCode | undefined;
  /** Follows the secret, until aborted. */
  run(signal: AbortSignal): Promise<void>;
  /** The token of `generation` was replaced and ends at `expiresAt`; or, with `undefined`, is no more. */
  superseded(generation: number, expiresAt: number | undefined): void;
}

export interface ResumedVersion {
  readonly data: SecretData;
  readonly leaseId: string | undefined;
  readonly generation: number;
  readonly lease: (Grant & { readonly remainingMs: number }) | undefined;
}

export function openSource(
  key: string,
  request: VaultRequest,
  secrets: readonly SecretOptions[],
  deps: SourceDeps,
  resumed: ResumedVersion | undefined,
): Source {
  const { vault, keeper, turnstile, clock, random, log, metrics } = deps;
  const names = secrets.map((secret) => secret.name).join(",");
  const alarm = openAlarm(clock);
  const start = clock.monotonic();
  const part = request.replaceAt === undefined ? undefined : request.replaceAt / 100;
  let credential: Credential = newCredential(start, deps.refreshMs, part);
  let current: Version | undefined;
  let code: ErrorCode | undefined;
  /** The generation of the token with which a request for this secret last succeeded. */
  let proven: number | undefined;

  if (resumed !== undefined) {
    const { data, leaseId, generation, lease } = resumed;
    const held = resumedCredential(lease, start, deps.refreshMs, part);
    const version = { data, leaseId, generation, grant: lease, expiresAt: expiryOf(held) };
    try {
      current = { ...version, files: deps.filesOf(secrets, data) };
      const kept = { kind: "acquired", grant: undefined, readAgainMs: Infinity } as const;
      credential = isEndless(data) ? next(held, kept, start, 0) : held;
      proven = generation;
    } catch (error) {
      // Another form is declared than that of the process before; what is at the path may have changed with it.
      code = codeOf(error);
      log.warn({ secret: names, code, err: error }, "what was kept does not fit; it is read anew");
      deps.replaced({ ...version, files: [] });
    }
  }

  const apply = (event: Event, at: number = clock.monotonic()): void => {
    credential = next(credential, event, at, random());
  };
  const fail = (error: unknown, message: string, isSlow: boolean): void => {
    code = codeOf(error);
    const retryAfterMs = answeredOf(error)?.retryAfterMs;
    apply({ kind: "failed", isSlow, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) });
    const delayMs = Math.round(plan(credential).at - clock.monotonic());
    log.warn({ secret: names, code, err: error, attempt: credential.attempt, delayMs }, message);
  };
  /**
   * Whether a denial is the token's and not the policy's. Only what this token could do before raises the question, and once, so
   * a secret that no policy allows does not have the token looked at again and again.
   */
  const isTokenGone = async (
    error: unknown,
    token: Token,
    since: number,
    signal: AbortSignal,
  ): Promise<boolean> => {
    if (codeOf(error) !== "VAULT_DENIED" || proven !== token.generation) return false;
    const verdict = await keeper.doubt(token, since, signal);
    if (verdict === "good") proven = undefined;
    return verdict === "lost";
  };

  const adopt = (secret: Secret, token: Token, at: number): void => {
    const { data, leaseId, readAgainMs } = secret;
    // A lease of no seconds is one of which Vault says no end; followed at it, it would be a storm.
    const grant = secret.grant?.durationMs === 0 ? undefined : secret.grant;
    const { generation } = token;
    if (current !== undefined && isSame(current, secret)) {
      apply({ kind: "acquired", grant, readAgainMs }, at);
      return deps.confirmed();
    }
    const expiresAt = grant === undefined ? undefined : at + grant.durationMs;
    const version = { data, leaseId, generation, grant, expiresAt };
    // May throw: what was issued for nothing is given back.
    let files: readonly SecretFile[];
    try {
      files = deps.filesOf(secrets, data);
    } catch (error) {
      deps.discarded({ ...version, files: [] });
      throw error;
    }
    if (current !== undefined) deps.replaced(current);
    current = { ...version, files };
    apply({ kind: "acquired", grant, readAgainMs }, at);
    deps.changed();
  };

  const acquire = async (token: Token, signal: AbortSignal): Promise<Outcome> => {
    const at = clock.monotonic();
    apply({ kind: "asked" });
    try {
      const secret = await vault.read(token.token, request, signal);
      proven = token.generation;
      adopt(secret, token, at);
      followToken(token.generation);
      code = undefined;
      metrics.add("edgesync_sidecar_secret_reads_total", { outcome: "ok" });
      return { kind: "succeeded" };
    } catch (error) {
      signal.throwIfAborted();
      metrics.add("edgesync_sidecar_secret_reads_total", { outcome: codeOf(error) });
      // With another token it is asked for again at once.
      if (await isTokenGone(error, token, at, signal)) return outcomeOf(error);
      const isSlow = codeOf(error) !== "VAULT_UNAVAILABLE";
      fail(error, "the secret could not be read", isSlow);
      return outcomeOf(error);
    }
  };

  const renew = async (
    version: Version,
    leaseId: string,
    token: Token,
    signal: AbortSignal,
  ): Promise<Outcome> => {
    const at = clock.monotonic();
    apply({ kind: "asked" });
    try {
      const wantedMs = version.grant?.durationMs ?? 0;
      const grant = await vault.renewLease(token.token, leaseId, wantedMs, signal);
      apply({ kind: "renewed", grant }, at);
      version.expiresAt = at + grant.durationMs;
      code = undefined;
      metrics.add("edgesync_sidecar_secret_renewals_total", { outcome: "ok" });
      followToken(version.generation);
      deps.changed();
      return { kind: "succeeded" };
    } catch (error) {
      signal.throwIfAborted();
      const failure = codeOf(error);
      metrics.add("edgesync_sidecar_secret_renewals_total", { outcome: failure });
      if (await isTokenGone(error, token, at, signal)) return outcomeOf(error);
      if (failure === "VAULT_DENIED") {
        log.info(
          { secret: names, code: failure },
          "the lease may not be renewed; it is replaced in time",
        );
        apply({ kind: "unrenewable" });
      } else if (failure === "SECRET_INVALID") {
        log.warn({ secret: names, code: failure }, "Vault knows the lease no more; it is replaced");
        lose();
      } else fail(error, "the lease could not be renewed", false);
      return outcomeOf(error);
    }
  };

  const lose = (): void => {
    const now = clock.monotonic();
    apply({ kind: "lost" });
    if (current?.leaseId !== undefined) current.expiresAt = Math.min(now, current.expiresAt ?? now);
    deps.changed();
    alarm.ring();
  };

  const superseded = (generation: number, expiresAt: number | undefined): void => {
    if (current?.leaseId === undefined || current.generation !== generation) return;
    if (expiresAt === undefined) return lose();
    current.expiresAt = Math.min(current.expiresAt ?? expiresAt, expiresAt);
    apply({ kind: "bounded", expiresAt });
    alarm.ring();
  };
  /** The token may have been replaced, or lost, while Vault answered: what it has issued goes with it. */
  const followToken = (generation: number): void => {
    const { held, former } = keeper;
    if (held?.generation === generation) return;
    superseded(generation, former?.generation === generation ? former.expiresAt : undefined);
  };

  return {
    key,
    kind: "vault",
    secrets,
    get current() {
      return current;
    },
    get code() {
      return code;
    },
    async run(signal) {
      for (;;) {
        await alarm.until(plan(credential).at, signal);
        const token = await keeper.current(signal);
        const ask = async (): Promise<Outcome> => {
          // Looked at again: while it waited for its turn, the token may have been lost and the credential with it.
          const { action, at } = plan(credential);
          if (at > clock.monotonic() || keeper.held !== token) return { kind: "skipped" };
          return action === "renew" && current?.leaseId !== undefined
            ? await renew(current, current.leaseId, token, signal)
            : await acquire(token, signal);
        };
        const { attempt } = credential;
        await turnstile.pass({ attempt, endsAt: expiryOf(credential) }, ask, signal);
      }
    },
    superseded,
  };
}

/** Whether it is what is held, and has no end that has moved: so it is for most that is read again. */
function isSame(held: Version, { data, leaseId, grant }: Secret): boolean {
  return (
    [held.leaseId, leaseId, held.grant, grant].every((part) => part === undefined) &&
    JSON.stringify(held.data) === JSON.stringify(data)
  );
}
