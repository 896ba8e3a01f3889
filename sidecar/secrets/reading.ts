/** One secret read from Vault, or written where the path is one that issues: whatever its engine, what it gives and when it ends. */
import type { IncomingHttpHeaders } from "node:http";
import * as v from "valibot";
import { EdgeSyncError } from "#core/errors.ts";
import type { Grant } from "#core/lease.ts";
import { isSecretData, parseExactJson } from "#core/secret-file.ts";
import type { SecretData } from "#core/secret-file.ts";
import type { VaultRequest } from "#core/secret-request.ts";
import type { OwnKey } from "./certificate-request.ts";

export interface Secret {
  /** As Vault answers it: with the version of KV version 2 around it, see `fieldsOf`. */
  readonly data: SecretData;
  readonly leaseId: string | undefined;
  readonly grant: Grant | undefined;
  /** Milliseconds until there will be other data, where Vault says so. */
  readonly readAgainMs: number | undefined;
}

export interface Answer {
  readonly body: string;
  readonly headers: IncomingHttpHeaders;
}

/** One request of the client. @throws EdgeSyncError for a status that is no success */
export type Send = (
  method: "GET" | "POST",
  path: string,
  what: {
    readonly token?: string;
    readonly fields?: object;
    readonly headers?: Readonly<Record<string, string>>;
  },
  signal: AbortSignal,
) => Promise<Answer>;

/** Seconds. */
export const seconds = v.pipe(v.number(), v.finite(), v.minValue(0), v.maxValue(4_000_000_000));

const fields = v.custom<SecretData>(isSecretData);

const secretAnswer = v.object({
  lease_id: v.optional(v.string(), ""),
  lease_duration: v.optional(seconds, 0),
  renewable: v.optional(v.boolean(), false),
  data: v.nullish(fields),
});

const wrappedAnswer = v.object({
  wrap_info: v.object({
    token: v.pipe(v.string(), v.regex(/^[\x21-\x7e]{1,8192}$/)),
    creation_path: v.string(),
  }),
});

/** Seconds since the epoch: the end of the year 9999, which is how a certificate says that it has no end (RFC 5280, 4.1.2.5). */
const LAST_END = 253_402_300_799;
/** A certificate, from a PKI engine: it has an end and no lease. */
const certificate = v.object({
  certificate: v.string(),
  expiration: v.pipe(v.number(), v.minValue(0), v.maxValue(LAST_END)),
});
/** A secret_id of AppRole, which has an end unless that is 0, and no lease either. */
const secretId = v.object({
  secret_id: v.string(),
  secret_id_accessor: v.string(),
  secret_id_ttl: seconds,
});
/** The password of a static role, which is the same for everybody until it is rotated, by a period or by a schedule. */
const rotated = v.object({ ttl: seconds, last_vault_rotation: v.string() });
const rotatedByPeriod = v.object({ ttl: seconds, rotation_period: seconds });

/** @throws EdgeSyncError SECRET_INVALID when there is nothing at the path, VAULT_DENIED, VAULT_UNAVAILABLE */
export async function readSecret(
  send: Send,
  token: string,
  request: VaultRequest,
  signal: AbortSignal,
): Promise<Secret> {
  const { path, wrapMs, key } = request;
  const made = key === undefined ? undefined : await makeKey(request);
  const written = made === undefined ? request.parameters : { ...request.parameters, ...made.sent };
  const wrap =
    wrapMs === undefined
      ? {}
      : { headers: { "x-vault-wrap-ttl": `${Math.ceil(wrapMs / 1_000)}s` } };
  // A POST, not a PUT: it may issue something, so nobody on the way may take it for repeatable.
  const first =
    Object.keys(written).length > 0
      ? await send("POST", path, { token, fields: written, ...wrap }, signal)
      : await send("GET", versioned(request), { token, ...wrap }, signal);
  const { body, headers } =
    wrapMs === undefined ? first : await unwrapped(send, first, path, signal);
  if (body === "") throw nothingAt(path);
  const answer = parseAnswer(secretAnswer, body, path);
  if (answer.data === null || answer.data === undefined) throw nothingAt(path);
  const data = made === undefined ? answer.data : made.joined(answer.data);
  const readAgainMs = isEndless(data) ? Number.POSITIVE_INFINITY : rotationOf(data);
  return answer.lease_id === ""
    ? { data, leaseId: undefined, grant: validityOf(data, headers), readAgainMs }
    : { data, leaseId: answer.lease_id, grant: grantOf(answer), readAgainMs };
}

function versioned({ path, version }: VaultRequest): string {
  return version === undefined ? path : `${path}?version=${version}`;
}

/** Few pods have one, so what makes it is loaded for them alone. */
async function makeKey(request: VaultRequest): Promise<OwnKey | undefined> {
  const { makeOwnKey } = await import("./certificate-request.ts");
  return request.key === undefined ? undefined : makeOwnKey(request.key, request.parameters);
}

/** What was wrapped can be taken once: where somebody else has been before, Vault says so, and the secret must not be used. */
async function unwrapped(
  send: Send,
  { body }: Answer,
  path: string,
  signal: AbortSignal,
): Promise<Answer> {
  const { wrap_info: info } = parseAnswer(wrappedAnswer, body, path);
  // In a namespace the path may be told with it in front.
  if (info.creation_path !== path && !info.creation_path.endsWith(`/${path}`))
    throw new EdgeSyncError(
      "SECRET_INVALID",
      `${path}: the answer was wrapped for another path, so it is not the one that was asked for`,
    );
  return send("POST", "sys/wrapping/unwrap", { token: info.token, fields: {} }, signal);
}

/** @throws EdgeSyncError VAULT_UNAVAILABLE when it is not of that form; nothing of the body is told */
export function parseAnswer<T>(schema: v.GenericSchema<unknown, T>, body: string, path: string): T {
  let json: unknown;
  try {
    json = parseExactJson(body);
  } catch {
    // Left out on purpose: the parser's message quotes the body.
    throw strange(path, "expected JSON");
  }
  const result = v.safeParse(schema, json);
  if (result.success && isSecretData(json)) return result.output;
  const [fault] = result.issues ?? [];
  const field = fault === undefined ? null : v.getDotPath(fault);
  throw strange(
    path,
    field === null ? "expected an object" : `${field} is missing or of another form than expected`,
  );
}

/** A proxy's page, or half an answer: it may be right the next time. */
function strange(path: string, why: string): EdgeSyncError {
  return new EdgeSyncError(
    "VAULT_UNAVAILABLE",
    `${path}: the answer is not one of Vault's: ${why}`,
  );
}

function nothingAt(path: string): EdgeSyncError {
  return new EdgeSyncError("SECRET_INVALID", `${path}: Vault answers without data`);
}

/** How Vault tells of an error; where there is something to tell beside it, as an answer like others. */
const ownError = v.union([
  v.object({ errors: v.array(v.unknown()) }),
  v.object({ request_id: v.string() }),
]);

/** Whether Vault itself has written the body of an error. */
export function isError(body: string): boolean {
  try {
    return v.is(ownError, JSON.parse(body));
  } catch {
    // No JSON, so not of Vault.
    return false;
  }
}

/** A version of KV version 2 that is gone: Vault answers 404, and its metadata. */
const goneVersion = v.object({
  data: v.object({
    data: v.null(),
    metadata: v.object({
      version: v.pipe(v.number(), v.safeInteger()),
      destroyed: v.boolean(),
    }),
  }),
});
const warned = v.object({ warnings: v.pipe(v.array(v.string()), v.minLength(1)) });

/** Why there is nothing at a path, in our own words; empty when Vault does not say. */
export function absence(body: string): string {
  try {
    const json: unknown = JSON.parse(body);
    if (v.is(goneVersion, json)) {
      const { version, destroyed } = json.data.metadata;
      return `: version ${version} is ${destroyed ? "destroyed" : "deleted"}`;
    }
    // What it warns of is the path of KV version 1 at an engine of version 2.
    return v.is(warned, json) ? ": in KV version 2 the path has data/ behind the mount" : "";
  } catch {
    // No JSON, so not of Vault; the status says enough.
    return "";
  }
}

export function grantOf(answer: { lease_duration: number; renewable: boolean }): Grant {
  return { durationMs: answer.lease_duration * 1_000, renewable: answer.renewable };
}

/** How long a certificate, or a secret_id, is good. A certificate's end is measured against the time of Vault, and not of this node, whose clock may be wrong. */
function validityOf(data: SecretData, headers: IncomingHttpHeaders): Grant | undefined {
  if (v.is(secretId, data))
    return isEndless(data)
      ? undefined
      : { durationMs: data.secret_id_ttl * 1_000, renewable: false };
  const serverTime = Date.parse(headers.date ?? "");
  if (!v.is(certificate, data) || Number.isNaN(serverTime)) return undefined;
  const durationMs = data.expiration * 1_000 - serverTime;
  return durationMs > 0 ? { durationMs, renewable: false } : undefined;
}

/** What was made for whoever asked, and never ends: to read it again is to have another made, and the one before stays in Vault. */
export function isEndless(data: SecretData): boolean {
  return v.is(secretId, data) && data.secret_id_ttl === 0;
}

/** Milliseconds after a static role's rotation at which its new password is read. */
const ROTATION_MARGIN_MS = 1_000;
/** Milliseconds: a rotation that is due, and does not come, is not asked for in a hurry. */
const LEAST_ROTATION_MS = 5_000;

function rotationOf(data: SecretData): number | undefined {
  if (!v.is(rotated, data) && !v.is(rotatedByPeriod, data)) return undefined;
  return data.ttl === 0 ? LEAST_ROTATION_MS : data.ttl * 1_000 + ROTATION_MARGIN_MS;
}
