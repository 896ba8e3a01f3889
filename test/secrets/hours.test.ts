import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import * as fc from "../support/property.ts";
import { FAILURES_PER_HOUR } from "#core/circuit.ts";
import { requestsPerHour } from "#core/lease.ts";
import { fromEnv } from "#core/settings.ts";
import { SIDECAR_METRICS } from "#core/metrics.ts";
import { createMetrics } from "#core/telemetry.ts";
import type { Http } from "../../sidecar/network/http.ts";
import { openSecretsAgent } from "../../sidecar/secrets/agent.ts";
import type { SecretsAgent } from "../../sidecar/secrets/agent.ts";
import { manualClock } from "../support/clock.ts";
import type { ManualClock } from "../support/clock.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { recordedLog, until } from "../vault/sidecar.ts";

const HOUR = 3_600_000;

interface Scripted {
  readonly status: number;
  readonly body?: object;
  readonly headers?: Readonly<Record<string, string>>;
}
type Script = (path: string) => Scripted | Promise<Scripted>;

/** A Vault without a network, so that hours pass in milliseconds; what it answers is the test's. */
function scriptedVault(clock: ManualClock) {
  const requests: { readonly path: string; readonly at: number }[] = [];
  const state: { script: Script } = { script: healthy };
  const http: Http = {
    async request({ url }) {
      const path = new URL(url).pathname.replace("/v1/", "");
      requests.push({ path, at: clock.monotonic() });
      const scripted = await state.script(path);
      const { status, body = status === 200 ? {} : { errors: [] }, headers = {} } = scripted;
      const bytes = Buffer.from(JSON.stringify(body));
      return {
        status,
        headers,
        body: (async function* () {
          yield bytes;
        })(),
      };
    },
    close: () => undefined,
  };
  return { http, requests, state };
}

let issued = 0;

/** Leases and tokens of one hour that can always be renewed. */
function healthy(path: string): Scripted {
  const hour = { lease_duration: 3_600, renewable: true };
  if (path.startsWith("auth/"))
    return { status: 200, body: { auth: { client_token: "t", accessor: "a", ...hour } } };
  if (path === "sys/leases/renew") return { status: 200, body: { lease_id: "l", ...hour } };
  if (path.startsWith("database/"))
    return { status: 200, body: { lease_id: `${path}/${++issued}`, ...hour, data: { n: issued } } };
  return { status: 200, body: { data: { static: path } } };
}

interface Life extends AsyncDisposable {
  readonly agent: SecretsAgent;
  readonly clock: ManualClock;
  readonly vault: ReturnType<typeof scriptedVault>;
  /** Contents of the published file. */
  file(name: string): Promise<string>;
  /** Lets hours pass; the most requests in one of them, by path. */
  hours(count: number): Promise<ReadonlyMap<string, number>>;
}

const SECRETS = 10;

async function live(): Promise<Life> {
  await using stack = new AsyncDisposableStack();
  const folder = stack.use(await temporaryFolder("/dev/shm"));
  const clock = manualClock();
  const vault = scriptedVault(clock);
  const token = join(folder.path, "token");
  await writeFile(token, "jwt");
  await mkdir(join(folder.path, "volume"));
  const secrets = Array.from({ length: SECRETS }, (_, n) => [
    `EDGESYNC_SECRET_S${n}`,
    JSON.stringify({
      request: n % 2 === 0 ? `database/creds/${n}` : `secret/data/${n}`,
      format: "json",
      file: `s${n}`,
    }),
  ]);
  const agent = await openSecretsAgent({
    settings: fromEnv({
      EDGESYNC_VAULT_ADDRESS: "https://vault.example",
      EDGESYNC_VAULT_ROLE: "web",
      EDGESYNC_TOKEN_FILE: token,
      EDGESYNC_SECRETS_DIR: join(folder.path, "volume"),
      ...(Object.fromEntries(secrets) as Record<string, string>),
    }),
    clock,
    random: Math.random,
    log: recordedLog(),
    metrics: createMetrics(SIDECAR_METRICS, { Counter, Gauge, Histogram }, new Registry()),
    http: vault.http,
  });
  const end = new AbortController();
  const running = agent.run(end.signal);
  stack.defer(async () => {
    end.abort();
    await running;
  });
  await until(() => agent.published(), "published");
  const owned = stack.move();
  return {
    agent,
    clock,
    vault,
    file: (name) => readFile(join(folder.path, "volume", "set", name), "utf8"),
    async hours(count) {
      const most = new Map<string, number>();
      for (let hour = 0; hour < count; hour++) {
        const before = vault.requests.length;
        for (let minute = 0; minute < 60; minute++) {
          await clock.advance(HOUR / 60);
          // Files are read and written in real time: a login reads its token.
          await delay(1);
        }
        const made = Map.groupBy(vault.requests.slice(before), ({ path }) => path);
        for (const [path, list] of made) most.set(path, Math.max(most.get(path) ?? 0, list.length));
      }
      return most;
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

describe("hours with a healthy Vault", () => {
  test("cost one renewal or two for each lease and no new credential", async () => {
    await using life = await live();
    const before = issued;
    const most = await life.hours(12);
    assert.equal(issued, before);
    assert.ok((most.get("sys/leases/renew") ?? 0) <= (SECRETS / 2) * 2);
    assert.ok((most.get("auth/token/renew-self") ?? 0) <= 2);
    assert.equal(most.get("auth/kubernetes/login"), undefined);
    assert.equal(life.agent.expiredSince(), undefined);
  });

  test("are not disturbed by a wall clock that is set a week on, or back", async () => {
    await using life = await live();
    const before = issued;
    for (const days of [7, -14]) {
      life.clock.setWall(life.clock.now() + days * 24 * HOUR);
      const asked = life.vault.requests.length;
      await life.clock.advance(1);
      assert.equal(life.vault.requests.length, asked);
      assert.equal(life.agent.expiredSince(), undefined);
      await life.hours(2);
    }
    assert.equal(issued, before);
    assert.equal(life.agent.expiredSince(), undefined);
  });
});

describe("a static role that is rotated by a schedule", () => {
  test("is read once for each rotation, soon after it, and its file is then the new one", async () => {
    await using life = await live();
    const { clock, vault } = life;
    const path = "secret/data/1";
    const rotations = (): number => Math.floor(clock.monotonic() / HOUR);
    vault.state.script = (asked) => {
      if (asked !== path) return healthy(asked);
      const left = (rotations() + 1) * HOUR - clock.monotonic();
      // As OpenBao and Vault answer it; with a schedule there is no rotation_period.
      const data = {
        password: `p${rotations()}`,
        ttl: Math.ceil(left / 1_000),
        rotation_schedule: "0 * * * *",
        last_vault_rotation: "2037-03-01T00:00:00Z",
      };
      return { status: 200, body: { data } };
    };
    // What was read before the script was another's secret, and is looked at after its interval.
    await life.hours(1);
    await clock.advance(HOUR / 60);
    await until(async () => (await life.file("s1")).includes(`"p${rotations()}"`), "the role");
    for (let turn = 0; turn < 3; turn++) {
      const before = vault.requests.length;
      await clock.advance((rotations() + 1) * HOUR - clock.monotonic());
      await clock.advance(HOUR / 60);
      await until(
        async () => (await life.file("s1")).includes(`"p${rotations()}"`),
        "the password of this hour",
      );
      const asked = vault.requests.slice(before).filter((request) => request.path === path);
      assert.equal(asked.length, 1);
    }
  });
});

describe("the end of a token's life", () => {
  test("moves every lease to the next token, revokes the old ones after an overlap, and then the old token", async () => {
    await using life = await live();
    const before = issued;
    const capped = new Set<string>();
    life.vault.state.script = (path) => {
      if (path !== "auth/token/renew-self" || capped.has(path)) return healthy(path);
      capped.add(path);
      return { status: 200, body: { auth: { lease_duration: 3_000, renewable: true } } };
    };
    const count = (path: string): number =>
      life.vault.requests.filter((request) => request.path === path).length;
    await life.hours(1);
    assert.equal(count("auth/kubernetes/login"), 1);
    await until(async () => {
      // Small steps: what is written meanwhile takes real time.
      await life.clock.advance(10_000);
      return count("auth/token/revoke-self") === 1;
    }, "the end of the old token");
    assert.equal(count("auth/kubernetes/login"), 2);
    assert.equal(issued - before, SECRETS / 2);
    assert.equal(count("sys/leases/revoke"), SECRETS / 2);
    assert.equal(count("auth/token/revoke-self"), 1);
    const at = (path: string): number =>
      life.vault.requests.findLast((request) => request.path === path)?.at ?? 0;
    const replaced = Math.max(...[0, 2, 4, 6, 8].map((n) => at(`database/creds/${n}`)));
    assert.ok(at("sys/leases/revoke") - replaced >= 60_000);
    assert.ok(at("auth/token/revoke-self") >= at("sys/leases/revoke"));
    assert.equal(life.agent.expiredSince(), undefined);
  });
});

describe("a credential that is issued while its token is replaced", () => {
  test("is replaced before the old token ends and takes it along", async () => {
    await using life = await live();
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    let lost = false;
    let held: string | undefined;
    life.vault.state.script = async (path) => {
      // One lease is lost, and the answer with the next one does not come before the next token.
      if (path === "sys/leases/renew" && !lost) {
        lost = true;
        return { status: 400 };
      }
      if (lost && path.startsWith("database/")) {
        held ??= path;
        await released;
      }
      // The token cannot live longer than ten minutes more.
      return path === "auth/token/renew-self"
        ? { status: 200, body: { auth: { lease_duration: 600, renewable: false } } }
        : healthy(path);
    };
    const count = (path: string | undefined): number =>
      life.vault.requests.filter((request) => request.path === path).length;
    await until(async () => {
      await life.clock.advance(30_000);
      return count("auth/kubernetes/login") === 2;
    }, "the next token");
    assert.equal(count(held), 2);
    release();
    const loggedInAt = life.clock.monotonic();
    await until(async () => {
      await life.clock.advance(1_000);
      return count(held) === 3;
    }, "the credential of the next token");
    // A fifth of its ten minutes was left to the old token.
    assert.ok(life.clock.monotonic() - loggedInAt < 120_000);
  });
});

/** All leases are renewed and revoked at one path. */
function sharers(path: string): number {
  return path.startsWith("sys/leases/") ? SECRETS / 2 : 1;
}

/** Anything that a server, or what stands before it, has been seen to say. */
const answer = fc.record({
  status: fc.constantFrom(200, 200, 400, 403, 404, 412, 429, 472, 473, 500, 502, 503, 302),
  seconds: fc.constantFrom(0, 1, 60, 3_600, 1e12, -5, 0.5),
  renewable: fc.boolean(),
  headers: fc.constantFrom<Readonly<Record<string, string>>>(
    {},
    { "retry-after": "7" },
    { "retry-after": "999999999" },
    { "retry-after": "Mon, 23 Nov 2026 04:00:00 GMT", date: "Mon, 23 Nov 2026 03:00:00 GMT" },
    { "retry-after": "soon" },
  ),
});

describe("hours of trouble", () => {
  const refused =
    (status: number): Script =>
    () => ({ status, body: { errors: [] } });
  const renewalsFail: Script = (path) => (/renew/.test(path) ? { status: 500 } : healthy(path));
  const renewalsDenied: Script = (path) => (/renew/.test(path) ? { status: 403 } : healthy(path));
  const renewalsLost: Script = (path) => (/renew/.test(path) ? { status: 400 } : healthy(path));
  const nothingLasts: Script = (path) => {
    const answer = healthy(path);
    const short = { lease_duration: 1, renewable: true };
    const { auth } = (answer.body ?? {}) as { auth?: object };
    return {
      status: 200,
      body: {
        ...answer.body,
        ...short,
        ...(auth === undefined ? {} : { auth: { ...auth, ...short } }),
      },
    };
  };
  for (const [what, script] of [
    ["a sealed Vault", refused(503)],
    ["a Vault that denies everything", refused(403)],
    ["a Vault that has forgotten everything", refused(404)],
    ["a Vault that is too busy", refused(429)],
    ["failing renewals (consul-template #2166)", renewalsFail],
    ["denied renewals (vault #26844)", renewalsDenied],
    ["renewals of leases that are gone", renewalsLost],
    ["leases of one second", nothingLasts],
  ] as const)
    test(`never become a storm: ${what}`, async () => {
      await using life = await live();
      life.vault.state.script = script;
      const most = await life.hours(2);
      const limit = requestsPerHour(300_000);
      for (const [path, count] of most) {
        assert.ok(count <= limit * sharers(path), `${path}: ${count}`);
      }
      assert.equal(life.agent.published(), true);
      life.vault.state.script = healthy;
      await life.hours(1);
      // Its files are read and written in real time, which a busy machine may have too little of.
      await until(() => life.agent.expiredSince() === undefined, "all well again within the hour");
    });

  test("of an outage cost the whole pod no more than a try every few minutes", async () => {
    await using life = await live();
    life.vault.state.script = refused(503);
    await life.hours(1);
    const before = life.vault.requests.length;
    await life.hours(3);
    assert.ok(life.agent.status().vaultFailingSince !== undefined);
    const perHour = (life.vault.requests.length - before) / 3;
    assert.ok(perHour > 5 && perHour < 60, `${perHour}`);
    life.vault.state.script = healthy;
    await life.hours(1);
    assert.equal(life.agent.status().vaultFailingSince, undefined);
  });

  test("never become a storm, for any sequence of answers: the pod's failures stay within their allowance", async () => {
    const seed = 20_261_123;
    const scripts = fc.sample(fc.array(answer, { minLength: 1, maxLength: 40 }), {
      seed,
      numRuns: 4,
    });
    for (const answers of scripts) {
      await using life = await live();
      let turn = 0;
      const failures: number[] = [];
      const failed = new Map<string, boolean>();
      life.vault.state.script = (path) => {
        const { status, seconds, renewable, headers } =
          answers[turn++ % answers.length] ?? assert.fail();
        if (status >= 400 && failed.get(path) === true) failures.push(life.clock.monotonic());
        failed.set(path, status >= 400);
        const terms = { lease_duration: seconds, renewable };
        const { body = {} } = healthy(path);
        const { auth } = body as { auth?: object };
        const given = auth === undefined ? terms : { auth: { ...auth, ...terms } };
        return { status, headers, body: { ...body, ...given } };
      };
      const most = await life.hours(2);
      const limit = requestsPerHour(300_000);
      for (const [path, count] of most)
        assert.ok(
          count <= limit * sharers(path),
          `${path}: ${count} of ${JSON.stringify(answers)}`,
        );
      const worst = Math.max(
        0,
        ...failures.map(
          (at) => failures.filter((other) => other >= at && other < at + HOUR).length,
        ),
      );
      assert.ok(worst <= FAILURES_PER_HOUR, `${worst} failures of ${JSON.stringify(answers)}`);
      assert.equal(life.agent.published(), true);
      life.vault.state.script = healthy;
      await life.hours(1);
      await until(() => life.agent.expiredSince() === undefined, JSON.stringify(answers));
    }
  });

  test("of an outage end the token, which ends its leases: then nothing but a login is asked for", async () => {
    await using life = await live();
    const long = (path: string): Scripted =>
      path.startsWith("database/")
        ? {
            status: 200,
            body: { lease_id: path, lease_duration: 86_400, renewable: true, data: { path } },
          }
        : healthy(path);
    // Leases that outlive their token.
    life.vault.state.script = (path) => (path.includes("renew") ? { status: 400 } : long(path));
    await life.hours(1);
    life.vault.state.script = refused(503);
    await life.hours(2);
    const ended = life.agent.status().secrets.filter(({ state }) => state === "expired");
    assert.equal(ended.length, SECRETS / 2, "by the status as by Vault");
    const most = await life.hours(1);
    assert.deepEqual([...most.keys()], ["auth/kubernetes/login"]);
    life.vault.state.script = healthy;
    await until(async () => {
      // A login reads its token in real time.
      await life.clock.advance(10_000);
      return life.agent.expiredSince() === undefined;
    }, "new credentials");
  });

  test("of an outage end in a reported expiry, and never in a storm of retries", async () => {
    await using life = await live();
    life.vault.state.script = refused(503);
    const most = await life.hours(2);
    assert.ok(life.agent.expiredSince() !== undefined);
    for (const [path, count] of most) assert.ok(count <= 60 * sharers(path), `${path}: ${count}`);
  });
});
