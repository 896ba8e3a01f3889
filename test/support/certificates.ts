import forge from "node-forge";

/** A certificate and its key, PEM. */
export interface Identity {
  readonly cert: string;
  readonly key: string;
}

export interface Authority extends Identity {
  /** A server's certificate for some names; `validMs` counts from `fromMs`, both relative to now in milliseconds. */
  issue(names: readonly string[], validity?: { fromMs?: number; validMs?: number }): Identity;
}

const DAY_MS = 86_400_000;

/** A certificate authority of its own for each call. Keys are RSA because that is what node-forge signs with. */
export function authority(name: string = "edgesync test CA"): Authority {
  const keys = forge.pki.rsa.generateKeyPair(2048);
  const subject = [{ name: "commonName", value: name }];
  const root = unsigned(keys.publicKey, { fromMs: -DAY_MS, validMs: 2 * DAY_MS });
  root.setSubject(subject);
  root.setIssuer(subject);
  root.setExtensions([
    { name: "basicConstraints", cA: true, critical: true },
    { name: "keyUsage", keyCertSign: true, cRLSign: true, critical: true },
    { name: "subjectKeyIdentifier" },
  ]);
  root.sign(keys.privateKey, forge.md.sha256.create());
  return {
    cert: forge.pki.certificateToPem(root),
    key: forge.pki.privateKeyToPem(keys.privateKey),
    issue(names, { fromMs = -DAY_MS, validMs = 2 * DAY_MS } = {}) {
      const own = forge.pki.rsa.generateKeyPair(2048);
      const leaf = unsigned(own.publicKey, { fromMs, validMs });
      leaf.setSubject([{ name: "commonName", value: names[0] ?? "" }]);
      leaf.setIssuer(subject);
      leaf.setExtensions([
        { name: "basicConstraints", cA: false, critical: true },
        { name: "keyUsage", digitalSignature: true, keyEncipherment: true, critical: true },
        { name: "extKeyUsage", serverAuth: true },
        {
          name: "subjectAltName",
          altNames: names.map((entry) =>
            /^[\d.]+$/.test(entry) ? { type: 7, ip: entry } : { type: 2, value: entry },
          ),
        },
      ]);
      leaf.sign(keys.privateKey, forge.md.sha256.create());
      return {
        cert: forge.pki.certificateToPem(leaf),
        key: forge.pki.privateKeyToPem(own.privateKey),
      };
    },
  };
}

function unsigned(
  publicKey: forge.pki.rsa.PublicKey,
  { fromMs, validMs }: { fromMs: number; validMs: number },
): forge.pki.Certificate {
  const certificate = forge.pki.createCertificate();
  certificate.publicKey = publicKey;
  // Positive, and different for each: OpenSSL takes two certificates with one issuer and serial for the same.
  certificate.serialNumber = `01${forge.util.bytesToHex(forge.random.getBytesSync(15))}`;
  certificate.validity.notBefore = new Date(Date.now() + fromMs);
  certificate.validity.notAfter = new Date(Date.now() + fromMs + validMs);
  return certificate;
}
