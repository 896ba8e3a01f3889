import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdir, readFile, readdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, beforeEach, describe, test } from "node:test";
import { temporaryFolder } from "../support/temporary.ts";
import { prepareEnvironment, savedState, startSidecar, until } from "../vault/sidecar.ts";
import { openWorld } from "../vault/world.ts";
import type { World } from "../vault/world.ts";

/** What outlives a process of the sidecar, and what must not; against the embedded Vault. */
let world: World;
before(async () => {
  world = await openWorld({ embedded: true });
});
after(() => world[Symbol.asyncDispose]());
beforeEach(() => {
  control().faults();
  control().seal(false);
});

function control() {
  const { embedded } = world;
  assert.ok(embedded !== undefined);
  return embedded.control;
}

const creds = (): string => `${world.names.broker}/creds/app`;

function count(pattern: RegExp): number {
  return control().requests.filter((line) => pattern.test(line)).length;
}

describe("a sidecar that is killed and started again", () => {
  test("goes on with the same token and the same lease, and the set is never away", async () => {
    await using folder = await temporaryFolder("/dev/shm");
    const secrets = { db: { request: creds(), format: "json" } };
    const env = await prepareEnvironment(world, folder.path, { secrets });
    const file = join(folder.path, "settings.json");
    await writeFile(file, JSON.stringify({ env, ca: world.ca }));
    const [logins, users] = [count(/login$/), world.broker.created()];
    const states = [];
    for (let life = 0; life < 3; life++) {
      const child = await startProcess(file);
      child.kill("SIGKILL");
      await once(child, "exit");
      const { token, secrets: saved } = await savedState(folder.path);
      states.push({ token: token.token, lease: saved[0]?.leaseId, data: saved[0]?.data });
      const published = await readFile(join(folder.path, "volume", "set", "db"), "utf8");
      assert.deepEqual(JSON.parse(published), saved[0]?.data);
    }
    assert.deepEqual(states[1], states[0]);
    assert.deepEqual(states[2], states[0]);
    assert.equal(count(/login$/) - logins, 1);
    assert.equal(world.broker.created() - users, 1);
  });

  test("with another form declared reads anew what it has kept in vain, and keeps all others", async () => {
    const path = `${world.names.kv}/data/web/form`;
    await world.configure("POST", path, { data: { "no-variable": "1" } });
    const db = { request: creds(), format: "raw:username" };
    await using first = await startSidecar(world, { secrets: { db, form: { request: path } } });
    await until(() => first.agent.published(), "published");
    const user = await first.file("db");
    await first.stop();
    await using second = await startSidecar(world, {
      folder: first.folder,
      refreshInterval: "1s",
      random: () => 0,
      secrets: { db, form: { request: path, format: "env" } },
    });
    const code = (): unknown =>
      second.agent.status().secrets.find(({ name }) => name === "form")?.code;
    await until(() => code() === "SECRET_INVALID", "the code");
    await world.configure("POST", path, { data: { VARIABLE: "2" } });
    await until(async () => (await second.file("form")) === "VARIABLE=2\n", "the form", 30_000);
    assert.equal(await second.file("db"), user);
  });

  test("has one secret_id for all its lives, where that has no end", async () => {
    const request = `auth/${world.names.approle}/role/web/secret-id metadata={}`;
    const watched = `${world.names.kv}/data/web/watched`;
    const reads = (): number => count(/data\/web\/watched$/);
    const made = count(/role\/web\/secret-id$/);
    await using folder = await temporaryFolder("/dev/shm");
    await world.configure("POST", watched, { data: { value: "1" } });
    const ids = new Set<string>();
    for (let life = 0; life < 2; life++) {
      const before = reads();
      await using sidecar = await startSidecar(world, {
        folder: folder.path,
        refreshInterval: "1s",
        secrets: {
          id: { request, format: "raw:secret_id" },
          watched: { request: watched, format: "raw:value" },
        },
      });
      await until(() => reads() - before >= 2, "two reads of what is read again");
      ids.add(await sidecar.file("id"));
    }
    assert.equal(ids.size, 1);
    assert.equal(count(/role\/web\/secret-id$/) - made, 1);
  });

  test("shows its set at once, also while Vault is away", async () => {
    await using folder = await temporaryFolder("/dev/shm");
    const options = { folder: folder.path, secrets: { db: { request: creds() } } };
    {
      await using first = await startSidecar(world, options);
      await until(() => first.agent.published(), "published");
    }
    control().seal(true);
    await using second = await startSidecar(world, options);
    await until(() => second.agent.published(), "published");
    assert.equal(second.agent.expiredSince(), undefined);
  });

  test("keeps its state where only it can read it", async () => {
    await using sidecar = await startSidecar(world, { secrets: { db: { request: creds() } } });
    await until(() => sidecar.agent.published(), "published");
    const state = join(sidecar.folder, "volume", "state");
    assert.equal((await stat(state)).mode & 0o777, 0o700);
    assert.equal((await stat(join(state, "state.json"))).mode & 0o777, 0o600);
    assert.deepEqual(await readdir(state), ["state.json"]);
  });

  test("does not send its token to another server or role", async () => {
    await using folder = await temporaryFolder("/dev/shm");
    const secrets = { db: { request: creds() } };
    {
      await using first = await startSidecar(world, { folder: folder.path, secrets });
      await until(() => first.agent.published(), "published");
    }
    const { token } = await savedState(folder.path);
    await using other = await startSidecar(world, { folder: folder.path, secrets, auth: "jwt" });
    await until(() => other.agent.published(), "published");
    assert.notEqual((await savedState(folder.path)).token.token, token.token);
  });
});

async function startProcess(file: string): Promise<ChildProcess> {
  const program = join(import.meta.dirname, "agent-process.ts");
  const child = spawn(process.execPath, [program, file], { stdio: ["ignore", "pipe", "inherit"] });
  const [line] = (await Promise.race([
    once(child.stdout, "data"),
    once(child, "exit").then(() => ["it ended"]),
  ])) as [Buffer | string];
  assert.equal(line.toString().trim(), "published");
  return child;
}

describe("a volume that cannot be written", () => {
  const path = (): string => `${world.names.kv}/data/web/disk`;
  const write = async (value: string): Promise<void> => {
    await world.configure("POST", path(), { data: { value } });
  };

  test("leaves the set as it is and is reported, and is tried again", async () => {
    await write("1");
    await using sidecar = await startSidecar(world, {
      random: () => 0,
      refreshInterval: "1s",
      secrets: { disk: { request: path(), format: "raw:value" } },
    });
    await until(() => sidecar.agent.published(), "published");
    const state = join(sidecar.folder, "volume", "state", "state.json");
    await rm(state);
    await mkdir(join(state, "in-the-way"), { recursive: true });
    await write("2");
    await until(() => sidecar.agent.status().code === "DISK_FAILED", "the code");
    assert.equal(await sidecar.file("disk"), "1");
    await rm(state, { recursive: true });
    await until(async () => (await sidecar.file("disk")) === "2", "the change");
    await until(() => sidecar.agent.status().code === undefined, "the end of the report");
  });
});

describe("revocation", () => {
  test("leaves nothing to the next process", async () => {
    await using sidecar = await startSidecar(world, {
      secrets: { db: { request: creds(), format: "raw:username" } },
    });
    await until(() => sidecar.agent.published(), "published");
    assert.ok(world.broker.users.has(await sidecar.file("db")));
    await sidecar.stop();
    await sidecar.agent.revoke(AbortSignal.timeout(5_000));
    assert.deepEqual(await readdir(join(sidecar.folder, "volume", "state")), []);
    assert.ok(!world.broker.users.has(await sidecar.file("db")));
  });

  test("is over in a second and a half when Vault does not answer", async () => {
    await using sidecar = await startSidecar(world, { secrets: { db: { request: creds() } } });
    await until(() => sidecar.agent.published(), "published");
    await sidecar.stop();
    control().faults({ path: /revoke-self/, stall: true });
    const begun = performance.now();
    await sidecar.agent.revoke(AbortSignal.timeout(60_000));
    assert.ok(performance.now() - begun < 1_500);
  });
});
