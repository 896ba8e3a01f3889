/**
 * A secret_id that is delivered wrapped: whoever carries it to the pod carries a token that gives it out once. Taken by somebody else on
 * the way, it is missing here, and is missed.
 */
import { createHash } from "node:crypto";
import * as v from "valibot";
import { EdgeSyncError } from "#core/errors.ts";
import { jsonObject } from "#core/json.ts";
import { parseAnswer } from "./reading.ts";
import type { Send } from "./reading.ts";

/** One that was unwrapped, for the logins to come: it cannot be had a second time. */
export interface KeptSecretId {
  /** SHA-256 of the wrapping token, in hexadecimal digits: another token means another secret_id. */
  readonly wrapping: string;
  readonly secretId: string;
}

/** Where the answer must come from that was wrapped. */
export interface Origin {
  readonly mount: string;
  /** Any role of the mount when absent. */
  readonly role?: string | undefined;
  readonly namespace: string | undefined;
}

export interface SecretIds {
  readonly kept: KeptSecretId | undefined;
  /**
   * The secret_id, of what a file says.
   *
   * @throws EdgeSyncError CONFIG_INVALID for JSON that is no wrapped answer, SECRET_INVALID when something else was wrapped,
   *   or it was taken before, VAULT_UNAVAILABLE
   */
  from(text: string, origin: Origin, send: Send, signal: AbortSignal): Promise<string>;
}

/** What Vault answers with a header X-Vault-Wrap-TTL, and `vault write -wrap-ttl=… -format=json` prints. */
const delivered = v.object({
  wrap_info: v.object({ token: v.pipe(v.string(), v.regex(/^[\x21-\x7e]{1,8192}$/)) }),
});
const looked = v.object({ data: v.object({ creation_path: v.string() }) });
const unwrapped = v.object({
  data: v.object({ secret_id: v.pipe(v.string(), v.minLength(1), v.maxLength(8_192)) }),
});

/** @param save keeps what is `kept` for the next process; resolves also when it could not */
export function openSecretIds(
  saved: KeptSecretId | undefined,
  save: () => Promise<void>,
): SecretIds {
  let kept = saved;
  return {
    get kept() {
      return kept;
    },
    async from(text, origin, send, signal) {
      const json = jsonObject(text);
      if (json === undefined) return text;
      const answer = v.safeParse(delivered, json);
      // Nothing of it is told: it may hold a secret_id that was meant to be wrapped.
      if (!answer.success)
        throw new EdgeSyncError(
          "CONFIG_INVALID",
          "secret_id is JSON, and not a wrapped answer of Vault: wrap_info.token is missing",
        );
      const { token } = answer.output.wrap_info;
      const wrapping = createHash("sha256").update(token).digest("hex");
      if (kept?.wrapping === wrapping) return kept.secretId;
      const secretId = await unwrap(token, origin, send, signal);
      kept = { wrapping, secretId };
      // Before the login: from here on, nobody has it but this process.
      await save();
      return secretId;
    },
  };
}

async function unwrap(
  token: string,
  origin: Origin,
  send: Send,
  signal: AbortSignal,
): Promise<string> {
  // Looked at first, and asked of Vault: what the file says of its origin was written by whoever wrote the file.
  const lookup = "sys/wrapping/lookup";
  const { body } = await send("POST", lookup, { fields: { token } }, signal).catch(taken);
  if (!isFrom(parseAnswer(looked, body, lookup).data.creation_path, origin))
    throw new EdgeSyncError(
      "SECRET_INVALID",
      `what was wrapped for secret_id is not of auth/${origin.mount}/role/${origin.role ?? "<role>"}/secret-id: it is left alone, and somebody may have put it there`,
    );
  const path = "sys/wrapping/unwrap";
  const answer = await send("POST", path, { token, fields: {} }, signal).catch(taken);
  return parseAnswer(unwrapped, answer.body, path).data.secret_id;
}

/**
 * Vault answers 400 to a wrapping token that has been used, or has ended, and 403 to one that it takes for a token like others. No denial:
 * nobody has refused the role, and a sealed set, with which a node starts whose memory has forgotten the secret_id, must not end by it.
 */
function taken(error: unknown): never {
  if (!(error instanceof EdgeSyncError)) throw error;
  if (error.code !== "SECRET_INVALID" && error.code !== "VAULT_DENIED") throw error;
  const { cause } = error;
  throw new EdgeSyncError(
    "SECRET_INVALID",
    `${error.message}: the wrapped secret_id was unwrapped before, or has ended. Unless this sidecar took it and lost it since, somebody else may have it: destroy it, and deliver another`,
    { cause },
  );
}

/** The namespace may be told in front of the path; nothing else may, such as the mount of an engine that stores what it is given. */
function isFrom(path: string, { mount, role, namespace }: Origin): boolean {
  const prefix = `${namespace?.replaceAll(/^\/+|\/+$/g, "") ?? ""}/`;
  const local = path.startsWith(prefix) ? path.slice(prefix.length) : path;
  const roles = `auth/${mount}/role/`;
  if (!local.startsWith(roles)) return false;
  const [name, what, ...more] = local.slice(roles.length).split("/");
  return (
    more.length === 0 &&
    (what === "secret-id" || what === "custom-secret-id") &&
    (role === undefined || role === name)
  );
}
