import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { EdgeSyncError, codeOf } from "#core/errors.ts";
import { refresh } from "#core/trust/refresh.ts";
import { fetchTarget } from "#core/trust/target.ts";
import {
  EARLIER,
  NOW,
  TARGET,
  TARGET_BYTES,
  keysOf,
  makeKey,
  makeWorld,
  never,
  role,
  signedBy,
} from "./world.ts";

describe("refresh", () => {
  test("leads from a pinned root to a target", async () => {
    const world = makeWorld();
    world.publish();
    const trusted = await refresh(world.deps, never);
    const bytes = await fetchTarget(trusted, TARGET, 1000, world.deps, never);
    assert.deepEqual(Buffer.from(bytes), TARGET_BYTES);
    assert.deepEqual(
      [...trusted.expiries().keys()],
      ["root", "timestamp", "snapshot", "targets", "app.web"],
    );
  });

  test("asks for two small files when nothing has changed", async () => {
    const world = makeWorld();
    world.publish();
    await refresh(world.deps, never);
    world.requests.length = 0;
    await refresh(world.deps, never);
    assert.deepEqual(world.requests, ["metadata/2.root.json", "metadata/timestamp.json"]);
  });

  test("fetches again what is torn in the store, whatever it is", async () => {
    const world = makeWorld();
    world.publish();
    const trusted = await refresh(world.deps, never);
    await fetchTarget(trusted, TARGET, 1000, world.deps, never);
    const good = new Map(world.stored);
    for (const name of good.keys())
      for (const bytes of [
        Buffer.alloc(0),
        Buffer.from("{"),
        Buffer.from('{"signed":{},"signatures":[]}'),
      ]) {
        world.stored.set(name, bytes);
        const again = await refresh(world.deps, never);
        await fetchTarget(again, TARGET, 1000, world.deps, never);
        if (name !== "root.json") assert.deepEqual(world.stored.get(name), good.get(name));
      }
  });

  test("fetches again what the disk cannot read, but for what holds the versions that may not go back", async () => {
    const world = makeWorld();
    world.publish();
    const trusted = await refresh(world.deps, never);
    await fetchTarget(trusted, TARGET, 1000, world.deps, never);
    const outcomes = new Map<string, string>();
    for (const bad of world.stored.keys()) {
      const { store } = world.deps;
      const saved: string[] = [];
      const deps = {
        ...world.deps,
        store: {
          ...store,
          async load(name: string) {
            if (name === bad) throw new EdgeSyncError("DISK_FAILED", `${name}: EIO`);
            return await store.load(name);
          },
          async save(name: string, bytes: Uint8Array) {
            saved.push(name);
            await store.save(name, bytes);
          },
        },
      };
      const look = async (): Promise<string> => {
        const again = await refresh(deps, never);
        await fetchTarget(again, TARGET, 1000, deps, never);
        return `saves ${saved.join()}`;
      };
      outcomes.set(bad, await look().catch(codeOf));
    }
    assert.deepEqual(Object.fromEntries(outcomes), {
      "app.web.json": "saves app.web.json",
      "pinned-root": "DISK_FAILED",
      "root.json": "DISK_FAILED",
      "snapshot.json": "DISK_FAILED",
      "targets.json": "saves targets.json",
      "timestamp.json": "DISK_FAILED",
    });
  });

  test("follows a chain of roots, and begins at the newest the next time", async () => {
    const world = makeWorld();
    world.publish();
    for (let version = 2; version <= 40; version++)
      world.files.set(
        `metadata/${version}.root.json`,
        signedBy(world.root(version), world.keys.root),
      );
    assert.equal((await refresh(world.deps, never)).root.version, 40);
    world.requests.length = 0;
    await refresh(world.deps, never);
    assert.equal(world.requests[0], "metadata/41.root.json");
  });

  test("follows more roots than one look takes in several, and says so", async () => {
    const world = makeWorld();
    world.publish();
    for (let version = 2; version <= 600; version++) world.publishRoot(version);
    const versions: number[] = [];
    const failures: string[] = [];
    while (versions.length === 0) {
      await refresh(world.deps, never).then(
        ({ root }) => versions.push(root.version),
        (error: unknown) => failures.push(codeOf(error)),
      );
      assert.ok(failures.length < 5);
    }
    assert.deepEqual([versions, failures], [[600], ["ORIGIN_UNAVAILABLE", "ORIGIN_UNAVAILABLE"]]);
  });

  test("passes through roots that have expired meanwhile, after a long absence", async () => {
    const world = makeWorld();
    for (let version = 2; version <= 9; version++)
      world.files.set(
        `metadata/${version}.root.json`,
        signedBy(world.root(version, { expires: EARLIER }), world.keys.root),
      );
    world.publishRoot(10);
    world.publish();
    assert.equal((await refresh(world.deps, never)).root.version, 10);
  });

  test("falls back to the pinned root when the stored one is torn", async () => {
    const world = makeWorld();
    world.publish();
    world.files.set("metadata/2.root.json", signedBy(world.root(2), world.keys.root));
    await refresh(world.deps, never);
    world.stored.set("root.json", Buffer.from("{"));
    assert.equal((await refresh(world.deps, never)).root.version, 2);
  });

  test("follows the operator to another repository when the pin changes", async () => {
    const before = makeWorld();
    before.publish({ timestamp: 9, snapshot: 9, targets: 9 });
    before.files.set("metadata/2.root.json", signedBy(before.root(2), before.keys.root));
    await refresh(before.deps, never);
    const after = makeWorld();
    after.publish();
    const deps = { ...after.deps, store: before.deps.store };
    assert.equal((await refresh(deps, never)).timestamp.version, 1);
  });

  test("recovers from a fast-forward attack once the key is withdrawn", async () => {
    const world = makeWorld();
    world.publish({ timestamp: Number.MAX_SAFE_INTEGER });
    await refresh(world.deps, never);
    const { keys } = world;
    const fresh = makeKey();
    keys.timestamp = fresh;
    world.publish({ timestamp: 2 });
    await assert.rejects(refresh(world.deps, never), { code: "METADATA_UNTRUSTED" });
    world.files.set(
      "metadata/2.root.json",
      signedBy(
        world.root(2, {
          keys: keysOf(keys.root, fresh, keys.snapshot, keys.targets),
          roles: {
            root: role(1, keys.root),
            timestamp: role(1, fresh),
            snapshot: role(1, keys.snapshot),
            targets: role(1, keys.targets),
          },
        }),
        keys.root,
      ),
    );
    assert.equal((await refresh(world.deps, never)).timestamp.version, 2);
  });

  test("keeps fields that it does not know, since they are signed too", async () => {
    const world = makeWorld();
    world.publish(
      {},
      {
        timestamp: (signed) => ({
          ...signed,
          "x-edgesync-issued": "2026-11-22T11:00:00Z",
          other: [{ deep: null }],
        }),
        snapshot: (signed) => ({ ...signed, other: 'ä\\"' }),
      },
    );
    const trusted = await refresh(world.deps, never);
    assert.equal(trusted.timestamp.issued, NOW - 3_600_000);
  });

  test("knows ECDSA and RSA-PSS keys", async () => {
    for (const type of ["ecdsa", "rsa"] as const) {
      const world = makeWorld();
      const key = makeKey(type);
      world.keys.timestamp = key;
      world.publish();
      const { keys } = world;
      const initialRoot = signedBy(world.root(1), keys.root);
      await refresh({ ...world.deps, initialRoot }, never);
    }
  });

  test("lets the failure of a source through and keeps what was stored", async () => {
    const world = makeWorld();
    world.publish();
    await refresh(world.deps, never);
    const before = new Map(world.stored);
    const failure = new Error("down");
    const source = {
      metadata: () => Promise.reject(failure),
      target: () => Promise.reject(failure),
    };
    await assert.rejects(refresh({ ...world.deps, source }, never), failure);
    assert.deepEqual(world.stored, before);
  });
});
