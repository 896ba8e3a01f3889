import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { SIDECAR_METRICS } from "#core/metrics.ts";
import { fromEnv } from "#core/settings.ts";
import { createMetrics } from "#core/telemetry.ts";
import { openClients } from "../../sidecar/clients.ts";
import type { Clients } from "../../sidecar/clients.ts";
import { openProxies } from "../../sidecar/network/proxy.ts";
import { EXPIRED, authoritiesOf, chainOf, identityOf } from "../network/world.ts";
import type { Shape } from "../network/world.ts";
import { openForwardProxy } from "../support/forward-proxy.ts";
import { realClock } from "../support/real-clock.ts";
import { httpServer } from "../support/server.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { recordedLog } from "../vault/sidecar.ts";

const forever = new AbortController().signal;

interface Opened extends AsyncDisposable {
  readonly clients: Clients;
  readonly port: number;
  readonly ca: string;
  readonly log: readonly string[];
  scrape(): Promise<string>;
}

/** The clients of a sidecar with some settings more, and a server with a certificate of `shape`. */
async function opened(
  shape: Shape,
  more: Readonly<Record<string, string>> = {},
  proxies = openProxies({}),
): Promise<Opened> {
  await using stack = new AsyncDisposableStack();
  const { path } = stack.use(await temporaryFolder());
  const chain = chainOf("ec", shape);
  const ca = join(path, "ca.crt");
  await writeFile(ca, authoritiesOf(chain));
  const identity = identityOf(chainOf("ec", {}));
  const folder = join(path, "login");
  await mkdir(folder);
  await writeFile(join(folder, "tls.crt"), identity.cert);
  await writeFile(join(folder, "tls.key"), identity.key);
  const server = stack.use(await httpServer((_, answer) => answer.end("ok"), identityOf(chain)));
  const settings = fromEnv({
    EDGESYNC_VAULT_CA_FILE: ca,
    EDGESYNC_REPOSITORY_CA_FILE: ca,
    EDGESYNC_VAULT_TLS_DIR: folder,
    ...more,
  });
  const log = recordedLog();
  const registry = new Registry();
  const metrics = createMetrics(SIDECAR_METRICS, { Counter, Gauge, Histogram }, registry);
  const clients = openClients(settings, proxies, { clock: realClock, log, metrics });
  stack.defer(() => clients.close());
  const owned = stack.move();
  return {
    clients,
    port: server.port,
    ca,
    log: log.lines,
    scrape: () => registry.metrics(),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

async function ask({ clients, port, ca }: Opened, server: "vault" | "repository"): Promise<number> {
  const client = server === "vault" ? clients.vault : clients.repository({ repositoryCaFile: ca });
  const url = `https://localhost:${port}/`;
  const response = await client.request({ method: "GET", url }, forever);
  for await (const _ of response.body);
  return response.status;
}

describe("a certificate that only the clock puts out of its time", () => {
  test("is counted, logged and shown when it is accepted", async () => {
    await using one = await opened({ leaf: EXPIRED });
    assert.equal(await ask(one, "vault"), 200);
    const [view, ...others] = one.clients.skews();
    assert.deepEqual(others, []);
    assert.equal(view?.server, "vault");
    assert.ok(view.seconds < -1_700 && view.seconds > -1_900, String(view.seconds));
    const text = await one.scrape();
    assert.match(text, /edgesync_sidecar_clock_skew_accepted_total\{server="vault"\} 1\n/);
    assert.match(text, /edgesync_sidecar_clock_skew_seconds\{server="vault"\} -1[78]\d\d\n/);
    assert.equal(one.log.filter((line) => line.includes("out of its time")).length, 1);
  });

  test("is accepted of a repository too", async () => {
    await using one = await opened({ middle: EXPIRED });
    assert.equal(await ask(one, "repository"), 200);
    assert.deepEqual(
      one.clients.skews().map(({ server }) => server),
      ["repository"],
    );
  });

  test("is refused with tls-clock-skew 0s, and nothing is counted", async () => {
    await using one = await opened({ leaf: EXPIRED }, { EDGESYNC_TLS_CLOCK_SKEW: "0s" });
    await assert.rejects(ask(one, "vault"), { code: "TLS_UNTRUSTED" });
    assert.deepEqual(one.clients.skews(), []);
    assert.doesNotMatch(await one.scrape(), /clock_skew_accepted_total\{/);
  });
});

describe("the client of Vault", () => {
  test("asks for the name that vault-server-name says", async () => {
    const shape = { leaf: { names: ["vault.example"] } };
    await using named = await opened(shape, { EDGESYNC_VAULT_SERVER_NAME: "vault.example" });
    assert.equal(await ask(named, "vault"), 200);
    await using plain = await opened(shape);
    await assert.rejects(ask(plain, "vault"), { code: "TLS_UNTRUSTED" });
  });

  test("goes through a proxy where vault-proxy says so, and only there", async () => {
    await using proxy = await openForwardProxy();
    const proxies = openProxies({ HTTPS_PROXY: `http://127.0.0.1:${proxy.port}` });
    await using past = await opened({}, {}, proxies);
    assert.equal(await ask(past, "vault"), 200);
    assert.deepEqual(proxy.asked, []);
    await using through = await opened({}, { EDGESYNC_VAULT_PROXY: "environment" }, proxies);
    assert.equal(await ask(through, "vault"), 200);
    assert.deepEqual(proxy.asked, [`CONNECT localhost:${through.port}`]);
  });
});
