import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import * as health from "#core/health-check.ts";
import type { HealthCheck } from "#core/health-check.ts";
import { secretFormat } from "#core/secret-format.ts";
import type { SecretFormat } from "#core/secret-format.ts";
import { KEY_TYPES, secretRequest } from "#core/secret-request.ts";
import type { SecretRequest, VaultRequest } from "#core/secret-request.ts";
import * as v from "#core/values.ts";
import type { Value } from "#core/values.ts";

const label = fc.stringMatching(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/);
const appName = label.filter((text) => /[a-z]/.test(text));
const port = fc.integer({ min: 1, max: 65535 });
const id = fc.integer({ min: 1, max: 2_147_483_647 });
const segment = fc
  .stringMatching(/^[A-Za-z0-9_.-]{1,20}$/)
  .filter((text) => text !== "." && text !== "..");
const vaultPath = fc
  .array(segment, { minLength: 2, maxLength: 5 })
  .map((segments) => segments.join("/"));
const words = ["payload", "secrets"] as const;

/** Any texts, because they are written into JSON. */
const parameters = fc.dictionary(
  fc.stringMatching(/^[A-Za-z_]{1,10}$/),
  fc.oneof(fc.stringMatching(/^[\x21-\x7e]{0,20}$/), fc.string({ unit: "binary" })),
  { noNullPrototype: true },
);
const vaultRequest: fc.Arbitrary<VaultRequest> = fc.oneof(
  fc.record(
    {
      kind: fc.constant("vault" as const),
      path: vaultPath,
      parameters,
      key: fc.constantFrom(...KEY_TYPES),
      wrapMs: fc.integer({ min: 1_000, max: 3_600_000 }),
      replaceAt: fc.integer({ min: 5, max: 80 }),
    },
    { requiredKeys: ["kind", "path", "parameters"], noNullPrototype: true },
  ),
  fc
    .tuple(vaultPath, fc.integer({ min: 1, max: 2_147_483_647 }))
    .map(([path, version]) => ({ kind: "vault" as const, path, version, parameters: {} })),
);

interface Kind<T> {
  readonly value: Value<T>;
  readonly arbitrary: fc.Arbitrary<T>;
  /** Texts that must not be taken. */
  readonly bad: readonly string[];
}

function kind<T>(value: Value<T>, arbitrary: fc.Arbitrary<T>, ...bad: readonly string[]): Kind<T> {
  return { value, arbitrary, bad };
}

const KINDS = {
  dnsLabel: kind(v.dnsLabel, label, "A", "-a", "a-", "a.b", "a".repeat(64)),
  objectName: kind(
    v.objectName,
    fc.array(label, { minLength: 1, maxLength: 3 }).map((labels) => labels.join(".")),
    "a..b",
    "A",
    "a".repeat(254),
  ),
  fileName: kind(
    v.fileName,
    fc.stringMatching(/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$/),
    ".hidden",
    "..data",
    "a/b",
    "a b",
  ),
  absolutePath: kind(
    v.absolutePath,
    fc.array(segment, { minLength: 1, maxLength: 4 }).map((parts) => `/${parts.join("/")}`),
    "/",
    "a",
    "/a/",
    "/a//b",
    "/a/../b",
    "/..",
    "/a/.",
    "/a b",
    "/a\nb",
  ),
  imageReference: kind(
    v.imageReference,
    fc.stringMatching(/^[a-z0-9][A-Za-z0-9._:/@-]{0,99}$/),
    "a b",
    "-a",
    "a;b",
    "$(X)",
  ),
  vaultName: kind(v.vaultName, vaultPath, "../x", "a/../b", "/a", "a/", "a b", "a?b", "a%2fb"),
  siteName: kind(
    v.siteName,
    fc.stringMatching(/^[A-Za-z0-9]([A-Za-z0-9._:@-]{0,40}[A-Za-z0-9])?$/),
    "-a",
    "a.",
    "a b",
    "a/b",
    "Straße",
    "a".repeat(254),
  ),
  audience: kind(v.audience, fc.stringMatching(/^[\x21-\x7e]{1,40}$/), "a b", "é"),
  oneOf: kind(v.oneOf("restart", "none"), fc.constantFrom("restart", "none"), "Restart", "none "),
  someOf: kind(v.someOf(...words), fc.subarray([...words]), "payload,", "none,payload", "all"),
  containerNames: kind(
    v.containerNames,
    fc.uniqueArray(label, { minLength: 1, maxLength: 4 }),
    "a,,b",
    "a,a",
    "A",
  ),
  integer: kind(v.integer(1, 10), fc.integer({ min: 1, max: 10 }), "0", "11", "1.5", "-1", " 1"),
  duration: kind(
    v.duration("1s", "8760h"),
    fc.integer({ min: 1_000, max: 8760 * 3_600_000 }),
    "0s",
    "999ms",
    "8761h",
    "1",
    "1.5h",
    "-1s",
    "1s1m",
    "s",
  ),
  bytes: kind(
    v.bytes("1", "16Ti"),
    fc.integer({ min: 1, max: 16 * 2 ** 40 }),
    "0",
    "17Ti",
    "1.5Mi",
    "1mi",
    "1MB",
    "-1",
  ),
  cpu: kind(v.cpu, fc.integer({ min: 1, max: 999_999 }), "0", "0m", "1.5", "1u", "-1m"),
  fileMode: kind(
    v.fileMode,
    fc.integer({ min: 0o400, max: 0o775 }).filter((mode) => (mode & 0o002) === 0),
    "0777",
    "0002",
    "0200",
    "888",
    "4755",
    "04440",
  ),
  serverUrl: kind(
    v.serverUrl,
    fc
      .tuple(appName, fc.option(port), fc.array(appName, { maxLength: 3 }))
      .map(([host, port, path]) => {
        // As it is written in full: a default port and a last slash are left out.
        const authority = port === null || port === 443 ? host : `${host}:${port}`;
        return [
          "https:/",
          `${authority}.example`.replace(/(:\d+)\.example$/, ".example$1"),
          ...path,
        ].join("/");
      }),
    "http://vault.example",
    "ftp://a.example",
    "https://user@a.example",
    "https://a.example?x=1",
    "https://a.example#x",
    "https:a.example",
    "https:\\\\a.example",
    "https:// a.example",
    "a.example",
  ),
  channelRef: kind(
    v.channelRef,
    fc.record({ app: appName, channel: appName }, { noNullPrototype: true }),
    "web",
    "web/",
    "/stable",
    "web/stable/x",
    "1/2",
    "Web/stable",
  ),
  fullFallback: kind(
    v.fullFallback,
    fc.oneof(
      fc.constantFrom<v.FullFallback>({ kind: "never" }, { kind: "always" }),
      fc.integer({ min: 1, max: 2 ** 40 }).map((bytes) => ({ kind: "up-to" as const, bytes })),
    ),
    "maybe",
    "0",
    "2Ti",
  ),
  payloadStorage: kind(
    v.payloadStorage,
    fc.oneof(
      fc.constant<v.PayloadStorage>({ kind: "ephemeral" }),
      label.map((claim) => ({ kind: "claim" as const, claim })),
    ),
    "claim/",
    "claim/A",
    "claim",
    "hostPath",
  ),
  healthCheck: kind(
    health.healthCheck,
    fc.oneof(
      fc.constantFrom<HealthCheck>({ kind: "probe" }, { kind: "none" }),
      port.map((port) => ({ kind: "tcp" as const, port })),
      fc
        .tuple(port, fc.stringMatching(/^\/[a-z?=&%/]{0,30}$/))
        .map(([port, path]) => ({ kind: "http" as const, port, path })),
      fc
        .tuple(port, fc.constantFrom("", "web", "a.b.Service"))
        .map(([port, service]) => ({ kind: "grpc" as const, port, service })),
    ),
    "http:80",
    "http:0/",
    "tcp:65536",
    "tcp:80/x",
    "grpc:80/",
    "command:/bin/true",
    "http:80/ x",
    "exec",
  ),
  daemonHealthCheck: kind(
    health.daemonHealthCheck,
    fc.constantFrom<HealthCheck>(
      { kind: "command", argv: ["/bin/test", "-f", "x"] },
      { kind: "command", argv: ["pg_isready"] },
      { kind: "grpc", port: 1, service: "" },
    ),
    "probe",
    "command:",
    "command: ",
    "command:./x",
  ),
  hostName: kind(
    v.hostName,
    fc.constantFrom("vault", "vault.example", "1.vault-2.example"),
    "Vault.example",
    "vault.example.",
    "10.0.0.1",
    "7",
    "::1",
    "-vault",
    "vault..example",
    "*.example",
  ),
  ipAddress: kind(
    v.ipAddress,
    fc.oneof(fc.ipV4(), fc.constantFrom("::1", "fe80::1", "::")),
    "localhost",
    "1.2.3",
    "1.2.3.256",
    "1.2.3.4.",
    "127.0.0.1:80",
    "x::1",
  ),
  runAs: kind(
    v.runAs,
    fc.oneof(
      id.map((uid): v.RunAs => ({ uid })),
      fc.constant({}),
      fc.tuple(id, id).map(([uid, gid]) => ({ uid, gid })),
    ),
    "0",
    "0:1",
    "1:0",
    "1:2:3",
    "2147483648",
    "root",
    "",
  ),
  secretRequest: kind(
    secretRequest,
    fc.oneof<fc.Arbitrary<SecretRequest>[]>(
      vaultRequest,
      label.map((secret) => ({ kind: "mounted", secret })),
      vaultPath.map((path) => ({ kind: "sealed", path })),
    ),
    "secret",
    "../x",
    "pki/issue/web common_name",
    "pki/issue/web a=1 a=2",
    "pki/issue/web a=1 ?version=2",
    "pki/sign/web -key=dsa",
    "pki/sign/web -key=ec-p256 csr=x",
    "pki/sign/web -key=ec-p256 -key=ec-p256",
    "pki/sign/web -other=1",
    'pki/issue/web a="half',
    'pki/issue/web a="b"c',
    "secret/data/web -wrap-ttl=2h",
    "pki/issue/web -replace-at=30 a=1",
    "pki/issue/web -replace-at=4% a=1",
    "pki/issue/web -replace-at=81% a=1",
    "secret/data/web?version=0",
    "secret/data/web?version=1 a=1",
    "secret/data/web?version=1 -key=ec-p256",
    "secret/data/web?list=true",
    "secret/data/web?version=1&list=true",
    "mounted:",
    "mounted:../web",
    "mounted:web a=1",
    "sealed:",
    "sealed:/etc/web",
    "sealed:a/../../web",
    "",
  ),
  offlineSecrets: kind(
    v.offlineSecrets,
    fc.oneof(
      fc.constant<"never">("never"),
      fc.integer({ min: 1, max: 525_600 }).map((minutes) => minutes * 60_000),
    ),
    "always",
    "1s",
    "",
  ),
  secretFormat: kind(
    secretFormat,
    fc.oneof(
      fc.constantFrom<SecretFormat>({ kind: "json" }, { kind: "env" }, { kind: "pem" }),
      fc.stringMatching(/^[A-Za-z0-9_.-]{1,30}$/).map((field) => ({ kind: "raw" as const, field })),
    ),
    "raw",
    "raw:",
    "yaml",
    "raw:a b",
  ),
};

describe("every kind of value", () => {
  for (const [name, { value, arbitrary, bad }] of Object.entries<Kind<unknown>>(
    KINDS as unknown as Record<string, Kind<unknown>>,
  )) {
    test(`${name}: what is written is read back`, () => {
      fc.assert(
        fc.property(arbitrary, (one) => {
          assert.deepEqual(value.parse(value.format(one)), one);
        }),
      );
    });

    test(`${name}: no text is taken by chance, and what is taken is written in one form`, () => {
      for (const text of [...bad, "\0", "\n"]) assert.equal(value.parse(text), undefined, text);
      fc.assert(
        fc.property(fc.string({ maxLength: 40 }), (text) => {
          const parsed = value.parse(text);
          if (parsed === undefined) return;
          const written = value.format(parsed);
          assert.deepEqual(value.parse(written), parsed);
          assert.equal(value.format(parsed), written);
        }),
      );
    });
  }

  test("is here", () => {
    const notKinds = ["formatDuration", "parseBytes", "formatBytes", "isAppName", "checkTarget"];
    const exported = Object.keys({ ...v, ...health, secretRequest, secretFormat }).filter(
      (name) => !notKinds.includes(name),
    );
    assert.deepEqual(exported.toSorted(), Object.keys(KINDS).toSorted());
  });
});
