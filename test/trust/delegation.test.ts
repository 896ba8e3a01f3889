import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "fast-check";
import { matchesPattern } from "#core/trust/paths.ts";
import { refresh } from "#core/trust/refresh.ts";
import { fetchTarget } from "#core/trust/target.ts";
import { LATER, infoOf, keysOf, makeWorld, never, role, sha256, signedBy } from "./world.ts";
import type { World } from "./world.ts";

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
