import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createPrivateKey, createPublicKey } from "node:crypto";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { connect, createSecureContext, createServer } from "node:tls";
import { describe, test } from "node:test";
import { promisify } from "node:util";
import * as fc from "../support/property.ts";
import type { SecretData } from "#core/secret-file.ts";
import { secretFormat } from "#core/secret-format.ts";
import { keyStore } from "../../sidecar/secrets/key-store.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { keyPair } from "./key-pairs.ts";

const run = promisify(execFile);
const CANARY = "canary-value";
const pairs = { rsa: keyPair("rsa"), ec: keyPair("ec") };

/** What OpenSSL finds in a key store. */
async function opened(store: Uint8Array, password: string): Promise<string> {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "store.p12");
  await writeFile(path, store);
  const how = ["pkcs12", "-in", path, "-passin", `pass:${password}`, "-noenc", "-info"];
  const { stdout, stderr } = await run("openssl", how);
  return stdout + stderr;
}

describe("a key store", () => {
  for (const [kind, { data }] of Object.entries(pairs))
    test(`is read by OpenSSL with its key, its chain and its name: ${kind}`, async () => {
      const text = await opened(keyStore(data, "web", "changeit"), "changeit");
      const blocks = text.match(/-----BEGIN [^-]+-----[^-]+-----END [^-]+-----/g) ?? [];
      const [leaf, middle, root, key] = blocks;
      assert.deepEqual([leaf, middle, root], [data.certificate, ...(data["ca_chain"] as string[])]);
      const own = createPublicKey(createPrivateKey(key ?? ""));
      assert.ok(own.equals(createPublicKey(createPrivateKey(data.private_key))));
      assert.match(text, /friendlyName: web/);
      assert.match(text, /MAC: sha256, Iteration 2048/);
      assert.match(text, /PBES2, PBKDF2, AES-256-CBC, Iteration 2048, PRF hmacWithSHA256/);
      await assert.rejects(opened(keyStore(data, "web", "changeit"), "changeme"));
    });

  for (const [kind, { data, root }] of Object.entries(pairs))
    test(`serves TLS with nothing beside it: ${kind}`, async () => {
      const pfx = Buffer.from(
        keyStore({ ...data, secret: "pässwörd 🔑" }, "web", { field: "secret" }),
      );
      const server = createServer({ pfx, passphrase: "pässwörd 🔑" }, (socket) => {
        socket.end("served");
      });
      server.listen(0, "127.0.0.1");
      await once(server, "listening");
      const address = server.address();
      assert.ok(typeof address === "object" && address !== null);
      const socket = connect({
        port: address.port,
        host: "127.0.0.1",
        servername: "localhost",
        ca: root,
      });
      let told = "";
      for await (const piece of socket.setEncoding("utf8")) told += String(piece);
      assert.equal(told, "served");
      assert.ok(socket.authorized);
      server.close();
    });

  test("is the same bytes for the same secret, and others throughout for another", () => {
    const { data } = pairs.ec;
    const made = keyStore(data, "web", "changeit");
    assert.deepEqual(keyStore({ ...data }, "web", "changeit"), made);
    const others = [
      keyStore(data, "api", "changeit"),
      keyStore(pairs.rsa.data, "web", "changeit"),
      keyStore({ ...data, ca_chain: [data["issuing_ca"]] }, "web", "changeit"),
    ];
    const salts = [made, ...others].map((store) => randomParts(store));
    assert.equal(new Set(salts.flat()).size, 5 * salts.length);
  });

  test("has an empty password where none is asked for, and that of a field of the secret", async () => {
    const { data } = pairs.ec;
    createSecureContext({ pfx: Buffer.from(keyStore(data, "web", "none")), passphrase: "" });
    assert.match(await opened(keyStore(data, "web", "none"), ""), /friendlyName: web/);
    const own = keyStore({ ...data, secret: CANARY }, "web", { field: "secret" });
    assert.match(await opened(own, CANARY), /friendlyName: web/);
  });

  test("is made of a Secret of type kubernetes.io/tls as well, and of a key as older tools write it", async () => {
    const { certificate, private_key: key, ca_chain: chain } = pairs.rsa.data;
    const old = createPrivateKey(key).export({ type: "pkcs1", format: "pem" });
    const bundle = [certificate, ...(chain as string[]), ""].join("\n");
    const data = { "tls.key": old, "tls.crt": bundle };
    assert.deepEqual(keyStore(data, "web", "none"), keyStore(pairs.rsa.data, "web", "none"));
  });

  test("is refused for what is no pair, or no password, and nothing of it is told", () => {
    const { data } = pairs.ec;
    const foreign = pairs.rsa.data.certificate;
    const cases: readonly (readonly [SecretData, RegExp])[] = [
      [{ certificate: data.certificate }, /private_key/],
      [{ ...data, private_key: CANARY }, /private_key/],
      [{ ...data, private_key: `-----BEGIN PRIVATE KEY-----\n${CANARY}\n` }, /private key/],
      [{ ...data, certificate: foreign, ca_chain: null }, /no certificate for its private key/],
      [{ ...data, certificate: data.private_key }, /no certificate for its private key/],
      [
        {
          ...data,
          ca_chain: [
            `-----BEGIN CERTIFICATE-----\n${CANARY.replace("-", "")}\n-----END CERTIFICATE-----`,
          ],
        },
        /certificate/,
      ],
      [data, /"secret"/],
      ...["\0", "\ud800", 12, ["x"], "x".repeat(1_025)].map(
        (secret) => [{ ...data, secret }, /"secret" is no password/] as const,
      ),
    ];
    for (const [wrong, message] of cases)
      assert.throws(
        () => keyStore(wrong, "web", { field: "secret" }),
        (error: Error & { code?: string }) =>
          error.code === "SECRET_INVALID" &&
          (message.test(error.message) || wrong["secret"] === undefined) &&
          !`${error.message}${String(error.cause)}`.includes("canary"),
      );
  });

  test("is refused with its code for whatever the fields hold", () => {
    const { data } = pairs.ec;
    const piece = fc.oneof(
      fc.jsonValue(),
      fc.string({ unit: "binary" }),
      fc.constantFrom(data.private_key, data.certificate),
      fc.nat(data.certificate.length).map((at) => data.certificate.slice(0, at)),
      fc.string().map((text) => `-----BEGIN CERTIFICATE-----\n${text}\n-----END CERTIFICATE-----`),
    );
    const names = ["private_key", "certificate", "ca_chain", "tls.key", "tls.crt"] as const;
    const damaged = fc.record(Object.fromEntries(names.map((name) => [name, piece])), {
      requiredKeys: [],
    });
    fc.assert(
      fc.property(damaged, (fields) => {
        try {
          keyStore(fields, "web", "none");
        } catch (error) {
          assert.ok(error instanceof Error && "code" in error, String(error));
          assert.equal(error.code, "SECRET_INVALID");
        }
      }),
      { numRuns: 100 },
    );
  });

  test("is asked for by its form, which says where the password is from", () => {
    for (const text of ["pkcs12", "pkcs12:none", "pkcs12:field:store.password"]) {
      const format = secretFormat.parse(text);
      assert.ok(format?.kind === "pkcs12", text);
      assert.equal(secretFormat.format(format), text);
    }
    for (const text of [
      "pkcs12:",
      "pkcs12:field:",
      "pkcs12:changeit",
      "pkcs12:field:a b",
      "field:x",
    ])
      assert.equal(secretFormat.parse(text), undefined, text);
  });
});

/** The salts and initialization vectors of a key store: its octet strings of 16 bytes. What is encrypted is not looked into. */
function randomParts(store: Uint8Array): readonly string[] {
  const parts: string[] = [];
  const visit = (der: Buffer): void => {
    for (let at = 0; at < der.length;) {
      const tag = der[at] ?? 0;
      const { start, end } = extentAt(der, at);
      const content = der.subarray(start, end);
      const isOctets = tag === 0x04;
      if (isOctets && content.length === 16) parts.push(content.toString("hex"));
      if ((tag & 0x20) !== 0 || (isOctets && isSequence(content))) visit(content);
      at = end;
    }
  };
  visit(Buffer.from(store));
  return parts;
}

/** Of the element that starts `at`: where its content starts and ends (X.690, 8.1.3). */
function extentAt(der: Buffer, at: number): { readonly start: number; readonly end: number } {
  const first = der[at + 1] ?? 0;
  const sizeBytes = first < 0x80 ? 0 : first & 0x7f;
  const start = at + 2 + sizeBytes;
  return { start, end: start + (sizeBytes === 0 ? first : der.readUIntBE(at + 2, sizeBytes)) };
}

/** Whether these bytes are one sequence and nothing else: more than 32 bits of them must agree, which encrypted ones do not. */
function isSequence(bytes: Buffer): boolean {
  if (bytes[0] !== 0x30 || bytes.length < 6) return false;
  const sizeBytes = (bytes[1] ?? 0) & 0x7f;
  return (sizeBytes < 6 || (bytes[1] ?? 0) < 0x80) && extentAt(bytes, 0).end === bytes.length;
}
