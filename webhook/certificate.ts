/**
 * A certificate authority and a serving certificate for the webhook. node-forge signs; the keys are made by Node, off the main thread.
 * The shape follows RFC 5280 where API servers are strict: a random positive serial, key identifiers, names in the SAN.
 */
import { generateKeyPair, randomBytes } from "node:crypto";
import { isIP } from "node:net";
import { promisify } from "node:util";
import forge from "node-forge";
import { EARLIER_MS } from "#core/serving-certificate.ts";
import type { Identity } from "#core/serving-certificate.ts";

const DAY_MS = 24 * 3_600_000;
/** Milliseconds; long enough for a site that is cut off for weeks. */
const LIFETIME_MS = 30 * DAY_MS;
const AUTHORITY_MS = 365 * DAY_MS;

export interface CertificateRequest {
  readonly service: string;
  readonly namespace: string;
  /** Host names and IP addresses beyond those of the Service. */
  readonly names: readonly string[];
  /** Of the certificate, in milliseconds; 30 days unless stated. */
  readonly lifetimeMs?: number;
}

/**
 * The authority's key is not kept: the next certificate comes with an authority of its own.
 *
 * @param now milliseconds since the epoch
 */
export async function makeCertificate(
  { service, namespace, names, lifetimeMs = LIFETIME_MS }: CertificateRequest,
  now: number,
): Promise<Identity> {
  const [authority, own] = await Promise.all([keyPair(), keyPair()]);
  // Of its own name each time: with two authorities of one name, OpenSSL may pick the wrong one and fail.
  const issuer = [
    { name: "commonName", value: `edgesync webhook CA ${randomBytes(8).toString("hex")}` },
  ];
  const ca = unsigned(authority.public, now, Math.max(AUTHORITY_MS, lifetimeMs));
  ca.setSubject(issuer);
  ca.setIssuer(issuer);
  ca.setExtensions([
    { name: "basicConstraints", critical: true, cA: true, pathLenConstraint: 0 },
    { name: "keyUsage", critical: true, keyCertSign: true, cRLSign: true },
    { name: "subjectKeyIdentifier" },
  ]);
  ca.sign(authority.private, forge.md.sha256.create());

  const leaf = unsigned(own.public, now, lifetimeMs);
  leaf.setSubject([{ name: "commonName", value: service }]);
  leaf.setIssuer(issuer);
  const hosts = [service, `${service}.${namespace}`, `${service}.${namespace}.svc`, ...names];
  leaf.setExtensions([
    { name: "basicConstraints", critical: true, cA: false },
    { name: "keyUsage", critical: true, digitalSignature: true, keyEncipherment: true },
    { name: "extKeyUsage", serverAuth: true },
    { name: "subjectAltName", altNames: hosts.map(alternative) },
    { name: "subjectKeyIdentifier" },
    {
      name: "authorityKeyIdentifier",
      keyIdentifier: ca.generateSubjectKeyIdentifier().getBytes(),
    },
  ]);
  leaf.sign(authority.private, forge.md.sha256.create());
  return {
    ca: forge.pki.certificateToPem(ca),
    certificate: forge.pki.certificateToPem(leaf),
    key: own.pem,
  };
}

/** GeneralName of RFC 5280, 4.2.1.6: 7 is an iPAddress, 2 a dNSName. */
function alternative(host: string): { type: number; ip?: string; value?: string } {
  return isIP(host) === 0 ? { type: 2, value: host } : { type: 7, ip: host };
}

const generate = promisify(generateKeyPair);

interface KeyPair {
  readonly public: forge.pki.PublicKey;
  readonly private: forge.pki.rsa.PrivateKey;
  readonly pem: string;
}

/** RSA, because node-forge signs with nothing else. */
async function keyPair(): Promise<KeyPair> {
  const { publicKey, privateKey } = await generate("rsa", { modulusLength: 2048 });
  const pem = privateKey.export({ type: "pkcs8", format: "pem" });
  return {
    public: forge.pki.publicKeyFromPem(publicKey.export({ type: "spki", format: "pem" })),
    private: forge.pki.privateKeyFromPem(pem),
    pem,
  };
}

function unsigned(
  publicKey: forge.pki.PublicKey,
  now: number,
  lifeMs: number,
): forge.pki.Certificate {
  const certificate = forge.pki.createCertificate();
  certificate.publicKey = publicKey;
  certificate.serialNumber = serialNumber();
  certificate.validity.notBefore = new Date(now - EARLIER_MS);
  certificate.validity.notAfter = new Date(now + lifeMs);
  return certificate;
}

/** 158 random bits, positive and of full length. */
function serialNumber(): string {
  const bytes = randomBytes(20);
  bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x40;
  return bytes.toString("hex");
}
