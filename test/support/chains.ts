/** Certificates with everything that can be wrong with them: RSA and EC, each field as a test wants it. */
import { createPublicKey, generateKeyPairSync, randomBytes, sign } from "node:crypto";
import type { KeyObject } from "node:crypto";
import * as asn1 from "asn1js";
import * as pkijs from "pkijs";

export type KeyKind = "rsa" | "ec";

export interface Spec {
  readonly name: string;
  /** Milliseconds from now. */
  readonly fromMs: number;
  readonly untilMs: number;
  /** Without one there are no basic constraints. */
  readonly ca?: boolean | undefined;
  readonly pathLength?: number | undefined;
  /** First byte of the bits. */
  readonly usage?: number | undefined;
  readonly purposes?: readonly string[] | undefined;
  /** Names of hosts, and addresses. */
  readonly names?: readonly string[] | undefined;
  readonly permitted?: readonly string[];
  readonly excluded?: readonly string[];
  /** OIDs of extensions that nobody knows, critical. */
  readonly unknown?: readonly string[];
  /** OID to be there twice. */
  readonly twice?: string;
  /** 0 for version 1, which has no extensions, 2 for version 3. */
  readonly version?: number;
  readonly hash?: "sha1" | "sha256";
  /** The bytes of the signature are not those of the issuer. */
  readonly tampered?: boolean;
  readonly key?: KeyObject;
  /** The name of the issuer, where it is not the issuer's. */
  readonly issuerName?: string;
}

export interface Issued {
  readonly spec: Spec;
  readonly key: KeyObject;
  readonly der: Buffer;
  readonly cert: string;
  readonly keyPem: string;
}

export const SERVER_AUTH = "1.3.6.1.5.5.7.3.1";
export const CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";
export const KEY_CERT_SIGN = 0x06;
export const DIGITAL_SIGNATURE = 0xa0;

export function newKey(kind: KeyKind, strength: "good" | "weak" = "good"): KeyObject {
  if (kind === "ec") {
    const namedCurve = strength === "good" ? "prime256v1" : "secp224r1";
    return generateKeyPairSync("ec", { namedCurve }).privateKey;
  }
  const modulusLength = strength === "good" ? 2_048 : 1_024;
  return generateKeyPairSync("rsa", { modulusLength }).privateKey;
}

/** Signed by `issuer`, or by itself. */
export function issue(spec: Spec & { readonly key: KeyObject }, issuer?: Issued): Issued {
  const { key } = spec;
  const signer = issuer?.key ?? key;
  const certificate = new pkijs.Certificate();
  certificate.version = spec.version ?? 2;
  certificate.serialNumber = new asn1.Integer({ valueHex: bytesOf(positive(randomBytes(12))) });
  certificate.subject = nameOf(spec.name);
  certificate.issuer = nameOf(spec.issuerName ?? issuer?.spec.name ?? spec.name);
  certificate.notBefore = timeOf(spec.fromMs);
  certificate.notAfter = timeOf(spec.untilMs);
  const spki = createPublicKey(key).export({ type: "spki", format: "der" });
  certificate.subjectPublicKeyInfo.fromSchema(asn1.fromBER(bytesOf(spki)).result);
  if (certificate.version > 0) certificate.extensions = extensionsOf(spec);
  const algorithm = algorithmOf(signer, spec.hash ?? "sha256");
  certificate.signature = algorithm;
  certificate.signatureAlgorithm = algorithm;
  const tbs = Buffer.from(certificate.encodeTBS().toBER());
  const signature = sign(spec.hash ?? "sha256", tbs, signer);
  if (spec.tampered === true) signature[signature.length - 5] = (signature.at(-5) ?? 0) ^ 1;
  certificate.signatureValue = new asn1.BitString({ valueHex: bytesOf(signature) });
  const der = Buffer.from(certificate.toSchema(true).toBER());
  return {
    spec,
    key,
    der,
    cert: pem(der),
    keyPem: key.export({ type: "pkcs8", format: "pem" }),
  };
}

function pem(der: Buffer): string {
  const lines = der.toString("base64").match(/.{1,64}/g) ?? [];
  return ["-----BEGIN CERTIFICATE-----", ...lines, "-----END CERTIFICATE-----", ""].join("\n");
}

function bytesOf(buffer: Uint8Array): ArrayBuffer {
  return Uint8Array.from(buffer).buffer;
}

/** As an INTEGER has it, in as few bytes as can be. */
function positive(bytes: Buffer): Buffer {
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40;
  return bytes;
}

function nameOf(text: string): pkijs.RelativeDistinguishedNames {
  const value = new asn1.Utf8String({ value: text });
  const typesAndValues = [new pkijs.AttributeTypeAndValue({ type: "2.5.4.3", value })];
  return new pkijs.RelativeDistinguishedNames({ typesAndValues });
}

function timeOf(ms: number): pkijs.Time {
  return new pkijs.Time({ type: 0, value: new Date(Date.now() + ms) });
}

/** DER wants none of the bits at the end that are 0. */
const BIT_STRING_UNUSED: Readonly<Record<number, number>> = { 0xa0: 5, 0xa4: 2 };

const ALGORITHMS = {
  rsa: { sha1: "1.2.840.113549.1.1.5", sha256: "1.2.840.113549.1.1.11" },
  ec: { sha1: "1.2.840.10045.4.1", sha256: "1.2.840.10045.4.3.2" },
} as const;

function algorithmOf(key: KeyObject, hash: "sha1" | "sha256"): pkijs.AlgorithmIdentifier {
  const isRsa = key.asymmetricKeyType === "rsa";
  return new pkijs.AlgorithmIdentifier({
    algorithmId: ALGORITHMS[isRsa ? "rsa" : "ec"][hash],
    ...(isRsa ? { algorithmParams: new asn1.Null() } : {}),
  });
}

function extensionsOf(spec: Spec): pkijs.Extension[] {
  const made: pkijs.Extension[] = [];
  const add = (extnID: string, critical: boolean, value: { toBER(): ArrayBuffer }): void => {
    made.push(new pkijs.Extension({ extnID, critical, extnValue: value.toBER() }));
  };
  const { ca, pathLength, usage, purposes, names, permitted = [], excluded = [] } = spec;
  if (ca !== undefined) {
    const pathLenConstraint = pathLength === undefined ? {} : { pathLenConstraint: pathLength };
    const constraints = new pkijs.BasicConstraints({ cA: ca, ...pathLenConstraint });
    add("2.5.29.19", true, constraints.toSchema());
  }
  if (usage !== undefined) {
    const bits = {
      valueHex: Uint8Array.of(usage).buffer,
      unusedBits: BIT_STRING_UNUSED[usage] ?? 1,
    };
    add("2.5.29.15", true, new asn1.BitString(bits));
  }
  if (purposes !== undefined)
    add("2.5.29.37", false, new pkijs.ExtKeyUsage({ keyPurposes: [...purposes] }).toSchema());
  if (names !== undefined) {
    const altNames = names.map((name) => generalName(name, false));
    add("2.5.29.17", false, new pkijs.AltName({ altNames }).toSchema());
  }
  if (permitted.length + excluded.length > 0) {
    const trees = (list: readonly string[]): pkijs.GeneralSubtree[] =>
      list.map((name) => new pkijs.GeneralSubtree({ base: generalName(name, true) }));
    const constraints = new pkijs.NameConstraints({
      ...(permitted.length === 0 ? {} : { permittedSubtrees: trees(permitted) }),
      ...(excluded.length === 0 ? {} : { excludedSubtrees: trees(excluded) }),
    });
    add("2.5.29.30", true, constraints.toSchema());
  }
  for (const oid of spec.unknown ?? []) add(oid, true, new asn1.Null());
  made.push(...made.filter(({ extnID }) => extnID === spec.twice));
  return made;
}

/** An address, a network `address/mask`, an e-mail address, or a name of a host. */
function generalName(text: string, isConstraint: boolean): pkijs.GeneralName {
  if (/^\d+\.\d+\.\d+\.\d+/.test(text)) {
    const octets = text.split(/[./]/).map(Number);
    if (isConstraint !== (octets.length === 8)) throw new TypeError(text);
    const value = new asn1.OctetString({ valueHex: Uint8Array.from(octets).buffer });
    return new pkijs.GeneralName({ type: 7, value });
  }
  return new pkijs.GeneralName({ type: text.includes("@") ? 1 : 2, value: text });
}
