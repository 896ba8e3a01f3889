/** Sealing of secrets to the keys of sites, for files of a release. */
import { createPublicKey, generateKeyPairSync } from "node:crypto";
import type { KeyObject } from "node:crypto";
import { readFile } from "node:fs/promises";
import { EdgeSyncError } from "#core/errors.ts";
import { jsonObject } from "#core/json.ts";
import {
  SEALED_ENCRYPTION,
  SEALED_LIMIT,
  keyThumbprint,
  sealingAlgorithm,
} from "#core/sealed-file.ts";

export interface SiteKey {
  /** Its name in what is sealed to it. */
  readonly id: string;
  readonly key: KeyObject;
  readonly algorithm: string;
}

/**
 * A site's public key, a JWK or PEM; a file of the private key will do, and gives away no more.
 *
 * @throws EdgeSyncError KEY_INVALID
 */
export async function readSiteKey(path: string): Promise<SiteKey> {
  const text = await readFile(path, "utf8").catch((cause: unknown) => {
    throw new EdgeSyncError("KEY_INVALID", `the key ${path} cannot be read`, { cause });
  });
  let key: KeyObject;
  try {
    const jwk = jsonObject(text);
    key = jwk === undefined ? createPublicKey(text) : createPublicKey({ key: jwk, format: "jwk" });
  } catch {
    // No cause: it may quote a private key.
    throw new EdgeSyncError("KEY_INVALID", `${path} is not a public key; expected a JWK or PEM`);
  }
  return { id: keyThumbprint(key), key, algorithm: sealingAlgorithm(key, path) };
}

/**
 * @param fields JSON: an object whose members are the secret's fields
 * @throws EdgeSyncError SECRET_INVALID, which quotes nothing of them
 */
export async function sealFields(fields: Uint8Array, keys: readonly SiteKey[]): Promise<string> {
  if (jsonObject(Buffer.from(fields).toString("utf8")) === undefined)
    throw new EdgeSyncError("SECRET_INVALID", "the secret is not a JSON object of its fields");
  const { CompactEncrypt, GeneralEncrypt } = await import("jose");
  const [first, ...others] = keys;
  if (first === undefined) throw new EdgeSyncError("USAGE", "at least one key is needed");
  const enc = SEALED_ENCRYPTION;
  let text: string;
  if (others.length === 0) {
    const header = { alg: first.algorithm, enc, kid: first.id };
    text = await new CompactEncrypt(fields).setProtectedHeader(header).encrypt(first.key);
  } else {
    const jwe = new GeneralEncrypt(fields).setProtectedHeader({ enc });
    for (const { id, key, algorithm } of keys)
      jwe.addRecipient(key).setUnprotectedHeader({ alg: algorithm, kid: id });
    text = JSON.stringify(await jwe.encrypt());
  }
  if (text.length > SEALED_LIMIT)
    throw new EdgeSyncError(
      "SECRET_INVALID",
      `the sealed file would have ${text.length} bytes; a site takes ${SEALED_LIMIT}`,
    );
  return `${text}\n`;
}

/** A key pair for a site, as JWKs. */
export function newSiteKey(): { readonly id: string; readonly own: string; readonly open: string } {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const id = keyThumbprint(publicKey);
  const textOf = (key: KeyObject): string =>
    `${JSON.stringify({ ...key.export({ format: "jwk" }), kid: id, use: "enc" }, undefined, 2)}\n`;
  return { id, own: textOf(privateKey), open: textOf(publicKey) };
}
