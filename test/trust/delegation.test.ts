import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { matchesPattern, rolesFor } from "#core/trust/paths.ts";
import { refresh } from "#core/trust/refresh.ts";
import { fetchTarget } from "#core/trust/target.ts";
import { LATER, infoOf, keysOf, makeWorld, never, role, sha256, signedBy } from "./world.ts";
import type { World } from "./world.ts";

const { SuccinctRoles } = createRequire(import.meta.url)("@tufjs/models/dist/role.js") as {
  readonly SuccinctRoles: new (options: object) => { getRoleForTarget(path: string): string };
};

interface Graph {
  readonly [role: string]: { readonly delegates: readonly string[]; readonly lists?: string };
}

/** Publishes a graph of roles, all signed with one key; a `!` at the end of a name makes the delegation terminating. */
function publishGraph(world: World, graph: Graph): void {
  const { app, snapshot, targets, timestamp } = world.keys;
  const meta: Record<string, object> = {};
  for (const [name, { delegates, lists }] of Object.entries(graph)) {
    const roles = delegates.map((item) => ({
      ...role(1, app),
      name: item.replace("!", ""),
      terminating: item.endsWith("!"),
      paths: ["dir/*"],
    }));
    const bytes = Buffer.from(lists ?? "");
    const signed = {
      _type: "targets",
      spec_version: "1.0.34",
      expires: LATER,
      version: 1,
      targets:
        lists === undefined
          ? {}
          : { "dir/file": { length: bytes.length, hashes: { sha256: sha256(bytes) } } },
      ...(roles.length > 0 && { delegations: { keys: keysOf(app), roles } }),
    };
    const file = signedBy(signed, name === "targets" ? targets : app);
    world.files.set(`metadata/1.${encodeURIComponent(name)}.json`, file);
    meta[`${name}.json`] = infoOf(1, file);
    if (lists !== undefined) world.files.set(`targets/dir/${sha256(bytes)}.file`, bytes);
  }
  const common = { spec_version: "1.0.34", expires: LATER, version: 1 };
  const list = signedBy({ _type: "snapshot", ...common, meta }, snapshot);
  world.files.set("metadata/1.snapshot.json", list);
  const stamp = { _type: "timestamp", ...common, meta: { "snapshot.json": infoOf(1, list) } };
  world.files.set("metadata/timestamp.json", signedBy(stamp, timestamp));
}

async function find(graph: Graph): Promise<string> {
  const world = makeWorld();
  publishGraph(world, graph);
  const trusted = await refresh(world.deps, never);
  return Buffer.from(await fetchTarget(trusted, "dir/file", 100, world.deps, never)).toString();
}

describe("the search through delegations", () => {
  test("goes in order, and to the depth before the breadth", async () => {
    const graph = {
      targets: { delegates: ["a", "b"] },
      a: { delegates: ["c"] },
      b: { delegates: [], lists: "b" },
      c: { delegates: [], lists: "c" },
    };
    assert.equal(await find(graph), "c");
  });

  test("keeps the order of roles whose names look like numbers", async () => {
    const graph = {
      targets: { delegates: ["9", "2"] },
      "9": { delegates: [], lists: "nine" },
      "2": { delegates: [], lists: "two" },
    };
    assert.equal(await find(graph), "nine");
  });

  test("ends at a terminating delegation, beside it and above", async () => {
    const graph = {
      targets: { delegates: ["a", "b"] },
      a: { delegates: ["c!", "d"] },
      b: { delegates: [], lists: "b" },
      c: { delegates: [] },
      d: { delegates: [], lists: "d" },
    };
    await assert.rejects(find(graph), { code: "RELEASE_NOT_FOUND" });
  });

  test("ends where roles delegate in a circle", async () => {
    const graph = {
      targets: { delegates: ["a"] },
      a: { delegates: ["b"] },
      b: { delegates: ["a"] },
    };
    await assert.rejects(find(graph), { code: "RELEASE_NOT_FOUND" });
  });

  test("gives up after 32 roles", async () => {
    const chain = Array.from(
      { length: 40 },
      (_, index) => [`r${index}`, { delegates: [`r${index + 1}`] }] as const,
    );
    const graph = { targets: { delegates: ["r0"] }, ...Object.fromEntries(chain) };
    await assert.rejects(find(graph), { code: "METADATA_INVALID" });
  });

  test("quotes the names of roles", async () => {
    const name = "../a b/ü%2F";
    assert.equal(
      await find({ targets: { delegates: [name] }, [name]: { delegates: [], lists: "x" } }),
      "x",
    );
  });
});

describe("delegation by the hash of a path", () => {
  const hashOf = (path: string): string => sha256(Buffer.from(path));
  const roleNamed = (name: string, prefixes: readonly string[]) => ({
    name,
    keyids: [],
    threshold: 1,
    terminating: false,
    pathHashPrefixes: prefixes,
  });
  const namesFor = (path: string, roles: readonly ReturnType<typeof roleNamed>[]) =>
    rolesFor(path, { keys: new Map(), roles, bins: undefined }).map(({ name }) => name);

  test("goes to each role that has a prefix of it, in order", () => {
    const hash = hashOf("dir/file");
    const roles = [
      roleNamed("other", [hash.slice(1, 9)]),
      roleNamed("long", ["00", hash]),
      roleNamed("none", []),
      roleNamed("short", [hash.slice(0, 1)]),
      roleNamed("longer than a hash", [`${hash}0`]),
      roleNamed("capital", [hash.toUpperCase()]),
    ];
    assert.deepEqual(namesFor("dir/file", roles), ["long", "short"]);
  });

  test("in bins goes to one, the same as in the reference implementation", () => {
    const bits = fc.integer({ min: 1, max: 32 });
    fc.assert(
      fc.property(bits, fc.string({ unit: "binary" }), (bitLength, path) => {
        const bins = { keyids: ["k"], threshold: 1, bits: bitLength, prefix: "bin" };
        const [role, ...others] = rolesFor(path, { keys: new Map(), roles: [], bins });
        const oracle = new SuccinctRoles({
          keyIDs: [],
          threshold: 1,
          bitLength,
          namePrefix: "bin",
        });
        assert.equal(role?.name, oracle.getRoleForTarget(path));
        assert.deepEqual([role.terminating, role.keyids, others], [true, ["k"], []]);
      }),
    );
  });

  for (const [what, bits] of [
    ["two", 1],
    ["sixteen thousand", 14],
  ] as const)
    test(`in ${what} bins leads to a target, and needs no bin but one`, async () => {
      const world = makeWorld();
      const { app, snapshot, targets, timestamp } = world.keys;
      const common = { spec_version: "1.0.34", expires: LATER, version: 1 };
      const width = (2 ** bits - 1).toString(16).length;
      const number = Number.parseInt(hashOf("dir/file").slice(0, 8), 16) >>> (32 - bits);
      const name = `bin-${number.toString(16).padStart(width, "0")}`;
      const bytes = Buffer.from("in a bin");
      const info = { length: bytes.length, hashes: { sha256: sha256(bytes) } };
      const bin = signedBy({ _type: "targets", ...common, targets: { "dir/file": info } }, app);
      const delegations = {
        keys: keysOf(app),
        succinct_roles: { ...role(1, app), bit_length: bits, name_prefix: "bin" },
      };
      const top = signedBy({ _type: "targets", ...common, targets: {}, delegations }, targets);
      const meta = { "targets.json": infoOf(1, top), [`${name}.json`]: infoOf(1, bin) };
      const list = signedBy({ _type: "snapshot", ...common, meta }, snapshot);
      const stamp = { _type: "timestamp", ...common, meta: { "snapshot.json": infoOf(1, list) } };
      for (const [file, content] of [
        [`metadata/1.${name}.json`, bin],
        ["metadata/1.targets.json", top],
        ["metadata/1.snapshot.json", list],
        ["metadata/timestamp.json", signedBy(stamp, timestamp)],
        [`targets/dir/${sha256(bytes)}.file`, bytes],
      ] as const)
        world.files.set(file, content);
      const trusted = await refresh(world.deps, never);
      assert.deepEqual(
        Buffer.from(await fetchTarget(trusted, "dir/file", 100, world.deps, never)),
        bytes,
      );
    });
});

describe("path patterns", () => {
  test("stand for one segment each", () => {
    assert.ok(matchesPattern("releases/web/1/linux.json", "releases/web/*/*"));
    assert.ok(!matchesPattern("releases/web/1/2/linux.json", "releases/web/*/*"));
    assert.ok(!matchesPattern("releases/web", "releases/*/*"));
    assert.ok(matchesPattern("a.json", "?.json"));
    assert.ok(!matchesPattern("ab.json", "?.json"));
    assert.ok(matchesPattern("a[b].json", "a[b].json"));
  });

  test("agree with the same pattern as a regular expression", () => {
    const text = fc.string({ unit: fc.constantFrom("a", "b", "."), maxLength: 8 });
    const pattern = fc.string({ unit: fc.constantFrom("a", "b", ".", "*", "?"), maxLength: 8 });
    fc.assert(
      fc.property(text, pattern, (input, glob) => {
        const source = glob.replaceAll(".", "\\.").replaceAll("*", ".*").replaceAll("?", ".");
        assert.equal(matchesPattern(input, glob), new RegExp(`^${source}$`).test(input));
      }),
    );
  });

  test("take no time, whatever the pattern", { timeout: 2000 }, () => {
    assert.ok(!matchesPattern("a".repeat(2000), `${"*a".repeat(500)}b`));
  });
});
