/**
 * How the agent proves to Vault who it is. What proves it is read anew for each login, because others replace it: the kubelet a token, a
 * controller a certificate, an operator a secret_id.
 */
import { X509Certificate } from "node:crypto";
import { EdgeSyncError } from "#core/errors.ts";
import { jsonObject } from "#core/json.ts";
import type { Settings } from "#core/settings.ts";
import { readProof } from "../disk/proof-file.ts";
import type { Http } from "../network/http.ts";

export type LoginMethod =
  /** A service-account token, or another JWT, for a role. */
  | {
      readonly kind: "kubernetes" | "jwt";
      readonly mount: string;
      readonly role: string;
      readonly file: string;
    }
  /** The certificate that is shown when connecting; without a role, Vault takes the one that it fits. */
  | { readonly kind: "cert"; readonly mount: string; readonly role: string | undefined }
  /** role_id and secret_id, files of a folder; a role may be without a secret_id. The role's name tells where a wrapped one must be from. */
  | {
      readonly kind: "approle";
      readonly mount: string;
      readonly role?: string | undefined;
      readonly folder: string;
    };

/** A client that may have a certificate to show. */
export interface VaultHttp extends Http {
  /**
   * Reads the certificate and its key again: what is connected from now on shows them. Not before the next login: a token that was had
   * with a certificate is renewed with that one.
   *
   * @throws EdgeSyncError CONFIG_INVALID when they cannot be used
   * @returns the certificate, PEM
   */
  identify?(): Promise<string>;
}

export interface Proof {
  readonly path: string;
  readonly fields: Readonly<Record<string, string>>;
  /** What must be wrong with it, when Vault refuses it at that time, milliseconds since the epoch; undefined when nothing is known. */
  readonly problemAt: (vaultTime: number) => string | undefined;
}

/** @throws EdgeSyncError CONFIG_INVALID when a setting is missing */
export function loginMethod(settings: Settings): LoginMethod {
  const { vaultAuth: kind, vaultMount, vaultRole, tokenFile, vaultApproleDir } = settings;
  const mount = vaultMount ?? kind;
  switch (kind) {
    case "kubernetes":
    case "jwt":
      return {
        kind,
        mount,
        role: required(vaultRole, "vault-role"),
        file: required(tokenFile, "token-file"),
      };
    case "approle":
      return {
        kind,
        mount,
        role: vaultRole,
        folder: required(vaultApproleDir, "vault-approle-dir"),
      };
    case "cert":
    default:
      required(settings.vaultTlsDir, "vault-tls-dir");
      return { kind, mount, role: vaultRole };
  }
}

export function required<T>(value: T | undefined, key: string): T {
  if (value === undefined)
    throw new EdgeSyncError("CONFIG_INVALID", `${key} is not set, and the secrets need it`);
  return value;
}

/**
 * @param secretIdOf takes a secret_id out of what its file says, which may be wrapped
 * @throws EdgeSyncError CONFIG_INVALID when what proves it cannot be read; what `secretIdOf` throws
 */
export async function proofOf(
  method: LoginMethod,
  http: VaultHttp,
  secretIdOf: (text: string, method: LoginMethod & { readonly kind: "approle" }) => Promise<string>,
): Promise<Proof> {
  const path = `auth/${method.mount}/login`;
  // Also where another method logs in: a listener of Vault may want a certificate of everybody.
  const shown = await http.identify?.();
  switch (method.kind) {
    case "kubernetes":
    case "jwt": {
      const { role, file } = method;
      const jwt = await readCredential(file);
      return { path, fields: { role, jwt }, problemAt: (time) => tokenProblem(jwt, file, time) };
    }
    case "approle": {
      const { folder } = method;
      const role_id = await readCredential(`${folder}/role_id`);
      const text = await readCredential(`${folder}/secret_id`, "");
      const fields = {
        role_id,
        ...(text === "" ? {} : { secret_id: await secretIdOf(text, method) }),
      };
      return { path, fields, problemAt: () => undefined };
    }
    case "cert":
    default: {
      const fields = method.role === undefined ? {} : { name: method.role };
      return { path, fields, problemAt: (time) => certificateProblem(shown, time) };
    }
  }
}

/** @param otherwise stands for a file that is not there, or empty */
async function readCredential(file: string, otherwise?: string): Promise<string> {
  let text: string;
  try {
    text = (await readProof(file)).trim();
  } catch (cause) {
    const absent = cause instanceof Error && "code" in cause && cause.code === "ENOENT";
    if (absent && otherwise !== undefined) return otherwise;
    throw new EdgeSyncError("CONFIG_INVALID", `${file}, for the login, cannot be read`, { cause });
  }
  if (text !== "") return text;
  // Vault would answer as to a wrong one.
  if (otherwise === undefined)
    throw new EdgeSyncError("CONFIG_INVALID", `${file}, for the login, is empty`);
  return otherwise;
}

/** Not verified, which is Vault's to do: only its times are looked at, and only to say more of a refusal. */
function tokenProblem(jwt: string, file: string, time: number): string | undefined {
  const claims = jsonObject(Buffer.from(jwt.split(".")[1] ?? "", "base64url").toString("utf8"));
  const [from, until] = [claims?.["nbf"] ?? claims?.["iat"], claims?.["exp"]];
  return periodProblem(
    `the token in ${file}`,
    typeof from === "number" ? from * 1_000 : undefined,
    typeof until === "number" ? until * 1_000 : undefined,
    time,
  );
}

function certificateProblem(pem: string | undefined, time: number): string | undefined {
  if (pem === undefined) return undefined;
  const { validFromDate, validToDate } = new X509Certificate(pem);
  return periodProblem("the certificate", validFromDate.getTime(), validToDate.getTime(), time);
}

function periodProblem(
  what: string,
  from: number | undefined,
  until: number | undefined,
  time: number,
): string | undefined {
  const seconds = (ms: number): string => `${Math.ceil(ms / 1_000)} s`;
  if (until !== undefined && until < time)
    return `${what} has ended ${seconds(time - until)} ago by Vault's clock`;
  if (from !== undefined && from > time)
    return `${what} begins in ${seconds(from - time)} by Vault's clock`;
  return undefined;
}
