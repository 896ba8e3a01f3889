import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { codeOf } from "#core/errors.ts";
import { refresh } from "#core/trust/refresh.ts";
import { fetchTarget } from "#core/trust/target.ts";
import {
  EARLIER,
  LATER,
  NOW,
  TARGET,
  TARGET_BYTES,
  infoOf,
  keysOf,
  makeKey,
  makeWorld,
  never,
  role,
  sha256,
  signedBy,
} from "./world.ts";
import type { World } from "./world.ts";

const UNTRUSTED = { code: "METADATA_UNTRUSTED" };
const EXPIRED = { code: "METADATA_EXPIRED" };

function refreshed(world: World, now: number = NOW): ReturnType<typeof refresh> {
  return refresh({ ...world.deps, now }, never);
}

async function fetched(world: World, limit: number = 1000): Promise<string> {
  const trusted = await refreshed(world);
  return Buffer.from(await fetchTarget(trusted, TARGET, limit, world.deps, never)).toString();
}

describe("rollback attack", () => {
  test("a timestamp of a lower version is refused", async () => {
    const world = makeWorld();
    world.publish({ timestamp: 2 });
    await refreshed(world);
    world.publish({ timestamp: 1 });
    await assert.rejects(refreshed(world), UNTRUSTED);
  });

  test("a snapshot of a lower version is refused, though the timestamp is newer", async () => {
    const world = makeWorld();
    world.publish({ timestamp: 1, snapshot: 2 });
    await refreshed(world);
    world.publish({ timestamp: 2, snapshot: 1 });
    await assert.rejects(refreshed(world), UNTRUSTED);
  });

  test("targets of a lower version are refused, though the snapshot is newer", async () => {
    const world = makeWorld();
    world.publish({ timestamp: 1, snapshot: 1, targets: 2 });
    await refreshed(world);
    world.publish({ timestamp: 2, snapshot: 2, targets: 1 });
    await assert.rejects(refreshed(world), UNTRUSTED);
  });

  test("is also seen with an expired timestamp in the store", async () => {
    const world = makeWorld();
    world.publish(
      { timestamp: 2 },
      { timestamp: (signed) => ({ ...signed, expires: "2026-11-22T12:00:01Z" }) },
    );
    await refreshed(world);
    world.publish({ timestamp: 1 });
    await assert.rejects(refreshed(world, NOW + 10_000), UNTRUSTED);
  });

  test("a root that does not follow on the trusted one is refused", async () => {
    const world = makeWorld();
    world.publish();
    world.files.set("metadata/2.root.json", signedBy(world.root(3), world.keys.root));
    await assert.rejects(refreshed(world), UNTRUSTED);
  });
});

describe("freeze attack", () => {
  for (const name of ["timestamp", "snapshot", "targets"] as const)
    test(`an expired ${name} is refused`, async () => {
      const world = makeWorld();
      world.publish({}, { [name]: (signed: object) => ({ ...signed, expires: EARLIER }) });
      await assert.rejects(refreshed(world), EXPIRED);
    });

  test("an expired delegated role is refused", async () => {
    const world = makeWorld();
    world.publish({}, { app: (signed) => ({ ...signed, expires: EARLIER }) });
    await assert.rejects(fetched(world), EXPIRED);
  });

  test("an expired root is refused when no other follows, and passed over when one does", async () => {
    const world = makeWorld();
    world.publish();
    world.files.set(
      "metadata/2.root.json",
      signedBy(world.root(2, { expires: EARLIER }), world.keys.root),
    );
    await assert.rejects(refreshed(world), EXPIRED);
    world.files.set("metadata/3.root.json", signedBy(world.root(3), world.keys.root));
    assert.equal((await refreshed(world)).root.version, 3);
  });

  test("what was good expires while nothing new is served", async () => {
    const world = makeWorld();
    world.publish();
    await refreshed(world);
    await assert.rejects(refreshed(world, NOW + 40 * 86_400_000), EXPIRED);
  });
});

describe("mix-and-match attack", () => {
  test("a snapshot that the timestamp does not list is refused", async () => {
    const world = makeWorld();
    world.publish({ snapshot: 1 });
    const old = world.files.get("metadata/1.snapshot.json") ?? Buffer.alloc(0);
    world.publish({ timestamp: 2, snapshot: 2, targets: 2 });
    world.files.set("metadata/2.snapshot.json", old);
    await assert.rejects(refreshed(world), UNTRUSTED);
  });

  test("targets that the snapshot does not list are refused, also without length and hashes in it", async () => {
    const world = makeWorld();
    const bare = (signed: Record<string, unknown>): object => ({
      ...signed,
      meta: { "targets.json": { version: 2 }, "app.web.json": { version: 2 } },
    });
    world.publish({ targets: 1 });
    const old = world.files.get("metadata/1.targets.json") ?? Buffer.alloc(0);
    world.publish({ timestamp: 2, snapshot: 2, targets: 2 }, { snapshot: bare });
    world.files.set("metadata/2.targets.json", old);
    await assert.rejects(refreshed(world), UNTRUSTED);
  });

  test("a role may not vanish from the snapshot", async () => {
    const world = makeWorld();
    world.publish();
    await refreshed(world);
    world.publish(
      { timestamp: 2, snapshot: 2 },
      {
        snapshot: (signed) => {
          const { "app.web.json": _, ...meta } = signed["meta"] as Record<string, unknown>;
          return { ...signed, meta };
        },
      },
    );
    await assert.rejects(refreshed(world), UNTRUSTED);
  });
});

describe("arbitrary software attack", () => {
  for (const name of ["timestamp", "snapshot", "targets"] as const)
    test(`a ${name} signed with another key is refused`, async () => {
      const world = makeWorld();
      world.keys[name] = makeKey();
      world.publish();
      await assert.rejects(refreshed(world), UNTRUSTED);
    });

  test("a delegated role signed with another key is refused", async () => {
    const world = makeWorld();
    world.publish();
    const other = makeWorld();
    other.publish();
    const forged = other.files.get("metadata/1.app.web.json") ?? Buffer.alloc(0);
    world.publish(
      {},
      {
        snapshot: (signed) => ({
          ...signed,
          meta: { "targets.json": { version: 1 }, "app.web.json": { version: 1 } },
        }),
      },
    );
    world.files.set("metadata/1.app.web.json", forged);
    await assert.rejects(fetched(world), UNTRUSTED);
  });

  test("a root must be signed by the one before it, and by itself", async () => {
    const other = makeKey();
    const world = makeWorld();
    world.publish();
    const { keys } = world;
    const next = world.root(2, {
      keys: keysOf(other, keys.timestamp, keys.snapshot, keys.targets),
      roles: {
        root: role(1, other),
        timestamp: role(1, keys.timestamp),
        snapshot: role(1, keys.snapshot),
        targets: role(1, keys.targets),
      },
    });
    world.files.set("metadata/2.root.json", signedBy(next, other));
    await assert.rejects(refreshed(world), UNTRUSTED);
    world.files.set("metadata/2.root.json", signedBy(next, keys.root));
    await assert.rejects(refreshed(world), UNTRUSTED);
    world.files.set("metadata/2.root.json", signedBy(next, keys.root, other));
    assert.equal((await refreshed(world)).root.version, 2);
  });

  test("fewer signatures than the threshold are refused, also when one key is listed under two ids", async () => {
    const world = makeWorld();
    const [one, two] = [makeKey(), makeKey()];
    const { keys } = world;
    const twin = { ...one, id: "ab".repeat(32) };
    const rootWith = (...timestamps: readonly (typeof one)[]): object =>
      world.root(2, {
        keys: keysOf(keys.root, keys.snapshot, keys.targets, ...timestamps),
        roles: {
          root: role(1, keys.root),
          timestamp: role(2, ...timestamps),
          snapshot: role(1, keys.snapshot),
          targets: role(1, keys.targets),
        },
      });
    world.publish();
    const { signed } = JSON.parse((world.files.get("metadata/timestamp.json") ?? "").toString());
    world.files.set("metadata/2.root.json", signedBy(rootWith(one, two, twin), keys.root));
    world.files.set("metadata/timestamp.json", signedBy(signed, one));
    await assert.rejects(refreshed(world), UNTRUSTED);
    world.files.set("metadata/timestamp.json", signedBy(signed, one, twin));
    await assert.rejects(refreshed(world), UNTRUSTED);
    world.files.set("metadata/timestamp.json", signedBy(signed, one, two));
    await refreshed(world);
  });

  test("a target that is not what is signed is refused", async () => {
    const world = makeWorld();
    world.publish();
    for (const [name, bytes] of world.files)
      if (name.startsWith("targets/"))
        world.files.set(name, Buffer.from(bytes.toString().replace("a", "b")));
    await assert.rejects(fetched(world), { code: "DIGEST_MISMATCH" });
  });
});

describe("wrong software attack", () => {
  const other = "releases/web/2/linux-x64.json";
  const otherBytes = Buffer.from("b manifest\n");

  function listing(...paths: readonly string[]): (signed: Record<string, unknown>) => object {
    const info = { length: otherBytes.length, hashes: { sha256: sha256(otherBytes) } };
    return (signed) => ({
      ...signed,
      targets: {
        ...(signed["targets"] as object),
        ...Object.fromEntries(paths.map((path) => [path, info])),
      },
    });
  }

  test("another target of the repository, signed as well, is not taken for the one that was asked for", async () => {
    const world = makeWorld();
    world.publish({}, { app: listing(other) });
    const wanted = `targets/releases/web/1/${sha256(TARGET_BYTES)}.linux-x64.json`;
    world.files.set(wanted, otherBytes);
    await assert.rejects(fetched(world), { code: "DIGEST_MISMATCH" });
  });

  test("a role is not believed about paths that are not delegated to it", async () => {
    const world = makeWorld();
    const foreign = "releases/shop/1/linux-x64.json";
    world.publish({}, { app: listing(foreign) });
    const trusted = await refreshed(world);
    await assert.rejects(fetchTarget(trusted, foreign, 1000, world.deps, never), {
      code: "RELEASE_NOT_FOUND",
    });
  });

  test("a role that comes later in the delegations does not override one before it", async () => {
    const world = makeWorld();
    const rogue = makeKey();
    const signed = {
      _type: "targets",
      spec_version: "1.0.34",
      expires: LATER,
      version: 1,
      targets: { [TARGET]: { length: otherBytes.length, hashes: { sha256: sha256(otherBytes) } } },
    };
    const bytes = signedBy(signed, rogue);
    world.publish(
      {},
      {
        targets: (top) => {
          const delegations = top["delegations"] as { keys: object; roles: object[] };
          const later = {
            ...role(1, rogue),
            name: "rogue",
            terminating: false,
            paths: ["releases/web/*/*"],
          };
          return {
            ...top,
            delegations: {
              keys: { ...delegations.keys, ...keysOf(rogue) },
              roles: [...delegations.roles, later],
            },
          };
        },
        snapshot: (list) => ({
          ...list,
          meta: { ...(list["meta"] as object), "rogue.json": infoOf(1, bytes) },
        }),
      },
    );
    world.files.set("metadata/1.rogue.json", bytes);
    assert.equal(await fetched(world), TARGET_BYTES.toString());
  });
});

describe("malicious mirror attack", () => {
  const junk = Buffer.from("<html>buy something</html>");
  const lies: Readonly<Record<string, (world: World) => void>> = {
    "has nothing": ({ files }) => files.clear(),
    "answers everything with a page": ({ files }) => {
      for (const name of files.keys()) files.set(name, junk);
    },
    "has another repository": ({ files }) => {
      const other = makeWorld();
      other.publish();
      other.publishRoot(2);
      for (const [name, bytes] of other.files) files.set(name, bytes);
    },
    "is years behind": (world) =>
      world.publish(
        { timestamp: 1, snapshot: 1, targets: 1 },
        { timestamp: (signed) => ({ ...signed, expires: EARLIER }) },
      ),
    "is a version behind": (world) => world.publish({ timestamp: 1, snapshot: 1, targets: 1 }),
    "has cut every file": ({ files }) => {
      for (const [name, bytes] of files) files.set(name, bytes.subarray(0, -2));
    },
    "has other targets": ({ files }) => {
      for (const name of files.keys()) if (name.startsWith("targets/")) files.set(name, junk);
    },
  };

  for (const [what, lie] of Object.entries(lies))
    test(`a mirror that ${what} costs nothing but a request to another one`, async () => {
      const world = makeWorld();
      world.publish({ timestamp: 2, snapshot: 2, targets: 2 });
      await fetched(world);
      const before = new Map(world.stored);
      const good = new Map(world.files);
      lie(world);
      await assert.rejects(fetched(world), (error) => codeOf(error) !== "INTERNAL");
      assert.deepEqual(world.stored, before, "nothing of what it said is kept");
      world.files.clear();
      for (const [name, bytes] of good) world.files.set(name, bytes);
      assert.equal(await fetched(world), TARGET_BYTES.toString());
    });
});
