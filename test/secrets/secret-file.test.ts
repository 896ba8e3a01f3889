import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { parseExactJson, secretFile } from "#core/secret-file.ts";
import type { PlainFormat, SecretData } from "#core/secret-file.ts";

function rendered(data: SecretData, format: PlainFormat): string {
  return Buffer.from(secretFile(data, format)).toString();
}

const CANARY = "canary-value";

describe("a secret as json", () => {
  test("is the same bytes whatever order the server chose", () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (data) => {
        const reversed = Object.fromEntries(Object.entries(data).reverse());
        const text = rendered(data, { kind: "json" });
        assert.equal(text, rendered(reversed, { kind: "json" }));
        assert.deepEqual(JSON.parse(text), JSON.parse(JSON.stringify(data)));
      }),
    );
  });

  test("keeps every digit of a number", () => {
    const source = '{"big":12345678901234567890123,"exact":1.0,"small":5432}';
    const data = parseExactJson(source) as SecretData;
    assert.equal(rendered(data, { kind: "json" }), `${source}\n`);
    assert.equal(rendered(data, { kind: "raw", field: "big" }), "12345678901234567890123");
  });
});

describe("a secret as variables", () => {
  test("is read by a shell as it was", () => {
    fc.assert(
      fc.property(
        fc.array(fc.string({ unit: "binary-ascii", maxLength: 12 }), { maxLength: 4 }),
        (values) => {
          const data = Object.fromEntries(
            values.map((value, i) => [`V${i}`, value.replaceAll("\0", "")]),
          );
          const script = `${rendered(data, { kind: "env" })}\nprintf '%s\\0' "$V0" "$V1" "$V2" "$V3"`;
          const read = execFileSync("/bin/sh", ["-c", script], { env: {} }).toString().split("\0");
          assert.deepEqual(
            read.slice(0, 4),
            [0, 1, 2, 3].map((i) => data[`V${i}`] ?? ""),
          );
        },
      ),
      { numRuns: 60 },
    );
  });

  test("has what holds a single quote in double ones: systemd does not read '\\'' as a shell does", () => {
    const data = { PASSWORD: "it's", TRAP: "'$HOME`\"\\", SAFE: '$HOME`"\\' };
    assert.deepEqual(rendered(data, { kind: "env" }).split("\n"), [
      `PASSWORD="it's"`,
      "SAFE='$HOME`\"\\'",
      'TRAP="\'\\$HOME\\`\\"\\\\"',
      "",
    ]);
  });

  test("writes numbers, flags and lists as JSON, and nothing for null", () => {
    const data = { PORT: 5432, TLS: true, HOSTS: ["a", "b"], NONE: null };
    assert.equal(
      rendered(data, { kind: "env" }),
      `HOSTS='["a","b"]'\nNONE=\nPORT=5432\nTLS=true\n`,
    );
  });

  test("is refused when a name cannot be a variable's or a value holds a NUL", () => {
    for (const data of [{ [`${CANARY} x`]: "1" }, { NUL: `${CANARY}\0` }])
      assert.throws(
        () => secretFile(data, { kind: "env" }),
        (error: Error & { code?: string }) =>
          error.code === "SECRET_INVALID" && !error.message.includes(CANARY),
      );
  });
});

describe("one field of a secret", () => {
  test("is its text as it is, without anything added", () => {
    const pem = "-----BEGIN KEY-----\nabc\n-----END KEY-----\n";
    assert.equal(rendered({ pem }, { kind: "raw", field: "pem" }), pem);
  });

  test("is refused by its name when it is absent or null, whatever else there is", () => {
    for (const data of [{ other: CANARY }, { field: null, other: CANARY }, {}])
      assert.throws(
        () => secretFile(data, { kind: "raw", field: "field" }),
        (error: Error & { code?: string }) =>
          error.code === "SECRET_INVALID" &&
          error.message.includes("field") &&
          !error.message.includes(CANARY),
      );
  });

  test("is not found on the prototype", () => {
    assert.throws(() => secretFile({}, { kind: "raw", field: "toString" }), {
      code: "SECRET_INVALID",
    });
  });
});

describe("a key and its certificate in one file", () => {
  const pem = (label: string, text: string): string =>
    `-----BEGIN ${label}-----\n${text}\n-----END ${label}-----`;
  const [key, leaf, middle, root] = [
    pem("PRIVATE KEY", "k"),
    pem("CERTIFICATE", "l"),
    pem("CERTIFICATE", "m"),
    pem("CERTIFICATE", "r"),
  ];

  test("are the key, the certificate and what has signed it, each once and on lines of its own", () => {
    const data = {
      private_key: key,
      certificate: leaf,
      ca_chain: [middle, root],
      issuing_ca: middle,
    };
    assert.equal(rendered(data, { kind: "pem" }), `${key}\n${leaf}\n${middle}\n${root}\n`);
    const { ca_chain: _, ...short } = data;
    assert.equal(rendered(short, { kind: "pem" }), `${key}\n${leaf}\n${middle}\n`);
  });

  test("are read from a Secret of type kubernetes.io/tls as well", () => {
    const data = { "tls.key": `${key}\n`, "tls.crt": `${leaf}\n${middle}\n` };
    assert.equal(rendered(data, { kind: "pem" }), `${key}\n${leaf}\n${middle}\n`);
  });

  test("are refused when one is missing or is no PEM, and nothing of it is told", () => {
    for (const data of [
      { certificate: CANARY },
      { private_key: key },
      { private_key: CANARY, certificate: leaf },
      { private_key: key, certificate: leaf, ca_chain: [CANARY] },
    ])
      assert.throws(
        () => secretFile(data, { kind: "pem" }),
        (error: Error & { code?: string }) =>
          error.code === "SECRET_INVALID" && !error.message.includes(CANARY),
      );
  });
});
