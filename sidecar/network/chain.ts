/**
 * A chain of certificates verified as RFC 5280, 6.1 has it, at the moment nearest to now at which all of it is valid. Signatures, names
 * of hosts and links from one certificate to the next are OpenSSL's work; what Node does not tell of a certificate is read with pkijs.
 * An allowance is a favour: where this is not sure, or Node would accept what is old-fashioned (no subjectAltName, no extended key usage,
 * version 1, a server's own certificate as the authority), it refuses.
 */
import { X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import { checkServerIdentity } from "node:tls";
import { BitString } from "asn1js";
import { AltName, BasicConstraints, Certificate, ExtKeyUsage } from "pkijs";
import { EdgeSyncError } from "#core/errors.ts";
import { nameProblem } from "./name-constraints.ts";

export interface Moment {
  /** A name, or an IP address. */
  readonly host: string;
  /** Milliseconds since the epoch. */
  readonly now: number;
  /** Milliseconds, before and after. */
  readonly allowanceMs: number;
}

/** Bounds for what strangers send: certificates, bytes of each, certificates in a path, signatures verified, paths judged. */
const MAX_CERTIFICATES = 12;
const MAX_BYTES = 32_768;
const MAX_PATH = 8;
const MAX_SIGNATURES = 32;
const MAX_PATHS = 8;

export interface Link {
  readonly x509: X509Certificate;
  readonly parsed: Certificate;
}

/**
 * @param chain DER, the server's own first, the others in any order
 * @param roots PEM
 * @returns milliseconds from now to the moment at which the chain is valid; 0 when it is now
 * @throws EdgeSyncError TLS_UNTRUSTED, and nothing else, whatever the chain is
 */
export function judgeChain(
  chain: readonly Uint8Array[],
  roots: readonly string[],
  moment: Moment,
): number {
  try {
    return judge(chain, roots, moment);
  } catch (cause) {
    if (cause instanceof EdgeSyncError) throw cause;
    throw untrusted("a certificate cannot be read", cause);
  }
}

function judge(
  chain: readonly Uint8Array[],
  roots: readonly string[],
  { host, now, allowanceMs }: Moment,
): number {
  if (chain.length > MAX_CERTIFICATES || chain.some((der) => der.byteLength > MAX_BYTES))
    throw untrusted("the chain is too large");
  const [own, ...others] = chain.map((der) => presented(der));
  if (own === undefined) throw untrusted("there is no certificate");
  const wrong = serverProblem(own, host);
  if (wrong !== undefined) throw untrusted(wrong);
  let problem = "no authority that is trusted here has issued it";
  let judged = 0;
  for (const path of pathsFrom(own, others, rootsFor([own, ...others], roots))) {
    judged += 1;
    if (judged > MAX_PATHS) break;
    const offMs = offBy(path, now);
    problem = pathProblem(path, host) ?? timeProblem(offMs, allowanceMs) ?? "";
    if (problem === "" && offMs !== undefined) return offMs;
  }
  throw untrusted(problem);
}

function untrusted(what: string, cause?: unknown): EdgeSyncError {
  return new EdgeSyncError("TLS_UNTRUSTED", what, { cause });
}

/** Node would pass over what stands behind a certificate, and take PEM. */
function presented(der: Uint8Array): Link {
  const link = linkOf(der);
  if (!link.x509.raw.equals(der)) throw untrusted("a certificate is not DER alone");
  return link;
}

function linkOf(source: Uint8Array | string): Link {
  const x509 = new X509Certificate(source);
  return { x509, parsed: Certificate.fromBER(x509.raw) };
}

/** Of all authorities those that may have issued one of the certificates. What is no root of its own is none, as for Node. */
function rootsFor(chain: readonly Link[], roots: readonly string[]): readonly Link[] {
  const wanted = new Set(chain.map(({ x509 }) => x509.issuer));
  return roots
    .map((pem) => new X509Certificate(pem))
    .filter((x509) => wanted.has(x509.subject) && x509.checkIssued(x509))
    .map((x509) => linkOf(x509.raw));
}

/** Every path from the server's certificate to a root whose signatures hold, the shortest first. */
function* pathsFrom(
  own: Link,
  others: readonly Link[],
  roots: readonly Link[],
): Generator<readonly Link[]> {
  let signatures = 0;
  // checkIssued: names, key identifiers, a key that may sign certificates, and no extension twice.
  const issues = (issuer: Link, { x509 }: Link): boolean => {
    if (!x509.checkIssued(issuer.x509) || signatures >= MAX_SIGNATURES) return false;
    signatures += 1;
    return keyProblem(issuer) === undefined && x509.verify(issuer.x509.publicKey);
  };
  const queue: (readonly Link[])[] = [[own]];
  for (const path of queue) {
    const last = path.at(-1) ?? own;
    for (const root of roots) if (issues(root, last)) yield [...path, root];
    if (path.length >= MAX_PATH - 1) continue;
    for (const other of others)
      if (!path.some(({ x509 }) => x509.raw.equals(other.x509.raw)) && issues(other, last))
        queue.push([...path, other]);
  }
}

/** What is wrong with a certificate as the one of a server at `host`. */
function serverProblem(own: Link, host: string): string | undefined {
  const { x509, parsed } = own;
  const problem = checkServerIdentity(host, x509.toLegacyObject());
  if (problem !== undefined) return problem.message;
  // Then Node has gone by the subject's common name, which nothing constrains.
  if (isIP(host) === 0 && !hasHostName(parsed)) return "it names no host in its subjectAltName";
  if (x509.checkIssued(x509)) return "the certificate is self-signed";
  const usage = keyUsageOf(parsed);
  const forTls = KEY_USAGE.digitalSignature | KEY_USAGE.keyEncipherment | KEY_USAGE.keyAgreement;
  if (usage !== undefined && (usage & forTls) === 0) return "its key is not for TLS";
  if (purposesOf(parsed)?.includes(SERVER_AUTH) !== true)
    return "its extended key usage is not that of a server";
  return keyProblem(own);
}

/** What is wrong with a path whose signatures hold, its time aside. */
function pathProblem(path: readonly Link[], host: string): string | undefined {
  for (const [index, link] of path.entries()) {
    const problem =
      formProblem(link) ??
      keyProblem(link) ??
      (index === path.length - 1 ? undefined : signatureProblem(link)) ??
      (index === 0 ? undefined : authorityProblem(link, index - 1));
    if (problem !== undefined) return `${nameOf(index)}: ${problem}`;
  }
  return nameProblem(
    path.map(({ parsed }) => parsed),
    host,
  );
}

function nameOf(index: number): string {
  return index === 0 ? "the server's certificate" : `authority ${index} above it`;
}

/** Milliseconds from now to the nearest moment at which every certificate is valid; undefined when there is none. */
function offBy(path: readonly Link[], now: number): number | undefined {
  const from = Math.max(...path.map(({ x509 }) => x509.validFromDate.getTime()));
  const until = Math.min(...path.map(({ x509 }) => x509.validToDate.getTime()));
  if (!(from <= until)) return undefined;
  return Math.min(Math.max(now, from), until) - now;
}

function timeProblem(offMs: number | undefined, allowanceMs: number): string | undefined {
  if (offMs === undefined) return "its certificates are never valid at the same time";
  if (Math.abs(offMs) <= allowanceMs) return undefined;
  const [what, seconds] = [offMs < 0 ? "expired" : "not valid yet", Math.abs(offMs) / 1_000];
  return `${what}, by ${Math.ceil(seconds)} s, and ${allowanceMs / 1_000} s are allowed`;
}

const OID = {
  keyUsage: "2.5.29.15",
  subjectAltName: "2.5.29.17",
  basicConstraints: "2.5.29.19",
  nameConstraints: "2.5.29.30",
  extKeyUsage: "2.5.29.37",
} as const;
const SERVER_AUTH = "1.3.6.1.5.5.7.3.1";

/** What is looked at here; anything else that is critical is not understood. */
const UNDERSTOOD: ReadonlySet<string> = new Set(Object.values(OID));

/** Bits of the first byte, RFC 5280, 4.2.1.3. */
const KEY_USAGE = {
  digitalSignature: 0x80,
  keyEncipherment: 0x20,
  keyAgreement: 0x08,
} as const;

/** Version 3. */
const VERSION = 2;

function formProblem({ parsed }: Link): string | undefined {
  if (parsed.version !== VERSION) return "it is not of version 3";
  for (const { extnID, critical, parsedValue } of parsed.extensions ?? []) {
    if (critical && !UNDERSTOOD.has(extnID)) return `critical extension ${extnID} is not known`;
    if (UNDERSTOOD.has(extnID) && (parsedValue === undefined || "parsingError" in parsedValue))
      return `extension ${extnID} cannot be read`;
  }
  return undefined;
}

/** @param below authorities between it and the server's certificate */
function authorityProblem({ parsed }: Link, below: number): string | undefined {
  const constraints = valueOf(parsed, OID.basicConstraints);
  if (!(constraints instanceof BasicConstraints) || !constraints.cA) return "it is no authority";
  const { pathLenConstraint: most } = constraints;
  if (most !== undefined && !(typeof most === "number" && below <= most))
    return "there are more authorities below it than it allows";
  const purposes = purposesOf(parsed);
  return purposes === undefined || purposes.includes(SERVER_AUTH)
    ? undefined
    : "it is not for servers";
}

/** What OpenSSL takes at its security level 2, 112 bits: with SHA-2, and no parameters that could say otherwise. */
const SIGNATURES: ReadonlySet<string> = new Set([
  "1.2.840.113549.1.1.11",
  "1.2.840.113549.1.1.12",
  "1.2.840.113549.1.1.13",
  "1.2.840.10045.4.3.2",
  "1.2.840.10045.4.3.3",
  "1.2.840.10045.4.3.4",
  "1.3.101.112",
]);

function signatureProblem({ parsed }: Link): string | undefined {
  const { algorithmId } = parsed.signatureAlgorithm;
  return SIGNATURES.has(algorithmId) && parsed.signature.algorithmId === algorithmId
    ? undefined
    : `signature algorithm ${algorithmId} is too weak, or not known`;
}

const CURVES: readonly unknown[] = ["prime256v1", "secp384r1", "secp521r1"];
const RSA_BITS = { least: 2_048, most: 8_192 } as const;

function keyProblem({ x509 }: Link): string | undefined {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = x509.publicKey;
  const { modulusLength = 0, namedCurve } = details ?? {};
  const good =
    type === "ed25519" ||
    (type === "ec" && CURVES.includes(namedCurve)) ||
    (type === "rsa" && modulusLength >= RSA_BITS.least && modulusLength <= RSA_BITS.most);
  return good ? undefined : "its key is too weak, or of a kind that is not known";
}

function valueOf({ extensions = [] }: Certificate, oid: string): unknown {
  return extensions.find(({ extnID }) => extnID === oid)?.parsedValue;
}

/** Tag of GeneralName for the name of a host. */
const DNS_NAME = 2;

function hasHostName(parsed: Certificate): boolean {
  const names = valueOf(parsed, OID.subjectAltName);
  return names instanceof AltName && names.altNames.some(({ type }) => type === DNS_NAME);
}

/** The first byte of the bits; undefined when all is allowed. */
function keyUsageOf(parsed: Certificate): number | undefined {
  const found = (parsed.extensions ?? []).find(({ extnID }) => extnID === OID.keyUsage);
  if (found === undefined) return undefined;
  const bits: unknown = found.parsedValue;
  return bits instanceof BitString ? (bits.valueBlock.valueHexView[0] ?? 0) : 0;
}

function purposesOf(parsed: Certificate): readonly string[] | undefined {
  const found = (parsed.extensions ?? []).find(({ extnID }) => extnID === OID.extKeyUsage);
  if (found === undefined) return undefined;
  const value: unknown = found.parsedValue;
  return value instanceof ExtKeyUsage ? value.keyPurposes : [];
}
