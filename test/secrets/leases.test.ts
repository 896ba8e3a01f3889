import assert from "node:assert/strict";
import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { SIDECAR_METRICS } from "#core/metrics.ts";
import { createMetrics } from "#core/telemetry.ts";
import type { Http } from "../../sidecar/network/http.ts";
import { openSecretsAgent } from "../../sidecar/secrets/agent.ts";
import { manualClock } from "../support/clock.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { recordedLog, until } from "../vault/sidecar.ts";
import { declaredIn } from "./support/declared.ts";

/** A Vault whose time is the test's: by path, how long what it issues lasts, and what it answers instead. */
interface Script {
  readonly leaseSeconds: number;
  readonly failing?: { readonly path: RegExp; readonly status: number };
}

const TOKEN_SECONDS = 10_000;

async function open(script: Script, secrets: readonly string[] = ["database/creds/web"]) {
  await using stack = new AsyncDisposableStack();
  const { path: folder } = stack.use(await temporaryFolder("/dev/shm"));
  const clock = manualClock();
  const made: { readonly path: string; readonly at: number; readonly lease: unknown }[] = [];
  const state = { script };
  const lives: (() => Promise<void>)[] = [];
  stack.defer(async () => void (await Promise.all(lives.map((stop) => stop()))));
  const http: Http = {
    request({ url, body }) {
      const path = new URL(url).pathname.replace("/v1/", "");
      const sent = body === undefined ? {} : (JSON.parse(body.toString()) as object);
      made.push({
        path,
        at: clock.monotonic(),
        lease: "lease_id" in sent ? sent.lease_id : undefined,
      });
      const { leaseSeconds, failing } = state.script;
      const isToken = path.startsWith("auth/");
      const lasts = {
        lease_duration: isToken ? TOKEN_SECONDS : leaseSeconds,
        renewable: true,
      };
      const answer = isToken
        ? { auth: { client_token: `t${made.length}`, accessor: "a", ...lasts } }
        : { lease_id: `${path}/${made.length}`, ...lasts, data: { n: made.length } };
      const status = failing?.path.test(path) === true ? failing.status : 200;
      const bytes = Buffer.from(JSON.stringify(status === 200 ? answer : { errors: [] }));
      return Promise.resolve({
        status,
        headers: {},
        body: (async function* () {
          yield bytes;
        })(),
      });
    },
    close: () => undefined,
  };
  await writeFile(join(folder, "token"), "jwt");
  await mkdir(join(folder, "volume"));
  const start = async (requests: readonly string[]) => {
    const declared = Object.fromEntries(
      requests.map((request) => [request.slice(request.lastIndexOf("/") + 1), request]),
    );
    const agent = await openSecretsAgent({
      settings: declaredIn(folder, declared),
      clock,
      random: () => 0.5,
      log: recordedLog(),
      metrics: createMetrics(SIDECAR_METRICS, { Counter, Gauge, Histogram }, new Registry()),
      http,
    });
    const end = new AbortController();
    const running = agent.run(end.signal);
    const stop = async (): Promise<void> => {
      end.abort();
      await running;
    };
    lives.push(stop);
    await until(() => agent.published(), "published");
    return { agent, stop };
  };
  const first = await start(secrets);
  const owned = stack.move();
  return {
    ...first,
    clock,
    made,
    state,
    start,
    folder,
    count: (path: RegExp) => made.filter((request) => path.test(request.path)).length,
    /** Lets seconds pass; files are written in real time. */
    async pass(seconds: number, step = 10) {
      for (let passed = 0; passed < seconds; passed += step) {
        await clock.advance(step * 1_000);
        await delay(1);
      }
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

describe("a lease of no seconds", () => {
  test("is no expired one, and is asked for anew at the refresh interval, not in a storm", async () => {
    await using life = await open({ leaseSeconds: 0 });
    assert.equal(life.agent.expiredSince(), undefined);
    await life.pass(3_600);
    const asked = life.count(/creds/);
    assert.ok(asked >= 10 && asked <= 15, `${asked} in an hour at an interval of 5 m`);
    assert.equal(life.agent.expiredSince(), undefined);
    await until(async () => {
      await life.pass(10);
      return life.count(/leases\/revoke/) >= asked - 3;
    }, "what was followed is given back");
  });
});

describe("a renewal of the token that fails with 500, as with a certificate that the role no longer takes", () => {
  test("is tried again until 95 % of the token are over; then there is one new login", async () => {
    await using life = await open({
      leaseSeconds: 100_000,
      failing: { path: /renew-self/, status: 500 },
    });
    await life.pass(0.94 * TOKEN_SECONDS, 50);
    assert.equal(life.count(/login/), 1);
    const renewals = life.count(/renew-self/);
    assert.ok(renewals >= 3 && renewals <= 60, `${renewals} renewals`);
    await life.pass(0.02 * TOKEN_SECONDS);
    await until(async () => {
      await life.pass(1, 1);
      return life.count(/login/) === 2;
    }, "the new login");
    await life.pass(0.2 * TOKEN_SECONDS, 50);
    assert.equal(life.count(/login/), 2);
  });
});

describe("the revocation of an old lease", () => {
  test("that fails is tried again, with pauses, until the lease has ended", async () => {
    // Its renewals are denied, so it is followed when 80 to 90 % of what is left are over: at 93 250 s.
    const denied = { path: /leases\/renew/, status: 403 };
    await using life = await open({ leaseSeconds: 100_000, failing: denied });
    await life.pass(93_000, 500);
    assert.equal(life.count(/creds/), 1);
    const failing = { path: /leases\/revoke/, status: 500 };
    life.state.script = { leaseSeconds: 1_000_000, failing };
    await life.pass(7_500, 20);
    assert.equal(life.count(/creds/), 2);
    const tries = life.made.filter(({ path }) => path === "sys/leases/revoke");
    assert.ok(tries.length >= 2 && tries.length <= 60, `${tries.length} tries`);
    assert.ok((tries.at(-1)?.at ?? 0) <= 100_000_000, "none after its end");
    await life.pass(5_000, 100);
    assert.equal(life.count(/leases\/revoke/), tries.length);
  });

  test("that is not allowed is not tried again", async () => {
    const denied = { path: /leases\//, status: 403 };
    await using life = await open({ leaseSeconds: 100_000, failing: denied });
    await life.pass(93_000, 500);
    await life.pass(7_500, 50);
    assert.equal(life.count(/leases\/revoke/), 1);
    assert.equal(life.count(/creds/), 2);
  });
});

describe("a secret that is declared no more", () => {
  test("leaves the set, and its lease is given back after the overlap", async () => {
    const both = ["database/creds/web", "database/creds/old"];
    await using life = await open({ leaseSeconds: 100_000 }, both);
    assert.deepEqual(await shown(life.folder), ["old", "web"]);
    await life.stop();
    const lost = await life.start(both.slice(0, 1));
    await until(async () => (await shown(life.folder)).length === 1, "the set without it");
    assert.deepEqual(await shown(life.folder), ["web"]);
    const given = (): readonly unknown[] =>
      life.made.filter(({ path }) => path === "sys/leases/revoke").map(({ lease }) => lease);
    assert.deepEqual(given(), []);
    await until(async () => {
      await life.pass(10);
      return given().length > 0;
    }, "the revocation");
    assert.match(String(given()), /^database\/creds\/old\//);
    assert.equal(lost.agent.published(), true);
  });
});

async function shown(folder: string): Promise<readonly string[]> {
  const names = await readdir(join(folder, "volume", "set"));
  return names.filter((name) => !name.startsWith("..")).toSorted();
}
