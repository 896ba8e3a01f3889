/** Signatures of TUF metadata: specification 1.0.34, section 4.2. */
import { constants, createPublicKey, verify } from "node:crypto";
import type { KeyObject } from "node:crypto";
import { EdgeSyncError } from "../errors.ts";
import type { Envelope, Key, Keys, Role } from "./metadata.ts";

/**
 * Passes when at least `role.threshold` different keys of the delegator have signed. Keys are counted by their public value, so
 * that one key under two ids counts once (TAP 12).
 *
 * @throws EdgeSyncError METADATA_UNTRUSTED
 */
export function verifySignatures(
  file: Envelope<unknown>,
  delegator: Keys,
  role: Role,
  name: string,
): void {
  const signers = new Set<string>();
  for (const id of role.keyids) {
    const key = delegator.keys.get(id);
    const signature = file.signatures.get(id);
    if (key?.keyval.public === undefined || signature === undefined) continue;
    if (hasSigned(key, file.canonical, signature)) signers.add(key.keyval.public);
    if (signers.size >= role.threshold) return;
  }
  throw new EdgeSyncError(
    "METADATA_UNTRUSTED",
    `${name} is signed by ${signers.size} of the keys that its delegator names, needed are ${role.threshold}`,
  );
}

function hasSigned(key: Key, data: Buffer, signature: string): boolean {
  if (!/^([0-9a-f]{2})+$/i.test(signature)) return false;
  try {
    return verifyWith(key, data, Buffer.from(signature, "hex"));
  } catch {
    // A key that cannot be decoded, or of a kind that is not known here, has signed nothing.
    return false;
  }
}

const PEM = "-----BEGIN PUBLIC KEY-----";

/** Keys and schemes of the specification, section 4.2.1, with the spellings that are met in practice. */
function verifyWith({ keytype, scheme, keyval }: Key, data: Buffer, signature: Buffer): boolean {
  const text = keyval.public ?? "";
  if (keytype === "ed25519" && scheme === "ed25519") {
    const key = text.startsWith(PEM) ? createPublicKey(text) : ed25519Key(text);
    return key.asymmetricKeyType === "ed25519" && verify(null, data, key, signature);
  }
  const key = createPublicKey(text);
  if (keytype === "rsa" && /^rsassa-pss-sha(256|384|512)$/.test(scheme)) {
    const rsa = { key, padding: constants.RSA_PKCS1_PSS_PADDING };
    return (
      key.asymmetricKeyType === "rsa" &&
      verify(scheme.slice("rsassa-pss-".length), data, rsa, signature)
    );
  }
  const curve = { "ecdsa-sha2-nistp256": "prime256v1", "ecdsa-sha2-nistp384": "secp384r1" }[scheme];
  if (curve === undefined || (keytype !== "ecdsa" && keytype !== scheme)) return false;
  if (key.asymmetricKeyDetails?.namedCurve !== curve) return false;
  return verify(curve === "prime256v1" ? "sha256" : "sha384", data, key, signature);
}

function ed25519Key(hex: string): KeyObject {
  const x = Buffer.from(hex, "hex").toString("base64url");
  return createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
}
