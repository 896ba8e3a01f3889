/** What a sealed file is: a JWE (RFC 7516) of a secret's fields as JSON, to the public keys of sites. Compact for one, JSON for more. */
import { createHash } from "node:crypto";
import type { KeyObject } from "node:crypto";
import { EdgeSyncError } from "./errors.ts";

/** Bytes, of the file as of what is in it. */
export const SEALED_LIMIT = 1 << 20;

/** Of the content; authenticated. */
export const SEALED_ENCRYPTION = "A256GCM";

/** How the content's key is sealed, by the type of the site's key. */
const ALGORITHMS: Readonly<Record<string, string>> = {
  ec: "ECDH-ES+A256KW",
  x25519: "ECDH-ES+A256KW",
  rsa: "RSA-OAEP-256",
};

export const SEALED_ALGORITHMS: readonly string[] = [...new Set(Object.values(ALGORITHMS))];

/** Bits: below that, RSA is no protection. */
const LEAST_RSA = 2_048;

/** @throws EdgeSyncError KEY_INVALID for a key of a type that nothing is sealed to */
export function sealingAlgorithm(key: KeyObject, where: string): string {
  const algorithm = ALGORITHMS[key.asymmetricKeyType ?? ""];
  const { modulusLength = LEAST_RSA } = key.asymmetricKeyDetails ?? {};
  if (algorithm === undefined || modulusLength < LEAST_RSA)
    throw new EdgeSyncError(
      "KEY_INVALID",
      `${where} is a key of type ${key.asymmetricKeyType}; expected EC, X25519, or RSA of at least ${LEAST_RSA} bits`,
    );
  return algorithm;
}

/** The name of a public key, by which a site finds what is sealed to it (RFC 7638). */
export function keyThumbprint(publicKey: KeyObject): string {
  const { crv, e, kty, n, x, y } = publicKey.export({ format: "jwk" });
  // Only the members that are required, in the order of their names; what is absent is left out.
  const text = JSON.stringify({ crv, e, kty, n, x, y });
  return createHash("sha256").update(text).digest("base64url");
}
