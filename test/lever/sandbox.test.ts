import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { openSandbox } from "../../sidecar/application/sandbox.ts";
import { temporaryFolder } from "../support/temporary.ts";

const log = { debug() {}, info() {}, warn() {}, error() {} };

async function inherited(volume: string | undefined, pod = "p-1"): Promise<boolean> {
  const sandbox = openSandbox({ volume, pod, log });
  await sandbox.known;
  return sandbox.inherited();
}

describe("containers of a pod may be older than the sidecar", () => {
  test("when it was restarted alone, and not when the pod has just come up", async () => {
    await using folder = await temporaryFolder();
    assert.equal(await inherited(folder.path), false);
    assert.equal(await inherited(folder.path), true);
    assert.equal(await inherited(folder.path, "p-2"), false, "another pod on the same volume");
    assert.equal(await inherited(folder.path, "p-2"), true);
  });

  test("not after a reboot: what was noted then is of another boot", async () => {
    await using folder = await temporaryFolder();
    await inherited(folder.path);
    const path = join(folder.path, "sandbox");
    await writeFile(path, "p-1 00000000-0000-0000-0000-000000000000 net:[4026531840]\n");
    assert.equal(await inherited(folder.path), false);
  });

  test("when nobody can tell", async () => {
    await using folder = await temporaryFolder();
    assert.equal(await inherited(undefined), true);
    assert.equal(await inherited(join(folder.path, "missing")), true);
    const sandbox = openSandbox({ volume: folder.path, pod: "p-1", log });
    assert.equal(sandbox.inherited(), true, "not known yet");
    await sandbox.known;
  });
});
