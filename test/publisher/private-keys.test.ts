import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { promisify } from "node:util";
import { findPrivateKeys } from "../../publisher/private-keys.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { authority } from "../support/certificates.ts";
import { never } from "./world.ts";

const execute = promisify(execFile);

function keys(): Readonly<Record<string, Buffer>> {
  const ec = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
  const ed = generateKeyPairSync("ed25519").privateKey;
  const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey;
  const passphrase = { cipher: "aes-256-cbc", passphrase: "secret" };
  const der = { format: "der" } as const;
  return {
    "pkcs8 of ed25519": ed.export({ type: "pkcs8", ...der }),
    "pkcs8 of ecdsa": ec.export({ type: "pkcs8", ...der }),
    "sec1 of ecdsa": ec.export({ type: "sec1", ...der }),
    "pkcs1 of rsa": rsa.export({ type: "pkcs1", ...der }),
    "pkcs8 of rsa": rsa.export({ type: "pkcs8", ...der }),
    "encrypted pkcs8 of ed25519": ed.export({ type: "pkcs8", ...der, ...passphrase }),
    "encrypted pkcs8 of rsa": rsa.export({ type: "pkcs8", ...der, ...passphrase }),
    "with a line feed": Buffer.concat([ed.export({ type: "pkcs8", ...der }), Buffer.from("\n")]),
  };
}

describe("a private key that is not PEM, in what is served", () => {
  test("is found in every binary form", async () => {
    await using folder = await temporaryFolder();
    for (const [name, bytes] of Object.entries(keys())) {
      await writeFile(join(folder.path, name), bytes);
      assert.deepEqual(await findPrivateKeys(folder.path, never), [name]);
      await rm(join(folder.path, name));
    }
  });

  test("is found as OpenSSH and OpenSSL write it", async () => {
    await using folder = await temporaryFolder();
    const at = (name: string): string => join(folder.path, name);
    for (const [index, passphrase] of ["", "secret"].entries())
      await execute("ssh-keygen", [
        "-q",
        "-t",
        "ed25519",
        "-N",
        passphrase,
        "-f",
        at(`ssh${index}`),
      ]);
    const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const pem = privateKey.export({ type: "sec1", format: "pem" });
    await writeFile(at("sec1.pem"), pem);
    const identity = [
      "-subj",
      "/CN=x",
      "-days",
      "1",
      "-key",
      at("sec1.pem"),
      "-out",
      at("cert.pem"),
    ];
    await execute("openssl", ["req", "-x509", ...identity]);
    const files = ["-inkey", at("sec1.pem"), "-in", at("cert.pem"), "-out", at("store.p12")];
    await execute("openssl", ["pkcs12", "-export", "-passout", "pass:secret", ...files]);
    assert.deepEqual(await findPrivateKeys(folder.path, never), [
      "sec1.pem",
      "ssh0",
      "ssh1",
      "store.p12",
    ]);
  });

  test("is not seen in public keys, certificates, signatures and other sequences", async () => {
    await using folder = await temporaryFolder();
    const at = (name: string): string => join(folder.path, name);
    const { publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    await writeFile(at("public.der"), publicKey.export({ type: "spki", format: "der" }));
    await writeFile(at("public.pem"), publicKey.export({ type: "spki", format: "pem" }));
    const { cert } = authority();
    await writeFile(at("ca.pem"), cert);
    const der = cert.replaceAll(/-----[^-]+-----|\s/g, "");
    await writeFile(at("ca.der"), Buffer.from(der, "base64"));
    await writeFile(at("signature.der"), Buffer.from("3006020101020102", "hex"));
    await writeFile(at("number.der"), Buffer.from("3003020100", "hex"));
    await writeFile(at("cut.der"), Buffer.from("30820102020100", "hex"));
    await writeFile(at("zero"), "0");
    assert.ok((await readFile(at("ca.der"))).length > 200);
    assert.deepEqual(await findPrivateKeys(folder.path, never), []);
  });
});
