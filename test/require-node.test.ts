import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { temporaryFolder } from "./support/temporary.ts";

describe("the guard of the npm scripts", () => {
  test("ends an older Node with one sentence that says what to do", async () => {
    await using folder = await temporaryFolder();
    const old = join(folder.path, "old.cjs");
    await writeFile(
      old,
      `Object.defineProperty(process, "versions", { value: { node: "20.20.2" } });
       Object.defineProperty(process, "version", { value: "v20.20.2" });`,
    );
    const { status, stderr } = spawnSync(
      process.execPath,
      ["-r", old, "scripts/require-node.cjs"],
      {
        encoding: "utf8",
      },
    );
    assert.equal(status, 78);
    assert.match(stderr, /^edgesync: Node 26 .*v20\.20\.2.*npm ci.*\.\n$/);
  });

  test("lets this Node pass without a word", () => {
    const { status, stderr } = spawnSync(process.execPath, ["scripts/require-node.cjs"], {
      encoding: "utf8",
    });
    assert.equal(status, 0);
    assert.equal(stderr, "");
  });
});
