/** Public keys as metadata lists them. */
import { createPublicKey, hash } from "node:crypto";
import type { KeyObject } from "node:crypto";
import { EdgeSyncError } from "#core/errors.ts";
import { canonicalForm } from "#core/trust/canonical.ts";

export const KEY_TYPES = ["ed25519", "ecdsa"] as const;
export type KeyType = (typeof KEY_TYPES)[number];

export interface Key {
  readonly keytype: KeyType;
  readonly scheme: "ed25519" | "ecdsa-sha2-nistp256";
  /** Hexadecimal for Ed25519, PEM for ECDSA. */
  readonly keyval: { readonly public: string };
  /** What people call it, such as whose it is. Clients ignore it. */
  readonly "x-edgesync-name"?: string;
}

/** A key of which the private part is elsewhere. */
export interface PublicKey {
  readonly id: string;
  readonly name: string;
  readonly key: Key;
}

/**
 * @param key private or public
 * @param where it is, for the message
 * @throws EdgeSyncError KEY_INVALID for a kind of key that edgesync does not use
 */
export function publicKey(key: KeyObject, name: string, where: string): PublicKey {
  const open = key.type === "public" ? key : createPublicKey(key);
  const value = valueOf(open);
  if (value === undefined)
    throw new EdgeSyncError(
      "KEY_INVALID",
      `${where} is a key of another kind; expected Ed25519 or ECDSA P-256`,
    );
  // Specification 1.0.34, 4.2: the digest of the canonical form, as all implementations make it: without what is not specified.
  const id = hash("sha256", canonicalForm(value, 0));
  return { id, name, key: { ...value, "x-edgesync-name": name } };
}

function valueOf(key: KeyObject): Key | undefined {
  if (key.asymmetricKeyType === "ed25519") {
    const { x = "" } = key.export({ format: "jwk" });
    const hex = Buffer.from(x, "base64url").toString("hex");
    return { keytype: "ed25519", scheme: "ed25519", keyval: { public: hex } };
  }
  if (key.asymmetricKeyType !== "ec" || key.asymmetricKeyDetails?.namedCurve !== "prime256v1")
    return undefined;
  const pem = key.export({ type: "spki", format: "pem" });
  return { keytype: "ecdsa", scheme: "ecdsa-sha2-nistp256", keyval: { public: pem } };
}

/** The form in which a key of metadata can be used. */
export function keyObject({ keytype, keyval }: Key): KeyObject {
  if (keytype === "ecdsa") return createPublicKey(keyval.public);
  const x = Buffer.from(keyval.public, "hex").toString("base64url");
  return createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
}

/** What messages call a key: its name, if it has one, and the beginning of its id. */
export function labelOf(id: string, key: Key | undefined): string {
  const name = nameOf(key);
  const short = printable(id).slice(0, 12);
  return name === undefined ? short : `${name} (${short})`;
}

export function nameOf(key: Key | undefined): string | undefined {
  // From a file that others may have written.
  const name: unknown = key?.["x-edgesync-name"];
  return typeof name === "string" ? printable(name) : undefined;
}

/** On its way to a terminal. */
function printable(text: string): string {
  return text.replaceAll(/[^\w.@+-]/g, "?").slice(0, 64);
}
