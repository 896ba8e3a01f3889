import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, test } from "node:test";
import { openLanes } from "#core/lanes.ts";
import { scanTree } from "../../publisher/tree.ts";
import { silent } from "../../publisher/work.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { edgesync, makeTree, never } from "./world.ts";

const run = openLanes(2);

describe("several trees in one release", () => {
  test("stand beside each other, each below its name, and may link to one another", async () => {
    await using folder = await temporaryFolder();
    const at = (name: string): string => join(folder.path, name);
    await makeTree(at("build"), { "a.bin": "model", latest: { link: "a.bin" } });
    await makeTree(at("other"), { "rules.txt": "rules", model: { link: "../model/a.bin" } });
    const trees = [
      { name: "rules", folder: at("other") },
      { name: "model", folder: at("build") },
    ];
    const { entries, sources } = await scanTree(trees, run, silent, never);
    assert.deepEqual(
      entries.map(({ type, path }) => `${type} ${path}`),
      [
        "directory model",
        "file model/a.bin",
        "symlink model/latest",
        "directory rules",
        "symlink rules/model",
        "file rules/rules.txt",
      ],
    );
    assert.deepEqual(
      sources.map(({ path, file }) => [path, file]),
      [
        ["model/a.bin", at("build/a.bin")],
        ["rules/rules.txt", at("other/rules.txt")],
      ],
    );
    const outside = { link: { link: "../../secret" } };
    await makeTree(at("bad"), outside);
    await assert.rejects(scanTree([{ name: "bad", folder: at("bad") }], run, silent, never), {
      code: "TREE_INVALID",
    });
  });

  test("are added by --tree, and refused where it cannot be meant", async () => {
    await using folder = await temporaryFolder();
    const cwd = { cwd: folder.path };
    await makeTree(join(folder.path, "model"), { "a.bin": "model" });
    await makeTree(join(folder.path, "rules"), { "rules.txt": "rules" });
    assert.equal((await edgesync(["init"], cwd)).status, 0);
    const add = ["release", "add", "--app", "web", "--platform", "linux-x64", "--version", "1"];
    const wrong: readonly (readonly [readonly string[], number])[] = [
      [[], 64],
      [["model", "--tree", "rules=rules"], 64],
      [["--tree", "rules"], 64],
      [["--tree", "=rules"], 64],
      [["--tree", "rules="], 64],
      [["--tree", "../x=rules"], 64],
      [["--tree", "a=rules", "--tree", "A=model"], 64],
      [["--tree", "rules=none"], 65],
      [["--tree", "keys=keys"], 65],
    ];
    for (const [more, status] of wrong)
      assert.equal((await edgesync([...add, ...more], cwd)).status, status, more.join(" "));
    const trees = ["--tree", "model=model", "--tree", "rules=./rules"];
    const added = await edgesync([...add, ...trees, "--json"], cwd);
    assert.equal(added.status, 0, added.stderr);
    assert.equal(JSON.parse(added.stdout).entries, 4);
    assert.equal((await edgesync([...add, ...trees], cwd)).stdout.slice(0, 9), "unchanged");
  });
});
