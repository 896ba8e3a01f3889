/** The PKI engine of the development Vault: a root of its own, and certificates for names below the role's domains. */
import { createHash, randomBytes, webcrypto } from "node:crypto";
import { fromBER } from "asn1js";
import * as asn1js from "asn1js";
import * as pkijs from "pkijs";
import { NO_CONTENT, Refusal, absent, answer, durationMs, flag, invalid } from "./exchange.ts";
import { list, needed, text } from "./exchange.ts";
import type { Answer, Fields } from "./exchange.ts";
import type { Engine, EngineDeps } from "./engines.ts";

const EC = { name: "ECDSA", namedCurve: "P-256" } as const;
const RSA = {
  name: "RSASSA-PKCS1-v1_5",
  modulusLength: 2_048,
  publicExponent: new Uint8Array([1, 0, 1]),
  hash: "SHA-256",
} as const;

/** Milliseconds: the real one backdates, for clocks that are behind. */
const BACKDATED_MS = 30_000;
const ROOT_TTL_MS = 365 * 24 * 3_600_000;

interface Issuer {
  readonly certificate: pkijs.Certificate;
  readonly key: webcrypto.CryptoKey;
}

export function pki({ now }: EngineDeps): Engine {
  const roles = new Map<string, Fields>();
  let root: Issuer | undefined;

  const certify = async (
    what: {
      readonly name: string;
      readonly publicKey: webcrypto.CryptoKey;
      readonly names: readonly string[];
      readonly ttlMs: number;
    },
    issuer: Issuer | undefined,
    key: webcrypto.CryptoKey,
  ): Promise<pkijs.Certificate> => {
    const certificate = new pkijs.Certificate();
    certificate.version = 2;
    certificate.serialNumber = new asn1js.Integer({
      valueHex: new Uint8Array([0x11, ...randomBytes(15)]).buffer,
    });
    certificate.subject.typesAndValues.push(
      new pkijs.AttributeTypeAndValue({
        type: "2.5.4.3",
        value: new asn1js.Utf8String({ value: what.name }),
      }),
    );
    certificate.issuer = issuer?.certificate.subject ?? certificate.subject;
    certificate.notBefore.value = new Date(now() - BACKDATED_MS);
    certificate.notAfter.value = new Date(now() + what.ttlMs);
    await certificate.subjectPublicKeyInfo.importKey(what.publicKey);
    certificate.extensions = extensions(what.names, issuer === undefined);
    await certificate.sign(key, "SHA-256");
    return certificate;
  };

  const leaf = async (
    role: Fields,
    fields: Fields,
    publicKey: webcrypto.CryptoKey,
    named: { readonly name?: string | undefined; readonly names?: readonly string[] },
  ): Promise<Fields> => {
    if (root === undefined) throw new Refusal(500, ["no default issuer currently configured"]);
    const name = named.name ?? needed(fields, "common_name");
    const names = [...new Set([name, ...(named.names ?? list(fields, "alt_names"))])];
    for (const one of names)
      if (!isAllowed(role, one)) throw invalid(`common name ${one} not allowed by this role`);
    const longest = durationMs(role, "max_ttl") || 30 * 24 * 3_600_000;
    const ttlMs = Math.min(
      durationMs(fields, "ttl") || durationMs(role, "ttl") || longest,
      longest,
    );
    const certificate = await certify({ name, publicKey, names, ttlMs }, root, root.key);
    const authority = pem("CERTIFICATE", root.certificate.toSchema().toBER());
    return {
      certificate: pem("CERTIFICATE", certificate.toSchema().toBER()),
      issuing_ca: authority,
      ca_chain: [authority],
      serial_number: createHash("sha1")
        .update(name)
        .digest("hex")
        .replace(/(..)(?=.)/g, "$1:"),
      expiration: Math.floor(certificate.notAfter.value.getTime() / 1_000),
    };
  };

  return {
    type: "pki",
    options: {},
    exists: () => true,
    async handle({ operation, path, fields }): Promise<Answer> {
      const [, kind = "", name = ""] = /^([a-z/]+?)(?:\/([\w.-]+))?$/.exec(path) ?? [];
      const role = roles.get(name);
      switch (`${operation} ${kind}`) {
        case "write root/generate": {
          const keys = await webcrypto.subtle.generateKey(EC, true, ["sign", "verify"]);
          const ttlMs = durationMs(fields, "ttl") || ROOT_TTL_MS;
          const common = { name: needed(fields, "common_name"), names: [], ttlMs };
          const certificate = await certify(
            { ...common, publicKey: keys.publicKey },
            undefined,
            keys.privateKey,
          );
          root = { certificate, key: keys.privateKey };
          const own = pem("CERTIFICATE", certificate.toSchema().toBER());
          return answer({ data: { certificate: own, issuing_ca: own } });
        }
        case "write roles":
          roles.set(name, fields);
          return NO_CONTENT;
        case "delete roles":
          roles.delete(name);
          return NO_CONTENT;
        case "write issue": {
          if (role === undefined) throw invalid(`unknown role: ${name}`);
          const type = text(role, "key_type") === "ec" ? EC : RSA;
          const keys = await webcrypto.subtle.generateKey(type, true, ["sign", "verify"]);
          const data = await leaf(role, fields, keys.publicKey, {});
          const pkcs8 = await webcrypto.subtle.exportKey("pkcs8", keys.privateKey);
          const own = {
            private_key: pem("PRIVATE KEY", pkcs8),
            private_key_type: type === EC ? "ec" : "rsa",
          };
          return answer({ data: { ...data, ...own } });
        }
        case "write sign": {
          if (role === undefined) throw invalid(`unknown role: ${name}`);
          const request = requestOf(needed(fields, "csr"));
          if (!(await request.verify())) throw invalid("the request is not signed by its key");
          const publicKey = await request.getPublicKey();
          const csrName = request.subject.typesAndValues[0]?.value.valueBlock.value ?? "";
          const named = {
            name: flag(role, "use_csr_common_name", true) && csrName !== "" ? csrName : undefined,
            ...(flag(role, "use_csr_sans", true) ? { names: dnsNamesOf(request) } : {}),
          };
          return answer({ data: await leaf(role, fields, publicKey, named) });
        }
        default:
          throw operation === "read" ? absent() : new Refusal(405, ["unsupported operation"]);
      }
    },
  };
}

function isAllowed(role: Fields, name: string): boolean {
  if (flag(role, "allow_any_name", false)) return true;
  return list(role, "allowed_domains").some(
    (domain) =>
      (flag(role, "allow_bare_domains", false) && name === domain) ||
      (flag(role, "allow_subdomains", false) && name.endsWith(`.${domain}`)),
  );
}

function extensions(names: readonly string[], isAuthority: boolean): pkijs.Extension[] {
  if (isAuthority) {
    const constraints = new pkijs.BasicConstraints({ cA: true });
    return [
      new pkijs.Extension({
        extnID: "2.5.29.19",
        critical: true,
        extnValue: constraints.toSchema().toBER(false),
      }),
    ];
  }
  const alternative = new pkijs.GeneralNames({
    names: names.map((value) => new pkijs.GeneralName({ type: 2, value })),
  });
  return [
    new pkijs.Extension({
      extnID: "2.5.29.17",
      critical: false,
      extnValue: alternative.toSchema().toBER(false),
    }),
  ];
}

/** @throws Refusal 400 for what is no request */
function requestOf(csr: string): pkijs.CertificationRequest {
  const der = Buffer.from(csr.replace(/-----[^-]+-----|\s/g, ""), "base64");
  try {
    return new pkijs.CertificationRequest({ schema: fromBER(new Uint8Array(der)).result });
  } catch {
    throw invalid("certificate request could not be parsed");
  }
}

function dnsNamesOf(request: pkijs.CertificationRequest): readonly string[] {
  return (request.attributes ?? []).flatMap(({ values }) =>
    values.flatMap((schema: unknown) =>
      new pkijs.Extensions({ schema }).extensions
        .flatMap(({ parsedValue }) =>
          parsedValue instanceof pkijs.AltName ? parsedValue.altNames : [],
        )
        .flatMap(({ type, value }) => (type === 2 ? [String(value)] : [])),
    ),
  );
}

/** As the real one writes it: without a line's end behind the last. */
function pem(label: string, der: ArrayBuffer): string {
  const lines =
    Buffer.from(der)
      .toString("base64")
      .match(/.{1,64}/g) ?? [];
  return [`-----BEGIN ${label}-----`, ...lines, `-----END ${label}-----`].join("\n");
}
