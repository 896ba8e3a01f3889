import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { camel, parseAnnotations } from "#core/pod-options.ts";
import type { AppProbes, Probe } from "#core/probe.ts";
import {
  fromEnv,
  payloadSettings,
  SETTINGS_VERSION,
  settingRows,
  toEnv,
  VARIABLE_LIMIT,
  variableOf,
} from "#core/settings.ts";
import type { Settings } from "#core/settings.ts";
import { prefixed } from "../support/inject.ts";

const count = fc.integer({ min: 1, max: 2_147_483_647 });
const ms = fc.integer({ min: 0, max: 2_147_483_647 });
const port = fc.integer({ min: 1, max: 65535 });
const plain = { noNullPrototype: true } as const;

const probe: fc.Arbitrary<Probe> = fc.record(
  {
    handler: fc.oneof(
      fc.record(
        {
          kind: fc.constant("http" as const),
          scheme: fc.constantFrom("http" as const, "https" as const),
          port,
          path: fc.string({ unit: "grapheme" }),
          headers: fc.array(fc.tuple(fc.string(), fc.string()), { maxLength: 2 }),
        },
        plain,
      ),
      fc.record({ kind: fc.constant("tcp" as const), port }, plain),
      fc.record({ kind: fc.constant("grpc" as const), port, service: fc.string() }, plain),
    ),
    initialDelayMs: ms,
    periodMs: ms,
    timeoutMs: ms,
    successThreshold: count,
    failureThreshold: count,
  },
  plain,
);

const app: fc.Arbitrary<AppProbes> = fc.record(
  {
    container: fc.string(),
    startupWindow: fc.record({ periodMs: ms, failureThreshold: count }, plain),
    startup: probe,
    liveness: probe,
    readiness: probe,
  },
  { requiredKeys: ["container", "startupWindow"], ...plain },
);

const secretName = fc.stringMatching(/^[a-z0-9]([-a-z0-9]{0,10}[a-z0-9])?$/);

/** Annotations of which each is valid by itself. */
const annotations = fc
  .record(
    {
      channel: fc.constantFrom("web/stable", "detector/edge-2"),
      repository: fc.constantFrom("https://r.example", "oci://r.example:8443/a/b"),
      "repository-mirrors": fc.constantFrom(
        "https://m.example",
        "https://m.example/a,oci://n.example/b",
      ),
      "payload-size": fc.constantFrom("1Mi", "3000000", "16Ti"),
      "payload-reserve": fc.constantFrom("0", "64Mi", "1Ti"),
      "payload-seed": fc.constantFrom("image", "image/usr/share/model.d"),
      "poll-interval": fc.constantFrom("1s", "15m", "1h30m", "168h"),
      "full-fallback": fc.constantFrom("never", "always", "1", "20Mi"),
      "on-update": fc.constantFrom("restart", "none", "http:1/x", "signal:HUP:web"),
      "hook.pre-swap": fc.constantFrom("http:8080/hooks/pre-swap"),
      "hook.health": fc.constantFrom("http:1/"),
      "hold-limit": fc.constantFrom("1m", "24h"),
      health: fc.constantFrom("probe", "none", "tcp:80", "http:80/x?y=z"),
      "trial-starts": fc.constantFrom("1", "2", "10"),
      "swap-spread": fc.constantFrom("0s", "10m", "24h"),
      gate: fc.constantFrom("none", "payload", "secrets", "payload,secrets"),
      "vault-role": fc.constantFrom("web", "team-a/web"),
      "vault-auth": fc.constantFrom("kubernetes", "jwt", "cert", "approle"),
      "vault-server-name": fc.constantFrom("vault.example", "vault"),
      "vault-proxy": fc.constantFrom("never", "environment"),
      "vault-namespace": fc.constantFrom("a", "a/b"),
      "tls-clock-skew": fc.constantFrom("0s", "10m", "720h"),
      "ready-grace": fc.constantFrom("0s", "8760h"),
      "log-level": fc.constantFrom("debug", "info"),
    },
    { requiredKeys: [], ...plain },
  )
  .chain((fixed) =>
    fc
      .dictionary(
        secretName,
        fc.oneof(
          fc.record(
            {
              secret: fc.constantFrom("a/b", "pki/issue/x common_name=$(X) ttl=1h"),
              format: fc.constantFrom("json", "env", "raw:f", "pkcs12:none", "pkcs12:field:f"),
              mode: fc.constantFrom("0400", "0775"),
            },
            { requiredKeys: ["secret"], ...plain },
          ),
          fc.record(
            { template: fc.constantFrom("{{ $(X) }}", "configmap:web/a.tpl", "configmap:a.b/_") },
            plain,
          ),
        ),
        { maxKeys: 3, ...plain },
      )
      .map((secrets): Readonly<Record<string, string>> => {
        const families = Object.entries(secrets).flatMap(([name, parts]) =>
          Object.entries(parts).map(([family, value]) => [`${family}.${name}`, value] as const),
        );
        return { ...fixed, ...Object.fromEntries(families) };
      }),
  );

const path = fc.option(fc.stringMatching(/^\/[a-z./-]{1,30}$/), { nil: undefined });
const shortText = fc.option(fc.stringMatching(/^[\x21-\x7e]{1,30}$/), { nil: undefined });

const flatSettings: fc.Arbitrary<Settings> = fc
  .record(
    {
      annotations,
      podName: shortText,
      podNamespace: shortText,
      podUid: shortText,
      nodeName: shortText,
      payloadDir: path,
      payloadLinkDir: path,
      secretsDir: path,
      mountedDir: path,
      templatesDir: path,
      trustRootFile: path,
      repositoryCaFile: path,
      repositoryCredentialsDir: path,
      importDir: path,
      holdDir: path,
      seedDir: path,
      ephemeralStorage: fc.option(fc.integer({ min: 1, max: 2 ** 44 }), { nil: undefined }),
      vaultCaFile: path,
      vaultTlsDir: path,
      vaultApproleDir: path,
      tokenFile: path,
      offlineKeyDir: path,
      sealedKeyDir: path,
      workload: shortText,
      secretsMode: fc.constantFrom(0o440, 0o444),
      port,
      app: fc.array(app, { maxLength: 3 }),
      listenAddress: fc.constantFrom(undefined, "127.0.0.1", "::1"),
      workloadContainers: fc.constantFrom(undefined, ["web"], ["web", "logs"]),
      rotateContainers: fc.constantFrom(undefined, ["web"], ["web", "logs"]),
      secretsPorts: fc.constantFrom(undefined, [], [8080], [80, 65_535]),
      podNetwork: fc.constantFrom("own" as const, "shared" as const),
    },
    plain,
  )
  .map(({ annotations, ...added }) => {
    const options: Readonly<Record<string, unknown>> = parseAnnotations(prefixed(annotations));
    // Only what travels: the rest of the options is the webhook's.
    const keys = new Set<string>(settingRows().map(([key]) => camel(key)));
    const sent = Object.entries(options).filter(([key]) => keys.has(key) || key === "secrets");
    return {
      ...Object.fromEntries(sent),
      settingsVersion: SETTINGS_VERSION,
      ...added,
      payloads: [],
    } as unknown as Settings;
  });

const settings: fc.Arbitrary<Settings> = fc
  .tuple(
    flatSettings,
    fc.uniqueArray(
      fc.tuple(fc.constantFrom("models", "rules", "a-1", "constructor"), flatSettings),
      { selector: ([name]) => name, maxLength: 3 },
    ),
  )
  .map(([main, others]) => ({
    ...main,
    payloads: others.map(([name, all]) => payloadSettings(name, all, main)),
  }));

describe("the settings", () => {
  test("come out of the environment as they went in", () => {
    fc.assert(
      fc.property(settings, (before) => {
        assert.deepEqual(fromEnv(toEnv(before)), before);
      }),
      { numRuns: 300 },
    );
  });

  test("come out the same beside variables that are not ours", () => {
    fc.assert(
      fc.property(settings, (before) => {
        const env = {
          ...toEnv(before),
          PATH: "/bin",
          EDGESYNC: "x",
          EDGESYNC_SERVICE_HOST: "10.0.0.1",
        };
        assert.deepEqual(fromEnv(env), before);
      }),
      { numRuns: 50 },
    );
  });

  test("are told from what Kubernetes says of a Service whose name begins like a secret's variable", () => {
    const secret = JSON.stringify({ request: "database/creds/web", format: "json", file: "db" });
    const env = {
      EDGESYNC_SECRET_SERVICE_HOST: "10.0.0.1",
      EDGESYNC_SECRET_SERVICE_PORT: "80",
      EDGESYNC_SECRET_SERVICE_PORT_WEB: "80",
      EDGESYNC_SECRET_PORT: "tcp://10.0.0.1:80",
      EDGESYNC_SECRET_PORT_80_TCP: "tcp://10.0.0.1:80",
      EDGESYNC_SECRET_PORT_80_TCP_PROTO: "tcp",
      EDGESYNC_SECRET_PORT_80_TCP_PORT: "80",
      EDGESYNC_SECRET_PORT_80_TCP_ADDR: "10.0.0.1",
      EDGESYNC_SECRET_DB_PORT: secret,
    };
    assert.deepEqual(
      fromEnv(env).secrets.map(({ name }) => name),
      ["db-port"],
    );
  });

  test("state version and port even at their defaults", () => {
    const env = toEnv(fromEnv({}));
    assert.deepEqual(env, { EDGESYNC_SETTINGS_VERSION: "1", EDGESYNC_PORT: "19465" });
  });

  test("of a newer webhook are refused, and so is everything else that is wrong, at once", () => {
    const env = {
      EDGESYNC_SETTINGS_VERSION: "3",
      EDGESYNC_PORT: "tcp://10.0.0.1:80",
      EDGESYNC_APP: "[{}]",
      EDGESYNC_POLL_INTERVAL: "soon",
      EDGESYNC_SECRET_DB: "{}",
      EDGESYNC_SECRET_X: "not JSON",
      EDGESYNC_PAYLOADS: '{"models":{"poll-interval":"soon","port":"1"},"main":{},"x":1}',
    };
    assert.throws(
      () => fromEnv(env),
      (error: { code?: string; message?: string }) => {
        assert.equal(error.code, "CONFIG_INVALID");
        for (const variable of Object.keys(env))
          assert.ok(error.message?.includes(variable), variable);
        for (const part of ["(models, poll-interval)", '"port"', '"main"', '"x"'])
          assert.ok(error.message?.includes(part), part);
        return true;
      },
    );
  });

  test("are refused when one is too large for a variable, with its key and the limit", () => {
    const request = `a/b ${Array.from({ length: 130 }, (_, i) => `k${i}=${"x".repeat(1020)}`).join(" ")}`;
    const options = parseAnnotations(prefixed({ "secret.big": request }));
    const all = { ...fromEnv({}), secrets: options.secrets };
    assert.throws(
      () => toEnv(all),
      (error: { code?: string; message?: string }) => {
        assert.equal(error.code, "ANNOTATION_INVALID");
        assert.match(error.message ?? "", new RegExp(`secret\\.big.*${VARIABLE_LIMIT}`));
        return true;
      },
    );
  });

  test("have a variable of their own each, in the form that shells take", () => {
    for (const [key] of settingRows()) assert.match(variableOf(key), /^EDGESYNC_[A-Z]+(_[A-Z]+)*$/);
  });

  for (const [key, row] of settingRows())
    test(`describe ${key} in a sentence, and its default is one that is taken`, () => {
      assert.match(row.help, /^[A-Z][^\n]*\.$/);
      if (row.default !== undefined) assert.notEqual(row.value.parse(row.default), undefined);
    });
});
