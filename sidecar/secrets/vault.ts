/**
 * Vault's HTTP API as far as the secrets agent needs it; OpenBao's is the same. Each function is one request. Whatever goes
 * wrong is an error with a code, a status and no word of what was sent or received.
 */
import type { IncomingHttpHeaders } from "node:http";
import * as v from "valibot";
import { EdgeSyncError } from "#core/errors.ts";
import type { ErrorCode } from "#core/errors.ts";
import type { Grant } from "#core/lease.ts";
import type { VaultRequest } from "#core/secret-request.ts";
import { readBody } from "../network/http.ts";
import { proofOf } from "./login.ts";
import type { LoginMethod, VaultHttp } from "./login.ts";
import { absence, grantOf, isError, parseAnswer, readSecret, seconds } from "./reading.ts";
import type { Answer, Secret, Send } from "./reading.ts";
import { openSecretIds } from "./secret-id.ts";
import type { SecretIds } from "./secret-id.ts";

export interface VaultOptions {
  /** `https://host[:port][/path]`. */
  readonly address: string;
  readonly namespace: string | undefined;
  readonly login: LoginMethod;
  /** Keeps a secret_id that came wrapped; for this process alone when absent. */
  readonly secretIds?: SecretIds;
  /** Milliseconds for a whole request; answers are small. */
  readonly timeoutMs?: number;
}

export interface Login {
  readonly token: string;
  /** Names the token where the token itself must not be seen. */
  readonly accessor: string;
  /** `undefined` when it does not end. */
  readonly grant: Grant | undefined;
}

export interface Vault {
  /** @throws EdgeSyncError CONFIG_INVALID when what it logs in with cannot be read, SECRET_INVALID when a wrapped secret_id is none, VAULT_DENIED, VAULT_UNAVAILABLE, TLS_UNTRUSTED */
  login(signal: AbortSignal): Promise<Login>;
  /** @throws EdgeSyncError VAULT_DENIED when the token is no more */
  lookupToken(token: string, signal: AbortSignal): Promise<void>;
  renewToken(token: string, incrementMs: number, signal: AbortSignal): Promise<Grant>;
  /** Ends the token and every lease that was issued to it. */
  revokeToken(token: string, signal: AbortSignal): Promise<void>;
  /** @throws EdgeSyncError SECRET_INVALID when there is nothing at the path, VAULT_DENIED, VAULT_UNAVAILABLE */
  read(token: string, request: VaultRequest, signal: AbortSignal): Promise<Secret>;
  /** @throws EdgeSyncError SECRET_INVALID when the lease is no more, VAULT_DENIED, VAULT_UNAVAILABLE */
  renewLease(
    token: string,
    leaseId: string,
    incrementMs: number,
    signal: AbortSignal,
  ): Promise<Grant>;
  revokeLease(token: string, leaseId: string, signal: AbortSignal): Promise<void>;
}

/** What is known of an answer that became an error: its status, and how long Vault asks to be left alone. */
export interface Answered {
  readonly status: number;
  readonly retryAfterMs?: number;
  /** When Vault refused a login, by its own clock: milliseconds since the epoch. */
  readonly at?: number;
}

/** What Vault answered, when `error` comes from an answer of Vault. */
export function answeredOf(error: unknown): Answered | undefined {
  const cause = error instanceof EdgeSyncError ? error.cause : undefined;
  return v.is(answered, cause) ? (cause as Answered) : undefined;
}

const answered = v.strictObject({
  status: v.number(),
  retryAfterMs: v.optional(v.number()),
  at: v.optional(v.number()),
});

const BODY_LIMIT_BYTES = 1_048_576;
const TIMEOUT_MS = 10_000;

const loginAnswer = v.object({
  auth: v.object({
    client_token: v.pipe(v.string(), v.regex(/^[\x21-\x7e]{1,8192}$/)),
    accessor: v.string(),
    lease_duration: seconds,
    renewable: v.boolean(),
  }),
});

const renewedToken = v.object({
  auth: v.object({ lease_duration: seconds, renewable: v.boolean() }),
});

const leaseAnswer = v.object({ lease_duration: seconds, renewable: v.boolean() });

/** How a status becomes a code: methods of a login other than kubernetes answer 400 to what they do not accept. */
const LOGIN_MEANINGS: Readonly<Record<number, ErrorCode>> = {
  400: "VAULT_DENIED",
  404: "VAULT_DENIED",
};

export function openVault(http: VaultHttp, options: VaultOptions): Vault {
  const { address, namespace, timeoutMs = TIMEOUT_MS } = options;
  const secretIds = options.secretIds ?? openSecretIds(undefined, () => Promise.resolve());

  const send = async (
    method: "GET" | "POST",
    path: string,
    what: Parameters<Send>[2] & { readonly isLogin?: boolean },
    signal: AbortSignal,
  ): Promise<Answer> => {
    const { token, fields, isLogin = false } = what;
    const limited = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
    try {
      const response = await http.request(
        {
          method,
          url: `${address}/v1/${path}`,
          headers: {
            // Vault can be told to refuse requests without it: it proves that no browser was tricked into this one.
            "x-vault-request": "true",
            ...(token === undefined ? {} : { "x-vault-token": token }),
            ...(namespace === undefined ? {} : { "x-vault-namespace": namespace }),
            ...(fields === undefined ? {} : { "content-type": "application/json" }),
            ...what.headers,
          },
          ...(fields === undefined ? {} : { body: Buffer.from(JSON.stringify(fields)) }),
        },
        limited,
      );
      const body = await readBody(response, BODY_LIMIT_BYTES, limited);
      const { status, headers } = response;
      const answer = { body: body.toString("utf8"), headers };
      if (status < 200 || status > 299) throw refusal(`${method} ${path}`, status, answer, isLogin);
      return answer;
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof EdgeSyncError) throw error;
      const what = limited.aborted ? `no answer within ${timeoutMs} ms` : "the request failed";
      // The cause is left out: it may hold the request.
      throw new EdgeSyncError("VAULT_UNAVAILABLE", `${method} ${path}: ${what}`);
    }
  };

  return {
    async login(signal) {
      const { path, fields, problemAt } = await proofOf(
        options.login,
        http,
        (text, { mount, role }) => secretIds.from(text, { mount, role, namespace }, send, signal),
      );
      const { body } = await send("POST", path, { fields, isLogin: true }, signal).catch(
        (error: unknown) => {
          throw explained(error, problemAt);
        },
      );
      const { auth } = parseAnswer(loginAnswer, body, path);
      return {
        token: auth.client_token,
        accessor: auth.accessor,
        grant: auth.lease_duration === 0 ? undefined : grantOf(auth),
      };
    },
    async lookupToken(token, signal) {
      await send("GET", "auth/token/lookup-self", { token }, signal);
    },
    async renewToken(token, incrementMs, signal) {
      const path = "auth/token/renew-self";
      const fields = { increment: inSeconds(incrementMs) };
      const { body } = await send("POST", path, { token, fields }, signal);
      return grantOf(parseAnswer(renewedToken, body, path).auth);
    },
    async revokeToken(token, signal) {
      await send("POST", "auth/token/revoke-self", { token, fields: {} }, signal);
    },
    read: (token, request, signal) => readSecret(send, token, request, signal),
    async renewLease(token, leaseId, incrementMs, signal) {
      const path = "sys/leases/renew";
      const fields = { lease_id: leaseId, increment: inSeconds(incrementMs) };
      const { body } = await send("POST", path, { token, fields }, signal);
      return grantOf(parseAnswer(leaseAnswer, body, path));
    },
    async revokeLease(token, leaseId, signal) {
      await send("POST", "sys/leases/revoke", { token, fields: { lease_id: leaseId } }, signal);
    },
  };
}

/** Vault does not say why it refuses a login. The clock of this node, which may be wrong, is not asked. */
function explained(error: unknown, problemAt: (time: number) => string | undefined): unknown {
  const at = answeredOf(error)?.at;
  const problem = at === undefined ? undefined : problemAt(at);
  if (!(error instanceof EdgeSyncError) || problem === undefined) return error;
  return new EdgeSyncError(error.code, `${error.message}: ${problem}`, { cause: error.cause });
}

const MEANINGS: Readonly<Record<number, ErrorCode>> = {
  400: "SECRET_INVALID",
  403: "VAULT_DENIED",
  404: "SECRET_INVALID",
  405: "SECRET_INVALID",
};

/** A token is for the address that was configured and allowed, and for no other that an answer names. */
const REDIRECTED =
  ", a redirect, which is not followed: vault-address must be that of the active node, or of what leads to it";

/** A firewall's page, or an ingress that has lost Vault: it says nothing of the token, the lease or the path. */
const NOT_VAULTS = ", but not in Vault's own form: something on the way to it has answered";

/**
 * Everything else may pass: 412 behind, 429 too many, 472 and 473 standby, 503 sealed, a redirect to another node; and whatever is not
 * said by Vault.
 */
function refusal(
  what: string,
  status: number,
  { body, headers }: Answer,
  isLogin: boolean,
): EdgeSyncError {
  const meant = (isLogin ? LOGIN_MEANINGS[status] : undefined) ?? MEANINGS[status];
  const isVaults = meant === undefined || isError(body);
  const code = (isVaults ? meant : undefined) ?? "VAULT_UNAVAILABLE";
  const retryAfterMs = retryAfterOf(headers);
  const at = Date.parse(headers.date ?? "");
  const cause: Answered = {
    status,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    ...(!isLogin || Number.isNaN(at) ? {} : { at }),
  };
  const why = status === 404 ? absence(body) : "";
  const meaning = status >= 300 && status < 400 ? REDIRECTED : isVaults ? why : NOT_VAULTS;
  return new EdgeSyncError(code, `${what}: Vault answers ${status}${meaning}`, { cause });
}

/** RFC 9110, 10.2.3: seconds, or a date, which is measured against the answer's own, as this node's clock may be wrong. */
function retryAfterOf(headers: IncomingHttpHeaders): number | undefined {
  const text = headers["retry-after"] ?? "";
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1_000;
  const ms = Date.parse(text) - Date.parse(headers.date ?? "");
  return Number.isNaN(ms) ? undefined : Math.max(0, ms);
}

function inSeconds(ms: number): number {
  return Math.max(1, Math.round(ms / 1_000));
}
