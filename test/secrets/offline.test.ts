import assert from "node:assert/strict";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { after, before, beforeEach, describe, test } from "node:test";
import { assert as check, integer, option, property, uint8Array } from "../support/property.ts";
import {
  endOf,
  formatOfflineSet,
  offlineProblem,
  parseOfflineSet,
  sealAgainAt,
  timeFor,
} from "#core/offline-set.ts";
import type { OfflineSet } from "#core/offline-set.ts";
import { fromEnv } from "#core/settings.ts";
import { forgetOffline } from "../../sidecar/secrets/offline-place.ts";
import { realClock } from "../support/real-clock.ts";
import { MEMORY, temporaryFolder } from "../support/temporary.ts";
import { recordedLog, startSidecar, until } from "../vault/sidecar.ts";
import type { Sidecar, SidecarOptions } from "../vault/sidecar.ts";
import { openWorld } from "../vault/world.ts";
import type { World } from "../vault/world.ts";

const HOUR_MS = 3_600_000;

let world: World;
before(async () => {
  world = await openWorld({ embedded: true });
});
after(() => world[Symbol.asyncDispose]());
beforeEach(async () => {
  control().faults();
  control().seal(false);
  await world.leaseTerms(3_600, 7_200);
  await world.configure("POST", KV(), { data: { value: CANARY } });
});

const CANARY = "canary-of-the-offline-set";
const KV = (): string => `${world.names.kv}/data/web/offline`;
const creds = (): string => `${world.names.broker}/creds/app`;

function control() {
  const { embedded } = world;
  assert.ok(embedded !== undefined);
  return embedded.control;
}

/** A machine with its volumes: what is in memory is gone after a reboot, what is on the disk is not. */
interface Machine extends AsyncDisposable {
  readonly folder: string;
  readonly payload: string;
  readonly key: string;
  start(options?: Partial<SidecarOptions> & { clockBy?: number }): Promise<Sidecar>;
  sealed(): Promise<string>;
}

async function openMachine(): Promise<Machine> {
  const { path: folder, [Symbol.asyncDispose]: dispose } = await temporaryFolder(MEMORY);
  const payload = join(folder, "payload");
  const key = join(folder, "key");
  await mkdir(payload);
  await mkdir(key);
  await writeFile(join(key, "key"), randomBytes(32).toString("base64"));
  return {
    folder,
    payload,
    key,
    async start({ clockBy = 0, environment = {}, ...options } = {}) {
      await rm(join(folder, "volume"), { recursive: true, force: true });
      return await startSidecar(world, {
        folder,
        random: () => 0,
        clock: { ...realClock, now: () => realClock.now() + clockBy },
        secrets: { web: { request: KV(), format: "raw:value" } },
        ...options,
        environment: {
          EDGESYNC_CHANNEL: "web/stable",
          EDGESYNC_REPOSITORY: "https://releases.example",
          EDGESYNC_POD_NAMESPACE: "shop",
          EDGESYNC_WORKLOAD: "Deployment/web,ServiceAccount/web",
          EDGESYNC_PAYLOAD_DIR: payload,
          EDGESYNC_OFFLINE_SECRETS: "24h",
          EDGESYNC_OFFLINE_KEY_DIR: key,
          ...environment,
        },
      });
    },
    async sealed() {
      const [name = ""] = (await readdir(join(payload, "offline"))).filter((n) =>
        n.endsWith(".jwe"),
      );
      return await readFile(join(payload, "offline", name), "utf8");
    },
    [Symbol.asyncDispose]: dispose,
  };
}

/** A machine that has been on the link once, and has lost it. */
async function cutOff(options?: Partial<SidecarOptions>): Promise<Machine> {
  const machine = await openMachine();
  await using sidecar = await machine.start(options);
  await until(() => sidecar.agent.status().sealed?.sealedAt !== undefined, "sealed");
  control().seal(true);
  return machine;
}

const refusal = (sidecar: Sidecar): string | undefined => sidecar.agent.status().sealed?.refused;

describe("after a reboot without a link", () => {
  test("a pod starts on the sealed set, says so, and takes Vault's as soon as it answers", async () => {
    await using machine = await cutOff();
    await using sidecar = await machine.start();
    await until(() => sidecar.agent.published(), "published");
    assert.equal(await sidecar.file("web"), CANARY);
    const { sealed, loggedIn } = sidecar.agent.status();
    assert.equal(loggedIn, false);
    assert.equal(sealed?.offline, true);
    assert.ok(sealed.sealedAt !== undefined && sealed.until !== undefined);
    assert.equal(Date.parse(sealed.until) - Date.parse(sealed.sealedAt), 24 * HOUR_MS);
    assert.match(await sidecar.registry.metrics(), /^edgesync_sidecar_secrets_offline 1$/m);
    assert.ok(sidecar.log.lines.some((line) => line.includes("gets the sealed set")));

    control().seal(false);
    await world.configure("POST", KV(), { data: { value: "new" } });
    await until(() => sidecar.agent.status().sealed?.offline === false, "Vault's set");
    assert.equal(await sidecar.file("web"), "new");
    assert.match(await sidecar.registry.metrics(), /^edgesync_sidecar_secrets_offline 0$/m);
  });

  test("a credential with a lease is used up to the lease's end, and revoked by nobody meanwhile", async () => {
    const secrets = { db: { request: creds(), format: "json" } };
    const machine = await openMachine();
    await using _ = machine;
    await using first = await machine.start({ secrets });
    await until(() => first.agent.status().sealed?.sealedAt !== undefined, "sealed");
    await first.stop();
    await first.agent.revoke(AbortSignal.timeout(5_000));
    control().seal(true);
    await using second = await machine.start({ secrets });
    await until(() => second.agent.published(), "published");
    const { username = "", password = "" } = JSON.parse(await second.file("db")) as {
      username?: string;
      password?: string;
    };
    assert.ok(world.broker.accepts(username, password));
    const [row] = second.agent.status().secrets;
    assert.ok(Date.parse(row?.expiresAt ?? "") <= realClock.now() + HOUR_MS);
    await second.stop();
    await using late = await machine.start({ secrets, clockBy: HOUR_MS });
    await until(() => refusal(late) === "secret_ended", "the refusal");
    assert.equal(late.agent.published(), false);
  });

  test("a set that is older than its limit is not used", async () => {
    await using machine = await cutOff();
    await using sidecar = await machine.start({ clockBy: 24 * HOUR_MS + 1 });
    await until(() => refusal(sidecar) === "too_old", "the refusal");
    assert.equal(await sidecar.version(), undefined);
  });

  test("a clock that is behind starts, and gains no time by it", async () => {
    await using machine = await cutOff();
    await using sidecar = await machine.start({ clockBy: -1_000 * 24 * HOUR_MS });
    await until(() => sidecar.agent.published(), "published");
    const [row] = sidecar.agent.status().secrets;
    const left = Date.parse(row?.expiresAt ?? "") - (realClock.now() - 1_000 * 24 * HOUR_MS);
    assert.ok(left <= 24 * HOUR_MS, String(left));
  });

  test("nothing is started on where Vault refuses the login, and the set is gone for good", async () => {
    await using machine = await cutOff();
    control().seal(false);
    control().faults({ path: /login$/, status: 403 });
    await using sidecar = await machine.start();
    await until(() => refusal(sidecar) === "denied", "the denial");
    assert.equal(sidecar.agent.published(), false);
    await sidecar.stop();
    control().faults();
    control().seal(true);
    await using again = await machine.start();
    await until(() => refusal(again) === "absent", "no set");
  });

  test("a proxy's page in place of Vault's refusal takes nothing away", async () => {
    await using machine = await cutOff();
    const sealed = await machine.sealed();
    control().seal(false);
    for (const status of [403, 404]) {
      control().faults({ path: /login$/, status, body: "<html>no backend</html>" });
      await using sidecar = await machine.start();
      await until(() => sidecar.agent.published(), `published with ${status}`);
      assert.equal(await sidecar.file("web"), CANARY);
    }
    assert.equal(await machine.sealed(), sealed);
  });

  test("a set in use is withdrawn when Vault refuses the login", async () => {
    await using machine = await cutOff();
    await using sidecar = await machine.start();
    await until(() => sidecar.agent.published(), "published");
    control().faults({ path: /login$/, status: 403 });
    control().seal(false);
    await until(() => !sidecar.agent.published(), "the withdrawal");
    await assert.rejects(sidecar.file("web"), { code: "ENOENT" });
    assert.deepEqual(await readdir(join(machine.payload, "offline")), []);
  });

  test("another workload's set, and that of another declaration, are not used", async () => {
    await using machine = await cutOff();
    await using changed = await machine.start({
      secrets: { web: { request: KV(), format: "json" } },
    });
    await until(() => refusal(changed) === "other_declaration", "the refusal");
    await changed.stop();
    await using other = await machine.start({
      environment: { EDGESYNC_WORKLOAD: "Deployment/other,ServiceAccount/web" },
    });
    await until(() => refusal(other) === "absent", "none of its own");
  });

  test("another key, and a damaged file, are told and harm nothing", async () => {
    await using machine = await cutOff();
    await writeFile(join(machine.key, "key"), randomBytes(32));
    await using sidecar = await machine.start();
    await until(() => refusal(sidecar) === "unreadable", "the refusal");
    control().seal(false);
    await until(() => sidecar.agent.published(), "Vault's set", 20_000);
    assert.equal(refusal(sidecar), undefined);
  });
});

describe("the sealed set", () => {
  test("is nothing but ciphertext, of the sidecar's own mode", async () => {
    await using machine = await cutOff();
    const text = await machine.sealed();
    const [header = ""] = text.split(".");
    assert.deepEqual(JSON.parse(Buffer.from(header, "base64url").toString()), {
      alg: "A256KW",
      enc: "A256GCM",
    });
    for (const told of [CANARY, "web", "shop"])
      assert.ok(!text.includes(Buffer.from(told).toString("base64url")));
    assert.ok(!text.includes(CANARY));
  });

  test("is removed when the annotation goes", async () => {
    await using machine = await cutOff();
    const settings = fromEnv({
      EDGESYNC_CHANNEL: "web/stable",
      EDGESYNC_POD_NAMESPACE: "shop",
      EDGESYNC_WORKLOAD: "Deployment/web,ServiceAccount/web",
      EDGESYNC_PAYLOAD_DIR: machine.payload,
    });
    await forgetOffline(settings, recordedLog());
    assert.deepEqual(await readdir(join(machine.payload, "offline")), []);
  });

  test("is not kept where no key can be read, and the secrets are published all the same", async () => {
    await using machine = await openMachine();
    await writeFile(join(machine.key, "key"), "short");
    await using sidecar = await machine.start();
    await until(() => sidecar.agent.published(), "published");
    await until(() => sidecar.agent.status().sealed?.code === "CONFIG_INVALID", "the reason");
  });
});

describe("the age of a set", () => {
  const set: OfflineSet = {
    identity: "me",
    sealedAt: 1_000_000,
    seenAt: 1_000_000,
    secrets: [{ name: "a", endsAt: 2_000_000 }, { name: "b" }],
    files: [{ name: "a", mode: 0o440, bytes: Buffer.from([0, 255]) }],
  };

  test("is never lowered by a clock, nor by what a reboot forgets", () => {
    const time = integer({ min: 0, max: 4_000_000 });
    check(
      property(time, option(time, { nil: undefined }), time, (wall, floor, seen) => {
        const later = { ...set, seenAt: Math.max(set.seenAt, seen) };
        const now = timeFor(later, wall, floor);
        assert.ok(now >= later.seenAt && now >= wall && now >= (floor ?? 0));
        const problem = offlineProblem(later, "me", now, 500_000);
        assert.equal(problem !== undefined, now >= 1_500_000);
      }),
    );
  });

  test("and its first end bound when it is sealed anew", () => {
    assert.equal(sealAgainAt(set, 24 * HOUR_MS), 1_500_000);
    assert.equal(sealAgainAt({ ...set, secrets: [] }, 8 * HOUR_MS), 1_000_000 + HOUR_MS);
    assert.equal(endOf(set, { name: "b" }, HOUR_MS), 1_000_000 + HOUR_MS);
  });

  test("survives the way to its bytes and back; anything else is refused without being quoted", () => {
    assert.deepEqual(parseOfflineSet(formatOfflineSet(set)), set);
    check(
      property(uint8Array(), (bytes) => {
        assert.throws(() => parseOfflineSet(bytes), { code: "SECRET_INVALID" });
      }),
    );
  });
});
