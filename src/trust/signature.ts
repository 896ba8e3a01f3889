/** Signatures of TUF metadata: specification 1.0.34, section 4.2. */
import { constants, createPublicKey, verify } from "node:crypto";
import type { KeyObject } from "node:crypto";
import { EdgeSyncError } from "../errors.ts";
import type { Envelope, Key, Keys, Role } from "./metadata.ts";

/**
 * Passes when at least `role.threshold` different keys of the delegator have signed. A key counts once, under however many ids it is
 * listed and however it is written (TAP 12).
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
    if (key === undefined || signature === undefined) continue;
    const signer = signerOf(key, file.canonical, signature);
    if (signer !== undefined) signers.add(signer);
    if (signers.size >= role.threshold) return;
  }
  throw new EdgeSyncError(
    "METADATA_UNTRUSTED",
    `${name} is signed by ${signers.size} of the keys that its delegator names, needed are ${role.threshold}`,
  );
}

/** What tells a key that has signed from others; `undefined` when it has not. */
function signerOf(key: Key, data: Buffer, signature: string): string | undefined {
  if (!/^([0-9a-f]{2})+$/i.test(signature)) return undefined;
  try {
    const scheme = schemeOf(key);
    if (scheme === undefined) return undefined;
    const { algorithm, publicKey, options } = scheme;
    if (!verify(algorithm, data, { key: publicKey, ...options }, Buffer.from(signature, "hex")))
      return undefined;
    return publicKey.export({ type: "spki", format: "der" }).toString("base64");
  } catch {
    // A key that cannot be decoded has signed nothing.
    return undefined;
  }
}

interface Scheme {
  readonly algorithm: string | null;
  readonly publicKey: KeyObject;
  readonly options?: { readonly padding: number };
}

const PEM = "-----BEGIN PUBLIC KEY-----";

const CURVES: Readonly<Record<string, { readonly curve: string; readonly algorithm: string }>> = {
  "ecdsa-sha2-nistp256": { curve: "prime256v1", algorithm: "sha256" },
  "ecdsa-sha2-nistp384": { curve: "secp384r1", algorithm: "sha384" },
};

/** Keys and schemes of the specification, section 4.2.1, with the spellings that are met in practice; `undefined` for any other. */
function schemeOf({ keytype, scheme, keyval }: Key): Scheme | undefined {
  const text = keyval.public ?? "";
  if (keytype === "ed25519" && scheme === "ed25519") {
    const publicKey = text.startsWith(PEM) ? createPublicKey(text) : ed25519Key(text);
    return publicKey.asymmetricKeyType === "ed25519" ? { algorithm: null, publicKey } : undefined;
  }
  const publicKey = createPublicKey(text);
  const hash = /^rsassa-pss-(sha(?:256|384|512))$/.exec(scheme)?.[1];
  if (keytype === "rsa" && hash !== undefined) {
    const options = { padding: constants.RSA_PKCS1_PSS_PADDING };
    return publicKey.asymmetricKeyType === "rsa"
      ? { algorithm: hash, publicKey, options }
      : undefined;
  }
  const known = CURVES[scheme];
  if (known === undefined || (keytype !== "ecdsa" && keytype !== scheme)) return undefined;
  if (publicKey.asymmetricKeyDetails?.namedCurve !== known.curve) return undefined;
  return { algorithm: known.algorithm, publicKey };
}

function ed25519Key(hex: string): KeyObject {
  const x = Buffer.from(hex, "hex").toString("base64url");
  return createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
}
