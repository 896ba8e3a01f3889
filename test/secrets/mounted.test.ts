import assert from "node:assert/strict";
import { mkdir, readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { SIDECAR_METRICS } from "#core/metrics.ts";
import { fromEnv } from "#core/settings.ts";
import { createMetrics } from "#core/telemetry.ts";
import { openHttp } from "../../sidecar/network/http.ts";
import { openSecretsAgent } from "../../sidecar/secrets/agent.ts";
import type { SecretsAgent } from "../../sidecar/secrets/agent.ts";
import { realClock } from "../support/real-clock.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { recordedLog, until } from "../vault/sidecar.ts";
import { showVersion } from "./volume.ts";

interface Site extends AsyncDisposable {
  readonly agent: SecretsAgent;
  readonly told: readonly string[];
  /** As the kubelet shows a Secret: a folder for each version, and a link that is moved. */
  mount(version: string, keys: Readonly<Record<string, string | Uint8Array>>): Promise<void>;
  file(name: string): Promise<Buffer>;
  version(): Promise<string>;
}

/** A sidecar that is told of no Vault at all. */
async function site(
  secrets: Readonly<Record<string, object>>,
  keys: Readonly<Record<string, string | Uint8Array>>,
): Promise<Site> {
  await using stack = new AsyncDisposableStack();
  const { path } = stack.use(await temporaryFolder("/dev/shm"));
  const secret = join(path, "mounted", "web");
  const mount: Site["mount"] = (version, contents) => showVersion(secret, version, contents);
  await mount("..v1", keys);
  await mkdir(join(path, "volume"));
  const declared = Object.entries(secrets).map(([name, secret]) => [
    `EDGESYNC_SECRET_${name.toUpperCase()}`,
    JSON.stringify({ request: "mounted:web", format: "json", file: name, ...secret }),
  ]);
  const settings = fromEnv({
    EDGESYNC_SECRETS_DIR: join(path, "volume"),
    EDGESYNC_MOUNTED_DIR: join(path, "mounted"),
    ...Object.fromEntries(declared),
  });
  const log = recordedLog();
  const metrics = createMetrics(SIDECAR_METRICS, { Counter, Gauge, Histogram }, new Registry());
  const http = openHttp({ idleTimeoutMs: 1_000, unavailable: "VAULT_UNAVAILABLE" });
  stack.defer(() => http.close());
  const random = Math.random;
  const agent = await openSecretsAgent({ settings, clock: realClock, random, log, metrics, http });
  const end = new AbortController();
  const running = agent.run(end.signal);
  stack.defer(async () => {
    end.abort();
    await running;
  });
  const set = join(path, "volume", "set");
  const owned = stack.move();
  return {
    agent,
    told: log.lines,
    mount,
    file: (name) => readFile(join(set, name)),
    version: () => readlink(join(set, "..data")),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

describe("a mounted Secret", () => {
  test("is published without a Vault, a token or a login; its keys are fields", async () => {
    const der = Uint8Array.from([0x30, 0x82, 0xff, 0x00]);
    await using pod = await site(
      {
        all: { format: "env" },
        key: { format: "raw:tls.key" },
        store: { format: "raw:store" },
        json: {},
      },
      { "tls.key": "pem", store: der },
    );
    await until(
      () => pod.agent.status().secrets.some(({ code }) => code === "SECRET_INVALID"),
      "a refusal: tls.key is no name of a variable",
    );
    assert.equal(pod.agent.published(), false);
    assert.ok(!pod.told.join("\n").includes("tls.key"));
  });

  test("keeps bytes that are no text, and shows them in JSON as Kubernetes does", async () => {
    const der = Uint8Array.from([0x30, 0x82, 0xff, 0x00]);
    await using pod = await site(
      { store: { format: "raw:store" }, json: {} },
      { store: der, a: "ä" },
    );
    await until(() => pod.agent.published(), "published");
    assert.deepEqual(new Uint8Array(await pod.file("store")), der);
    assert.deepEqual(JSON.parse((await pod.file("json")).toString()), {
      a: "ä",
      store: "MIL/AA==",
    });
    assert.equal(pod.agent.status().loggedIn, false);
    assert.equal(pod.agent.status().code, undefined);
    await pod.agent.revoke(AbortSignal.timeout(1_000));
  });

  test("is followed when the kubelet shows another version, all keys at once", async () => {
    await using pod = await site(
      { user: { format: "raw:user" }, password: { format: "raw:password" } },
      { user: "u1", password: "p1" },
    );
    await until(() => pod.agent.published(), "published");
    const first = await pod.version();
    await pod.mount("..v2", { user: "u2", password: "p2" });
    await until(async () => (await pod.version()) !== first, "the next version");
    assert.equal((await pod.file("user")).toString(), "u2");
    assert.equal((await pod.file("password")).toString(), "p2");
    assert.equal(pod.agent.status().rotations, 1);
  });

  test("that loses a key says so, and what is published stays", async () => {
    await using pod = await site({ user: { format: "raw:user" } }, { user: "u1" });
    await until(() => pod.agent.published(), "published");
    await pod.mount("..v2", { other: "u2" });
    await until(() => pod.agent.status().secrets[0]?.code === "SECRET_INVALID", "the code");
    assert.equal((await pod.file("user")).toString(), "u1");
    await pod.mount("..v3", { user: "u3" });
    await until(async () => (await pod.file("user")).toString() === "u3", "the repair");
    assert.equal(pod.agent.status().secrets[0]?.code, undefined);
  });
});
