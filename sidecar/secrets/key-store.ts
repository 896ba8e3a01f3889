/**
 * A private key, its certificate and their chain as a key store (PKCS #12, RFC 7292), as Java, .NET and Windows read it. Encrypted and
 * sealed with what all of them know and none calls weak: PBES2 (RFC 8018) with HMAC-SHA-256 and AES-256, and HMAC-SHA-256 over all.
 * A file of its own in the bundle: few pods need it, and it brings a library.
 */
import {
  X509Certificate,
  createCipheriv,
  createHash,
  createHmac,
  createPrivateKey,
  pbkdf2Sync,
} from "node:crypto";
import type { KeyObject } from "node:crypto";
import {
  BmpString,
  Constructed,
  Integer,
  Null,
  ObjectIdentifier,
  OctetString,
  Primitive,
  Sequence,
  Set as SetOf,
} from "asn1js";
import type { AsnType } from "asn1js";
import { EdgeSyncError } from "#core/errors.ts";
import { pemParts, presentField } from "#core/secret-file.ts";
import type { SecretData } from "#core/secret-file.ts";
import type { KeyStorePassword } from "#core/secret-format.ts";

/** RFC 7292, 3 and 4; RFC 2985 for the attributes; RFC 8018, appendix A; NIST's for the algorithms. */
const OID = {
  data: "1.2.840.113549.1.7.1",
  encryptedData: "1.2.840.113549.1.7.6",
  shroudedKeyBag: "1.2.840.113549.1.12.10.1.2",
  certBag: "1.2.840.113549.1.12.10.1.3",
  x509Certificate: "1.2.840.113549.1.9.22.1",
  friendlyName: "1.2.840.113549.1.9.20",
  localKeyId: "1.2.840.113549.1.9.21",
  pbes2: "1.2.840.113549.1.5.13",
  pbkdf2: "1.2.840.113549.1.5.12",
  hmacSha256: "1.2.840.113549.2.9",
  aes256Cbc: "2.16.840.1.101.3.4.1.42",
  sha256: "2.16.840.1.101.3.4.2.1",
} as const;

/**
 * As OpenSSL has it. More would cost small machines time at each rotation and win nothing: the file is in memory, beside those that
 * could read its key in plain text, and lasts as long as the password.
 */
const ITERATIONS = 2_048;
const SALT_BYTES = 16;

/** Characters. */
const MAX_PASSWORD = 1_024;

const CERTIFICATES = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

interface Contents {
  readonly key: KeyObject;
  /** The key's own first; each once. */
  readonly chain: readonly X509Certificate[];
}

/**
 * Equal arguments give equal bytes: salts and initialization vectors come from the key itself, so that a secret that is read again is
 * no rotation.
 *
 * @param alias of the entry
 * @throws EdgeSyncError SECRET_INVALID, which names the field and tells nothing of what is in it
 */
export function keyStore(
  data: SecretData,
  alias: string,
  wanted: KeyStorePassword,
): Uint8Array<ArrayBuffer> {
  const { key, chain } = contentsOf(data);
  const password = passwordOf(data, wanted);
  const plainKey = key.export({ format: "der", type: "pkcs8" });
  const fresh = derivedFrom(plainKey, alias, chain);
  const [leaf] = chain;
  const attributes = attributesOf(alias, leaf);
  const bags = chain.map((certificate) =>
    sequence(
      oid(OID.certBag),
      tagged(0, sequence(oid(OID.x509Certificate), tagged(0, octets(certificate.raw)))),
      ...(certificate === leaf ? [attributes] : []),
    ),
  );
  const sealedKey = encrypted(plainKey, password, fresh, "key");
  const sealedChain = encrypted(der(sequence(...bags)), password, fresh, "certificates");
  const keyBag = sequence(
    oid(OID.shroudedKeyBag),
    tagged(0, sequence(sealedKey.algorithm, octets(sealedKey.bytes))),
    attributes,
  );
  const certificates = sequence(
    integer(0),
    sequence(oid(OID.data), sealedChain.algorithm, implicitOctets(0, sealedChain.bytes)),
  );
  const safe = der(
    sequence(
      sequence(oid(OID.encryptedData), tagged(0, certificates)),
      sequence(oid(OID.data), tagged(0, octets(der(sequence(keyBag))))),
    ),
  );
  const salt = fresh("mac salt", SALT_BYTES);
  const mac = createHmac("sha256", macKey(password, salt)).update(safe).digest();
  return der(
    sequence(
      integer(3),
      sequence(oid(OID.data), tagged(0, octets(safe))),
      sequence(
        sequence(sequence(oid(OID.sha256), new Null()), octets(mac)),
        octets(salt),
        integer(ITERATIONS),
      ),
    ),
  );
}

/** Of the fields that the form `pem` takes; the key's own certificate is told by the key. */
function contentsOf(data: SecretData): Contents {
  const [keyText = "", ...texts] = pemParts(data);
  const key = readOr(() => createPrivateKey(keyText), "private key without a passphrase");
  const all = texts
    .flatMap((text) => text.match(CERTIFICATES) ?? [])
    .map((text) => readOr(() => new X509Certificate(text), "certificate"));
  const unique = [...new Map(all.map((one) => [one.fingerprint256, one])).values()];
  const leaf = unique.find((certificate) => certificate.checkPrivateKey(key));
  if (leaf === undefined)
    throw new EdgeSyncError("SECRET_INVALID", "the secret has no certificate for its private key");
  return { key, chain: [leaf, ...unique.filter((certificate) => certificate !== leaf)] };
}

function readOr<T>(read: () => T, expected: string): T {
  try {
    return read();
  } catch {
    // No cause: it may quote the key.
    throw new EdgeSyncError("SECRET_INVALID", `the secret holds PEM that is no ${expected}`);
  }
}

function passwordOf(data: SecretData, wanted: KeyStorePassword): string {
  if (wanted === "changeit") return wanted;
  if (wanted === "none") return "";
  const { field } = wanted;
  const value = presentField(data, field);
  // A lone half of a surrogate has no UTF-8; a NUL ends the password for some readers.
  const isGood =
    typeof value === "string" &&
    value.length <= MAX_PASSWORD &&
    !value.includes("\0") &&
    value.isWellFormed();
  if (isGood) return value;
  throw new EdgeSyncError(
    "SECRET_INVALID",
    `the field ${JSON.stringify(field)} is no password: expected a text of at most ${MAX_PASSWORD} characters`,
  );
}

/** Bytes that nobody can foretell who does not have the key: others for other contents, and for each purpose. */
type Fresh = (purpose: string, size: number) => Buffer;

function derivedFrom(key: Buffer, alias: string, chain: readonly X509Certificate[]): Fresh {
  const contents = createHash("sha256").update(`${alias}\n`);
  for (const { fingerprint256 } of chain) contents.update(`${fingerprint256}\n`);
  const digest = contents.digest();
  return (purpose, size) =>
    createHmac("sha256", key)
      .update("edgesync key store\0")
      .update(digest)
      .update(purpose)
      .digest()
      .subarray(0, size);
}

/** By which readers find the certificate of a key, and the key by its name. */
function attributesOf(alias: string, leaf: X509Certificate | undefined): SetOf {
  const id = createHash("sha256")
    .update(leaf?.raw ?? "")
    .digest();
  const attribute = (type: string, value: AsnType): Sequence =>
    sequence(oid(type), new SetOf({ value: [value] }));
  const all = [
    attribute(OID.friendlyName, new BmpString({ value: alias })),
    attribute(OID.localKeyId, octets(id)),
  ];
  // DER has the elements of a set in order.
  return new SetOf({ value: all.toSorted((a, b) => Buffer.compare(der(a), der(b))) });
}

interface Encrypted {
  readonly algorithm: Sequence;
  readonly bytes: Buffer;
}

/** PBES2, RFC 8018, 6.2. */
function encrypted(plain: Uint8Array, password: string, fresh: Fresh, purpose: string): Encrypted {
  const salt = fresh(`${purpose} salt`, SALT_BYTES);
  const iv = fresh(`${purpose} iv`, 16);
  const cipher = createCipheriv(
    "aes-256-cbc",
    pbkdf2Sync(password, salt, ITERATIONS, 32, "sha256"),
    iv,
  );
  const kdf = sequence(
    oid(OID.pbkdf2),
    sequence(octets(salt), integer(ITERATIONS), sequence(oid(OID.hmacSha256), new Null())),
  );
  return {
    algorithm: sequence(oid(OID.pbes2), sequence(kdf, sequence(oid(OID.aes256Cbc), octets(iv)))),
    bytes: Buffer.concat([cipher.update(plain), cipher.final()]),
  };
}

/** RFC 7292, appendix B.2, with SHA-256: its first block is the whole key, so that what it does for further ones is not needed. */
function macKey(password: string, salt: Uint8Array): Buffer {
  const block = 64;
  // Appendix B.1: UTF-16, the higher byte first, with a NUL at the end.
  const text = Buffer.from(`${password}\0`, "utf16le").swap16();
  const fill = (bytes: Uint8Array): Buffer =>
    Buffer.alloc(Math.ceil(bytes.length / block) * block, bytes);
  const purpose = Buffer.alloc(block, 3);
  let digest = createHash("sha256").update(purpose).update(fill(salt)).update(fill(text)).digest();
  for (let turn = 1; turn < ITERATIONS; turn++)
    digest = createHash("sha256").update(digest).digest();
  return digest;
}

function der(value: AsnType): Buffer<ArrayBuffer> {
  return Buffer.from(value.toBER());
}

function sequence(...value: AsnType[]): Sequence {
  return new Sequence({ value });
}

function oid(value: string): ObjectIdentifier {
  return new ObjectIdentifier({ value });
}

function integer(value: number): Integer {
  return new Integer({ value });
}

function octets(bytes: Uint8Array): OctetString {
  return new OctetString({ valueHex: Uint8Array.from(bytes) });
}

const CONTEXT = 3;

function tagged(tagNumber: number, value: AsnType): Constructed {
  return new Constructed({ idBlock: { tagClass: CONTEXT, tagNumber }, value: [value] });
}

function implicitOctets(tagNumber: number, bytes: Uint8Array): Primitive {
  const idBlock = { tagClass: CONTEXT, tagNumber };
  return new Primitive({ idBlock, valueHex: Uint8Array.from(bytes) });
}
