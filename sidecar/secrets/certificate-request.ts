/**
 * A private key that is made here and never leaves, and the request (PKCS #10, RFC 2986) for its certificate. A file of its own in
 * the bundle: few pods need it, and it brings a library.
 */
import { X509Certificate, createPrivateKey, webcrypto } from "node:crypto";
import { isIP } from "node:net";
import { OctetString, Utf8String } from "asn1js";
import * as pkijs from "pkijs";
import { EdgeSyncError } from "#core/errors.ts";
import type { SecretData } from "#core/secret-file.ts";
import type { KeyType } from "#core/secret-request.ts";

export interface OwnKey {
  /** What is written to Vault. */
  readonly sent: { readonly csr: string };
  /**
   * Vault's answer with the key as `private_key`, as `issue` answers.
   *
   * @throws EdgeSyncError SECRET_INVALID when the certificate is not for this key
   */
  joined(data: SecretData): SecretData;
}

const ALGORITHMS = {
  "ec-p256": { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" },
  "ec-p384": { name: "ECDSA", namedCurve: "P-384", hash: "SHA-384" },
  "rsa-2048": rsa(2_048),
  "rsa-3072": rsa(3_072),
  "rsa-4096": rsa(4_096),
} as const satisfies Record<KeyType, object>;

function rsa(modulusLength: number) {
  const publicExponent = new Uint8Array([1, 0, 1]);
  return { name: "RSASSA-PKCS1-v1_5", modulusLength, publicExponent, hash: "SHA-256" } as const;
}

const COMMON_NAME = "2.5.4.3";
const SUBJECT_ALT_NAME = "2.5.29.17";
const EXTENSION_REQUEST = "1.2.840.113549.1.9.14";

/** Of RFC 5280, GeneralName. */
const EMAIL = 1;
const DNS = 2;
const URI = 6;
const IP = 7;

/**
 * A new key, made beside the main loop, and its request. Roles of Vault take the names from the request unless told otherwise, so
 * those among the parameters are in it.
 */
export async function makeOwnKey(
  type: KeyType,
  parameters: Readonly<Record<string, string>>,
): Promise<OwnKey> {
  const algorithm = ALGORITHMS[type];
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const request = new pkijs.CertificationRequest({ version: 0 });
  const name = parameters["common_name"];
  if (name !== undefined)
    request.subject.typesAndValues.push(
      new pkijs.AttributeTypeAndValue({
        type: COMMON_NAME,
        value: new Utf8String({ value: name }),
      }),
    );
  const names = alternativeNames(parameters);
  // Never absent, not even when it is empty (RFC 2986, 4.1): Vault takes no request without it.
  request.attributes = names.length > 0 ? [extensionRequest(names)] : [];
  await request.subjectPublicKeyInfo.importKey(keys.publicKey);
  await request.sign(keys.privateKey, algorithm.hash);
  const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", keys.privateKey));
  const key = createPrivateKey({ key: pkcs8, format: "der", type: "pkcs8" });
  return {
    sent: { csr: pem("CERTIFICATE REQUEST", Buffer.from(request.toSchema().toBER())) },
    joined(data) {
      const { certificate } = data;
      if (typeof certificate !== "string" || !isFor(certificate, key))
        throw new EdgeSyncError(
          "SECRET_INVALID",
          "Vault's answer has no certificate for the key that was made here",
        );
      const text = key.export({ format: "pem", type: "pkcs8" }).trimEnd();
      return { ...data, private_key: text, private_key_type: type.slice(0, type.indexOf("-")) };
    },
  };
}

function isFor(certificate: string, key: ReturnType<typeof createPrivateKey>): boolean {
  try {
    return new X509Certificate(certificate).checkPrivateKey(key);
  } catch {
    // No certificate at all: the caller says so.
    return false;
  }
}

function extensionRequest(names: readonly pkijs.GeneralName[]): pkijs.Attribute {
  const altName = new pkijs.GeneralNames({ names: [...names] });
  const extension = new pkijs.Extension({
    extnID: SUBJECT_ALT_NAME,
    critical: false,
    extnValue: altName.toSchema().toBER(false),
  });
  const extensions = new pkijs.Extensions({ extensions: [extension] });
  return new pkijs.Attribute({ type: EXTENSION_REQUEST, values: [extensions.toSchema()] });
}

/** As Vault reads the fields of the same names: lists with commas. @throws EdgeSyncError SECRET_INVALID for no IP address */
function alternativeNames(
  parameters: Readonly<Record<string, string>>,
): readonly pkijs.GeneralName[] {
  const listed = (field: string): readonly string[] =>
    (parameters[field] ?? "")
      .split(",")
      .map((text) => text.trim())
      .filter((text) => text !== "");
  return [
    ...listed("alt_names").map(
      (value) => new pkijs.GeneralName({ type: value.includes("@") ? EMAIL : DNS, value }),
    ),
    ...listed("ip_sans").map(
      (text) =>
        new pkijs.GeneralName({ type: IP, value: new OctetString({ valueHex: ipBytes(text) }) }),
    ),
    ...listed("uri_sans").map((value) => new pkijs.GeneralName({ type: URI, value })),
  ];
}

function ipBytes(text: string): Uint8Array<ArrayBuffer> {
  const kind = isIP(text);
  if (kind === 0 || text.includes("%"))
    throw new EdgeSyncError("SECRET_INVALID", "ip_sans holds what is no IP address");
  if (kind === 4) return Uint8Array.from(text.split(".").map(Number));
  // One form for all: without the dots of an IPv4 address at the end.
  const canonical = new URL(`http://[${text}]`).hostname.slice(1, -1);
  const [head = "", tail] = canonical.split("::");
  const words = (part: string): readonly string[] => (part === "" ? [] : part.split(":"));
  const [front, back] = [words(head), words(tail ?? "")];
  const zeros = Array.from({ length: 8 - front.length - back.length }, () => "0");
  const all = [...front, ...zeros, ...back].map((word) => Number.parseInt(word, 16));
  return Uint8Array.from(all.flatMap((word) => [word >> 8, word & 0xff]));
}

function pem(label: string, der: Buffer): string {
  const lines = der.toString("base64").match(/.{1,64}/g) ?? [];
  return [`-----BEGIN ${label}-----`, ...lines, `-----END ${label}-----`, ""].join("\n");
}
