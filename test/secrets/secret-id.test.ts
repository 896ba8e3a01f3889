import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, beforeEach, describe, test } from "node:test";
import { openSecretIds } from "../../sidecar/secrets/secret-id.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { savedState, startSidecar, until } from "../vault/sidecar.ts";
import type { Sidecar, SidecarOptions } from "../vault/sidecar.ts";
import { openWorld } from "../vault/world.ts";
import type { World } from "../vault/world.ts";

/** Logins by AppRole with a secret_id that is delivered wrapped, against the embedded Vault, whose requests can be counted. */
let world: World;
before(async () => {
  world = await openWorld({ embedded: true });
});
after(() => world[Symbol.asyncDispose]());
beforeEach(async () => {
  control().faults();
  await world.configure("POST", `${world.names.kv}/data/web/db`, { data: { value: "1" } });
});

function control() {
  const { embedded } = world;
  assert.ok(embedded !== undefined);
  return embedded.control;
}

function count(pattern: RegExp): number {
  return control().requests.filter((line) => pattern.test(line)).length;
}

const secretIds = (): string => `auth/${world.names.approle}/role/web/secret-id`;

interface Pod extends AsyncDisposable {
  readonly folder: string;
  /** What the Secret holds from now on. */
  deliver(secretId: string): Promise<void>;
  start(more?: Partial<SidecarOptions>): Promise<Sidecar>;
}

async function pod(): Promise<Pod> {
  const temporary = await temporaryFolder("/dev/shm");
  const folder = temporary.path;
  const approle = join(folder, "approle");
  await mkdir(approle);
  await writeFile(join(approle, "role_id"), (await world.approle()).role_id);
  return {
    folder,
    deliver: (secretId) => writeFile(join(approle, "secret_id"), secretId),
    start: (more = {}) =>
      startSidecar(world, {
        auth: "approle",
        folder,
        secrets: { db: { request: `${world.names.kv}/data/web/db`, format: "raw:value" } },
        ...more,
        environment: { EDGESYNC_VAULT_APPROLE_DIR: approle, ...more.environment },
      }),
    [Symbol.asyncDispose]: () => temporary[Symbol.asyncDispose](),
  };
}

async function loseToken(sidecar: Sidecar): Promise<void> {
  const { accessor } = (await savedState(sidecar.folder)).token;
  await world.configure("POST", "auth/token/revoke-accessor", { accessor });
}

describe("a secret_id that came wrapped", () => {
  test("is unwrapped once, and serves the logins of a restarted sidecar too", async () => {
    await using web = await pod();
    await web.deliver(await world.wrapped(secretIds()));
    const [unwraps, logins] = [count(/wrapping\/unwrap$/), count(/approle\/login$/)];
    await using first = await web.start();
    await until(() => first.agent.published(), "published");
    await first.stop();
    await loseToken(first);
    await using second = await web.start({ refreshInterval: "1s" });
    await until(() => count(/approle\/login$/) === logins + 2, "the second login");
    await until(() => second.agent.status().loggedIn, "the token");
    assert.equal(count(/wrapping\/unwrap$/), unwraps + 1);
  });

  test("is saved before the login, in memory and for the sidecar alone, and told nowhere", async () => {
    await using web = await pod();
    const text = await world.wrapped(secretIds());
    await web.deliver(text);
    control().faults({ path: /approle\/login$/, status: 503 });
    await using first = await web.start();
    await until(() => first.agent.status().code === "VAULT_UNAVAILABLE", "the reason");
    await first.stop();
    control().faults();
    const state = await readFile(join(web.folder, "volume", "state", "state.json"), "utf8");
    const { secretId } = JSON.parse(state) as { secretId: { secretId: string } };
    const { token } = (JSON.parse(text) as { wrap_info: { token: string } }).wrap_info;
    assert.ok(!state.includes(token));
    await using second = await web.start();
    await until(() => second.agent.published(), "published");
    const told = [
      ...first.log.lines,
      ...second.log.lines,
      JSON.stringify([first.agent.status(), second.agent.status()]),
      await second.registry.metrics(),
    ].join("\n");
    for (const secret of [secretId.secretId, token])
      assert.ok(!told.includes(secret), "a secret was told");
  });

  test("that somebody else took first is missed, and said to be", async () => {
    await using web = await pod();
    const text = await world.wrapped(secretIds());
    const { token } = (JSON.parse(text) as { wrap_info: { token: string } }).wrap_info;
    await world.call("POST", "sys/wrapping/unwrap", {}, token);
    await web.deliver(text);
    const unwraps = count(/wrapping\/unwrap$/);
    await using sidecar = await web.start();
    await until(() => sidecar.agent.status().code === "SECRET_INVALID", "the reason");
    assert.match(sidecar.log.lines.join("\n"), /unwrapped before.*somebody else may have it/);
    assert.equal(count(/wrapping\/unwrap$/), unwraps);
    assert.equal(sidecar.agent.published(), false);
  });

  test("of which the answer is lost on the way is not taken for one that is still to be had", async () => {
    await using web = await pod();
    await web.deliver(await world.wrapped(secretIds()));
    control().faults({ path: /wrapping\/unwrap$/, dropAnswer: true });
    await using sidecar = await web.start({ random: () => 0 });
    await until(() => sidecar.agent.status().code === "SECRET_INVALID", "the reason", 20_000);
    control().faults();
    assert.match(sidecar.log.lines.join("\n"), /Unless this sidecar took it and lost it since/);
  });

  test("that is spent after a reboot does not end the sealed set with which the application was started", async () => {
    await using web = await pod();
    const [payload, key] = [join(web.folder, "payload"), join(web.folder, "key")];
    for (const folder of [payload, key]) await mkdir(folder);
    await writeFile(join(key, "key"), randomBytes(32).toString("base64"));
    await web.deliver(await world.wrapped(secretIds()));
    const environment = {
      EDGESYNC_CHANNEL: "web/stable",
      EDGESYNC_REPOSITORY: "https://releases.example",
      EDGESYNC_POD_NAMESPACE: "shop",
      EDGESYNC_WORKLOAD: "Deployment/web,ServiceAccount/web",
      EDGESYNC_PAYLOAD_DIR: payload,
      EDGESYNC_OFFLINE_SECRETS: "24h",
      EDGESYNC_OFFLINE_KEY_DIR: key,
    };
    await using first = await web.start({ environment });
    await until(() => first.agent.status().sealed?.sealedAt !== undefined, "sealed");
    await first.stop();
    await rm(join(web.folder, "volume"), { recursive: true });
    for (const status of [400, 403]) {
      control().faults({ path: /wrapping\/lookup$/, status: 503 });
      await using second = await web.start({ environment, random: () => 0 });
      await until(() => second.agent.published(), "published from the sealed set");
      control().faults({ path: /wrapping\/lookup$/, status });
      await until(() => second.agent.status().code === "SECRET_INVALID", "the reason", 20_000);
      assert.equal(await second.file("db"), "1");
      assert.equal(second.agent.published(), true);
      assert.equal(second.agent.status().sealed?.refused, undefined);
      await second.stop();
      await rm(join(web.folder, "volume"), { recursive: true });
    }
  });

  test("must be one of the role: what else was wrapped is left alone", async () => {
    await world.configure("POST", `auth/${world.names.approle}/role/other`, {});
    for (const path of [
      `auth/${world.names.approle}/role/other/secret-id`,
      `${world.names.plain}/${secretIds()}`,
      "auth/token/create",
    ]) {
      await using web = await pod();
      const { wrap_info: wrapped } = JSON.parse(await world.wrapped(path)) as {
        wrap_info: { token: string };
      };
      // What the file says of where it is from is no proof.
      const claimed = { wrap_info: { token: wrapped.token, creation_path: secretIds() } };
      await web.deliver(JSON.stringify(claimed));
      const unwraps = count(/wrapping\/unwrap$/);
      await using sidecar = await web.start();
      await until(() => sidecar.agent.status().code === "SECRET_INVALID", path);
      assert.equal(count(/wrapping\/unwrap$/), unwraps, path);
    }
  });

  test("may be told with its namespace in front, and with nothing else", async () => {
    const at = "auth/approle/role/web/secret-id";
    for (const [path, namespace, isOwn] of [
      [at, undefined, true],
      [at, "team-a", true],
      [`team-a/${at}`, "team-a/", true],
      [`a/b/${at}`, "a/b", true],
      ["auth/approle/role/web/custom-secret-id", undefined, true],
      [`team-b/${at}`, "team-a", false],
      [`kv/${at}`, undefined, false],
      [`team-a/kv/${at}`, "team-a", false],
      [`${at}/lookup`, undefined, false],
      ["auth/approle/role/web/role-id", undefined, false],
      ["auth/approle/role/web2/secret-id", undefined, false],
      ["auth/approle2/role/web/secret-id", undefined, false],
      ["auth/approle/role/../role/web/secret-id", undefined, false],
    ] as const) {
      const sent: string[] = [];
      const ids = openSecretIds(undefined, () => Promise.resolve());
      const from = ids.from(
        JSON.stringify({ wrap_info: { token: "hvs.wrapping" } }),
        { mount: "approle", role: "web", namespace },
        (_method, asked) => {
          sent.push(asked);
          const data = asked.endsWith("lookup") ? { creation_path: path } : { secret_id: "s" };
          return Promise.resolve({ body: JSON.stringify({ data }), headers: {} });
        },
        AbortSignal.timeout(10_000),
      );
      if (isOwn) assert.equal(await from, "s", path);
      else await assert.rejects(from, { code: "SECRET_INVALID" }, path);
      assert.equal(sent.length, isOwn ? 2 : 1, path);
    }
  });

  test("serves the login also where it cannot be saved, and is saved as soon as it can be", async () => {
    await using web = await pod();
    await web.deliver(await world.wrapped(secretIds()));
    const state = join(web.folder, "volume", "state", "state.json");
    await mkdir(join(state, "in-the-way"), { recursive: true });
    await using first = await web.start({ random: () => 0 });
    await until(() => first.agent.status().loggedIn, "the login");
    assert.match(first.log.lines.join("\n"), /could not be saved yet.*DISK_FAILED/);
    await rm(state, { recursive: true });
    await until(() => first.agent.published(), "published", 20_000);
    await first.stop();
    await loseToken(first);
    const logins = count(/approle\/login$/);
    await using second = await web.start({ refreshInterval: "1s" });
    await until(() => count(/approle\/login$/) === logins + 1, "the second login");
    await until(() => second.agent.status().loggedIn, "the token");
  });

  test("is followed by what is delivered next, wrapped or not", async () => {
    await using web = await pod();
    await web.deliver("canary-of-nobody");
    await using wrong = await web.start();
    await until(() => wrong.agent.status().code === "VAULT_DENIED", "the reason");
    await wrong.stop();
    const { secret_id } = await world.approle();
    for (const text of [
      await world.wrapped(secretIds()),
      `${secret_id}\n`,
      await world.wrapped(secretIds()),
    ]) {
      await web.deliver(text);
      const logins = count(/approle\/login$/);
      await using next = await web.start({ refreshInterval: "1s" });
      await until(() => count(/approle\/login$/) === logins + 1, "the login");
      await until(() => next.agent.published() && next.agent.status().loggedIn, "published");
      await next.stop();
      await loseToken(next);
    }
  });

  test("outlives what is revoked at the end: a daemon that is started again logs in with it", async () => {
    await using web = await pod();
    await web.deliver(await world.wrapped(secretIds()));
    await using first = await web.start();
    await until(() => first.agent.published(), "published");
    await first.stop();
    await first.agent.revoke(AbortSignal.timeout(5_000));
    const { token, secrets } = await savedState(web.folder);
    assert.deepEqual([token, secrets], [undefined, []]);
    await using second = await web.start();
    await until(() => second.agent.published(), "published");
  });

  test("is not used for another role", async () => {
    await using web = await pod();
    await web.deliver(await world.wrapped(secretIds()));
    await using first = await web.start();
    await until(() => first.agent.published(), "published");
    await first.stop();
    const logins = count(/approle\/login$/);
    await using second = await web.start({ role: "other" });
    await until(() => second.agent.status().code === "SECRET_INVALID", "the reason");
    assert.equal(count(/approle\/login$/), logins);
  });
});

describe("a secret_id that is JSON", () => {
  test("and not a wrapped answer, is refused without a word of it", async () => {
    for (const text of [
      '{"data":{"secret_id":"canary"}}',
      '{"wrap_info":null,"data":"canary"}',
      '{"wrap_info":{"token":"canary\\n"}}',
    ]) {
      await using web = await pod();
      await web.deliver(text);
      const asked = count(/login$|wrapping/);
      await using sidecar = await web.start();
      await until(() => sidecar.agent.status().code === "CONFIG_INVALID", text);
      assert.doesNotMatch(sidecar.log.lines.join("\n"), /canary/);
      assert.equal(count(/login$|wrapping/), asked);
    }
  });
});
