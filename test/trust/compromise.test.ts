/** Stolen keys: what a thief can do below a threshold, what at it, and how the repository comes back. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { refresh } from "#core/trust/refresh.ts";
import { fetchTarget } from "#core/trust/target.ts";
import { TARGET, TARGET_BYTES, makeKey, makeWorld, never, sha256, signedBy } from "./world.ts";
import type { TestKey, World } from "./world.ts";

const UNTRUSTED = { code: "METADATA_UNTRUSTED" };
const HUGE = Number.MAX_SAFE_INTEGER;
const EVIL = Buffer.from("an evil thing\n");

async function fetched(world: World): Promise<string> {
  const trusted = await refresh(world.deps, never);
  return Buffer.from(await fetchTarget(trusted, TARGET, 1_000, world.deps, never)).toString();
}

/** Lists the thief's bytes in the place of the release. */
function evil(signed: Record<string, unknown>): object {
  const info = { length: EVIL.length, hashes: { sha256: sha256(EVIL) } };
  return { ...signed, targets: { [TARGET]: info } };
}

/** Serves a repository with the thief's release, signed by whoever signs now. */
function publishEvil(world: World, version: number): void {
  world.publish({ timestamp: version, snapshot: version, targets: version }, { app: evil });
  world.files.set(`targets/releases/web/1/${sha256(EVIL)}.linux-x64.json`, EVIL);
}

function three(): readonly [TestKey, TestKey, TestKey] {
  return [makeKey(), makeKey(), makeKey()];
}

describe("fast-forward attack", () => {
  test("on the timestamp ends when its key is withdrawn", async () => {
    const world = makeWorld();
    world.publish({ timestamp: HUGE });
    await fetched(world);
    world.publish({ timestamp: 2 });
    await assert.rejects(fetched(world), UNTRUSTED);
    world.keys.timestamp = makeKey();
    world.publishRoot(2);
    world.publish({ timestamp: 2 });
    assert.equal(await fetched(world), TARGET_BYTES.toString());
  });

  test("on the snapshot ends when its key is withdrawn", async () => {
    const world = makeWorld();
    world.publish({ timestamp: 1, snapshot: HUGE });
    await fetched(world);
    world.publish({ timestamp: 2, snapshot: 2 });
    await assert.rejects(fetched(world), UNTRUSTED);
    world.keys.snapshot = makeKey();
    world.publishRoot(2);
    world.publish({ timestamp: 2, snapshot: 2 });
    assert.equal(await fetched(world), TARGET_BYTES.toString());
  });

  test("on targets and a delegated role ends when the key of the snapshot, which lists them, is withdrawn", async () => {
    const world = makeWorld();
    world.publish({ timestamp: 1, snapshot: 1, targets: HUGE });
    await fetched(world);
    world.publish({ timestamp: 2, snapshot: 2, targets: 2 });
    await assert.rejects(fetched(world), UNTRUSTED);
    world.keys.targets = makeKey();
    world.keys.app = makeKey();
    world.keys.snapshot = makeKey();
    world.publishRoot(2);
    world.publish({ timestamp: 2, snapshot: 2, targets: 2 });
    assert.equal(await fetched(world), TARGET_BYTES.toString());
  });

  test("on the root is not possible: its versions follow one on the other", async () => {
    const world = makeWorld();
    world.publish();
    world.files.set("metadata/2.root.json", signedBy(world.root(HUGE), world.keys.root));
    await assert.rejects(fetched(world), UNTRUSTED);
  });
});

describe("key compromise below the threshold", () => {
  test("one of two needed keys of an app signs nothing that is taken, though all online keys are stolen too", async () => {
    const world = makeWorld();
    const keys = three();
    world.appRole = { threshold: 2, keys };
    world.signers.app = keys.slice(0, 2);
    world.publish();
    assert.equal(await fetched(world), TARGET_BYTES.toString());
    world.signers.app = [keys[2]];
    publishEvil(world, 2);
    await assert.rejects(fetched(world), UNTRUSTED);
    world.signers.app = [keys[2], keys[2]];
    publishEvil(world, 3);
    await assert.rejects(fetched(world), { code: "METADATA_INVALID" });
  });

  for (const name of ["timestamp", "snapshot", "targets"] as const)
    test(`one of two needed keys of ${name} signs nothing that is taken`, async () => {
      const world = makeWorld();
      const keys = three();
      world.publishRoot(2, { [name]: { threshold: 2, keys } });
      world.signers[name] = keys.slice(1);
      world.publish();
      await fetched(world);
      world.signers[name] = keys.slice(0, 1);
      publishEvil(world, 2);
      await assert.rejects(fetched(world), UNTRUSTED);
    });

  test("one of two needed root keys makes no root", async () => {
    const world = makeWorld();
    const keys = three();
    world.publish();
    world.publishRoot(2, { root: { threshold: 2, keys } }, [world.keys.root, ...keys.slice(1)]);
    await fetched(world);
    const thief = makeKey();
    const roles = { root: { threshold: 1, keys: [thief] } };
    world.publishRoot(3, roles, [keys[0], thief]);
    await assert.rejects(fetched(world), UNTRUSTED);
    world.publishRoot(3, roles, [keys[0], keys[2], thief]);
    assert.equal(await fetched(world), TARGET_BYTES.toString());
  });

  test("online keys alone, of timestamp and snapshot, sign no release", async () => {
    const world = makeWorld();
    world.publish();
    await fetched(world);
    world.signers.app = [makeKey()];
    publishEvil(world, 2);
    await assert.rejects(fetched(world), UNTRUSTED);
  });
});

describe("key compromise at the threshold", () => {
  test("of an app ends when targets name other keys: what was stored of the thief's counts no more", async () => {
    const world = makeWorld();
    const keys = three();
    world.appRole = { threshold: 2, keys };
    world.signers.app = keys.slice(0, 2);
    publishEvil(world, 2);
    assert.equal(await fetched(world), EVIL.toString(), "two keys are what it takes");
    const fresh = three();
    world.appRole = { threshold: 2, keys: fresh };
    // The thief still has the old keys, and a mirror.
    publishEvil(world, 3);
    await assert.rejects(fetched(world), UNTRUSTED);
    world.signers.app = fresh.slice(1);
    world.publish({ timestamp: 4, snapshot: 4, targets: 4 });
    assert.equal(await fetched(world), TARGET_BYTES.toString());
  });

  test("of targets ends with a new root", async () => {
    const world = makeWorld();
    const thief = three();
    world.publishRoot(2, { targets: { threshold: 2, keys: thief } });
    world.signers.targets = thief.slice(0, 2);
    const stolen = makeKey();
    world.appRole = { threshold: 1, keys: [stolen] };
    world.signers.app = [stolen];
    publishEvil(world, 2);
    assert.equal(await fetched(world), EVIL.toString());
    delete world.appRole;
    delete world.signers.app;
    const fresh = three();
    world.publishRoot(3, { targets: { threshold: 2, keys: fresh } });
    await assert.rejects(fetched(world), UNTRUSTED);
    world.signers.targets = fresh.slice(0, 2);
    world.publish({ timestamp: 3, snapshot: 3, targets: 3 });
    assert.equal(await fetched(world), TARGET_BYTES.toString());
  });

  test("of every role but the root ends with a new root, also after a fast-forward by all of them", async () => {
    const world = makeWorld();
    world.publish();
    await fetched(world);
    publishEvil(world, HUGE);
    assert.equal(await fetched(world), EVIL.toString());
    for (const name of ["timestamp", "snapshot", "targets", "app"] as const)
      world.keys[name] = makeKey();
    world.publishRoot(2);
    world.publish({ timestamp: 2, snapshot: 2, targets: 2 });
    assert.equal(await fetched(world), TARGET_BYTES.toString());
  });

  test("of some root keys ends with a root that the others sign, while they reach the threshold", async () => {
    const world = makeWorld();
    const keys = three();
    world.publish();
    world.publishRoot(2, { root: { threshold: 2, keys } }, [world.keys.root, ...keys]);
    await fetched(world);
    // One of the three is stolen: the two others name another in its place.
    const heirs = [keys[1], keys[2], makeKey()];
    world.publishRoot(3, { root: { threshold: 2, keys: heirs } }, [keys[1], keys[2]]);
    await fetched(world);
    world.publishRoot(4, {}, [keys[0], makeKey()]);
    await assert.rejects(fetched(world), UNTRUSTED);
  });

  test("of the root ends only with a new pin, which the operator brings to the sites", async () => {
    const world = makeWorld();
    world.publish();
    await fetched(world);
    const thief = makeWorld();
    const { root, ...others } = thief.keys;
    const roles = Object.fromEntries(
      Object.entries({ root, ...others })
        .filter(([name]) => name !== "app")
        .map(([name, key]) => [name, { threshold: 1, keys: [key] }]),
    );
    world.publishRoot(2, roles, [world.keys.root, root]);
    publishEvil(thief, 2);
    for (const [name, bytes] of thief.files)
      if (!name.endsWith("root.json")) world.files.set(name, bytes);
    assert.equal(await fetched(world), EVIL.toString());
    const successor = makeWorld();
    successor.publish();
    const deps = { ...successor.deps, store: world.deps.store };
    const trusted = await refresh(deps, never);
    const bytes = await fetchTarget(trusted, TARGET, 1_000, deps, never);
    assert.equal(Buffer.from(bytes).toString(), TARGET_BYTES.toString());
  });
});
