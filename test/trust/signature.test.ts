import assert from "node:assert/strict";
import { constants, createPublicKey, generateKeyPairSync, sign } from "node:crypto";
import type { KeyObject } from "node:crypto";
import { describe, test } from "node:test";
import type { Key } from "#core/trust/metadata.ts";
import { verifySignatures } from "#core/trust/signature.ts";

const DATA = Buffer.from('{"_type":"timestamp"}');
const UNTRUSTED = { code: "METADATA_UNTRUSTED" };

interface Signer {
  readonly key: Key;
  readonly sign: (data: Buffer) => Buffer;
}

const pemOf = (key: KeyObject): string => key.export({ type: "spki", format: "pem" });

function ed25519(form: "hex" | "pem"): Signer {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const hex = Buffer.from(publicKey.export({ format: "jwk" }).x ?? "", "base64url").toString("hex");
  const text = form === "hex" ? hex : pemOf(publicKey);
  return {
    key: { keytype: "ed25519", scheme: "ed25519", keyval: { public: text } },
    sign: (data) => sign(null, data, privateKey),
  };
}

function ecdsa(
  curve: "prime256v1" | "secp384r1" | "secp256k1",
  scheme: string,
  keytype = "ecdsa",
): Signer {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: curve });
  const hash = scheme.endsWith("384") ? "sha384" : "sha256";
  return {
    key: { keytype, scheme, keyval: { public: pemOf(publicKey) } },
    sign: (data) => sign(hash, data, privateKey),
  };
}

const rsaPair = generateKeyPairSync("rsa", { modulusLength: 2048 });

function rsa(hash: string, padding: number = constants.RSA_PKCS1_PSS_PADDING): Signer {
  return {
    key: {
      keytype: "rsa",
      scheme: `rsassa-pss-${hash}`,
      keyval: { public: pemOf(rsaPair.publicKey) },
    },
    sign: (data) => sign(hash, data, { key: rsaPair.privateKey, padding }),
  };
}

/** @param threshold of the role that all of the keys belong to */
function verify(
  signers: readonly Signer[],
  threshold = 1,
  change: (signature: Buffer) => string = (signature) => signature.toString("hex"),
): void {
  const ids = signers.map((_, index) => `k${index}`);
  verifySignatures(
    {
      signed: {},
      canonical: DATA,
      signatures: new Map(signers.map((signer, index) => [`k${index}`, change(signer.sign(DATA))])),
    },
    { keys: new Map(signers.map((signer, index) => [`k${index}`, signer.key])) },
    { keyids: ids, threshold },
    "timestamp",
  );
}

const KINDS: Readonly<Record<string, () => Signer>> = {
  "Ed25519, hexadecimal": () => ed25519("hex"),
  "Ed25519, PEM": () => ed25519("pem"),
  "ECDSA on P-256": () => ecdsa("prime256v1", "ecdsa-sha2-nistp256"),
  "ECDSA on P-256, as older repositories name it": () =>
    ecdsa("prime256v1", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256"),
  "ECDSA on P-384": () => ecdsa("secp384r1", "ecdsa-sha2-nistp384"),
  "RSA-PSS with SHA-256": () => rsa("sha256"),
  "RSA-PSS with SHA-384": () => rsa("sha384"),
  "RSA-PSS with SHA-512": () => rsa("sha512"),
};

describe("a signature", () => {
  for (const [kind, make] of Object.entries(KINDS)) {
    test(`of ${kind} counts`, () => verify([make()]));

    test(`of ${kind} does not count when a bit of it is another, or it is cut, or empty`, () => {
      const signer = make();
      for (const change of [
        (bytes: Buffer) => {
          const copy = Buffer.from(bytes);
          copy[copy.length >> 1] = (copy[copy.length >> 1] ?? 0) ^ 1;
          return copy.toString("hex");
        },
        (bytes: Buffer) => bytes.subarray(0, -1).toString("hex"),
        (bytes: Buffer) => `${bytes.toString("hex")}0`,
        (bytes: Buffer) => bytes.toString("base64"),
        () => "",
      ])
        assert.throws(() => verify([signer], 1, change), UNTRUSTED);
    });
  }

  const wrong: Readonly<Record<string, () => Signer>> = {
    "RSA with the older padding": () => rsa("sha256", constants.RSA_PKCS1_PADDING),
    "a curve that the scheme does not name": () => ecdsa("secp256k1", "ecdsa-sha2-nistp256"),
    "P-384 that says it is P-256": () => ecdsa("secp384r1", "ecdsa-sha2-nistp256"),
    "a scheme of another kind of key": () => {
      const signer = rsa("sha256");
      return { ...signer, key: { ...signer.key, scheme: "ed25519" } };
    },
    "a kind of another scheme": () => {
      const signer = ed25519("hex");
      return { ...signer, key: { ...signer.key, keytype: "rsa" } };
    },
    "a scheme that nobody knows": () => {
      const signer = ed25519("hex");
      return { ...signer, key: { ...signer.key, scheme: "ed448" } };
    },
    "a key that cannot be read": () => {
      const signer = ed25519("hex");
      return { ...signer, key: { ...signer.key, keyval: { public: "not a key" } } };
    },
    "a key without a value": () => {
      const signer = ed25519("hex");
      return { ...signer, key: { ...signer.key, keyval: {} } };
    },
  };
  for (const [what, make] of Object.entries(wrong))
    test(`of ${what} does not count, and does not spoil the others`, () => {
      assert.throws(() => verify([make()]), UNTRUSTED);
      verify([make(), ed25519("hex")]);
      assert.throws(() => verify([make(), ed25519("hex")], 2), UNTRUSTED);
    });
});

describe("a threshold", () => {
  const all = Object.values(KINDS).map((make) => make());

  test("is reached by keys of any kinds together", () => {
    verify(all.slice(0, 5), 5);
    assert.throws(() => verify(all.slice(0, 5), 6), UNTRUSTED);
  });

  test("counts one key once, whatever its ids", () => {
    const [one = ed25519("hex")] = all;
    assert.throws(() => verify([one, one, one], 2), UNTRUSTED);
    verify([one, one, ed25519("hex")], 2);
  });

  test("counts one key once, however it is written", () => {
    const one = ed25519("hex");
    const { public: hex = "" } = one.key.keyval;
    const x = Buffer.from(hex, "hex").toString("base64url");
    const pem = pemOf(createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" }));
    const written = [hex, hex.toUpperCase(), pem].map((text) => ({
      ...one,
      key: { ...one.key, keyval: { public: text } },
    }));
    verify(written, 1);
    assert.throws(() => verify(written, 2), UNTRUSTED);
  });

  test("ignores keys that are known and not named by the role", () => {
    const [one = ed25519("hex"), two = one] = all;
    const file = {
      signed: {},
      canonical: DATA,
      signatures: new Map([["two", two.sign(DATA).toString("hex")]]),
    };
    const keys = new Map([
      ["one", one.key],
      ["two", two.key],
    ]);
    const role = { keyids: ["one"], threshold: 1 };
    assert.throws(() => verifySignatures(file, { keys }, role, "timestamp"), UNTRUSTED);
  });
});
