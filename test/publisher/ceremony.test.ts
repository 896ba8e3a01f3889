import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { temporaryFolder } from "../support/temporary.ts";
import { openSites } from "./clients.ts";

const execute = promisify(execFile);
const BIN = fileURLToPath(new URL("../../bin/edgesync.ts", import.meta.url));
const PAGE = new URL("../../docs/publishing.md", import.meta.url);

/** The commands of a chapter, block by block. */
async function commandsOf(chapter: string): Promise<readonly string[]> {
  const text = await readFile(PAGE, "utf8");
  const [, rest = ""] = text.split(`\n## ${chapter}\n`);
  const [body = ""] = rest.split("\n## ");
  return [...body.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, block = ""]) => block);
}

describe("the chapter Changing keys", () => {
  test("can be followed word for word, and a site that has the first root follows too", async () => {
    await using folder = await temporaryFolder();
    await using cleanup = new AsyncDisposableStack();
    const cwd = join(folder.path, "work");
    await mkdir(cwd);
    const program = join(folder.path, "edgesync");
    const script = `#!/bin/sh\nexec "${process.execPath}" "${BIN}" "$@"\n`;
    await writeFile(program, script, { mode: 0o755 });
    const env = { PATH: `${folder.path}:${process.env["PATH"]}`, HOME: folder.path };
    const blocks = await commandsOf("Changing keys");
    assert.ok(blocks.length >= 9, `${blocks.length} blocks`);
    let sites: Awaited<ReturnType<typeof openSites>> | undefined;
    let said = "";
    for (const block of blocks) {
      const { stdout } = await execute("sh", ["-eu", "-c", block], { cwd, env });
      said += stdout;
      if (block.includes("channel set web/stable") && sites === undefined)
        sites = cleanup.use(await openSites(join(cwd, "repository"), join(folder.path, "oracle")));
      // After each step, by sites that were given the first root.
      if (sites !== undefined) assert.equal(await sites.look(), "1.0.0");
    }
    assert.notEqual(sites, undefined);
    for (const words of [
      "published   root 1",
      "published   root 2",
      "published   root 3",
      "root removes carol",
      "complete   it can be published",
      "role app.web has the new key card",
      "channel.web.stable: 1 of 1",
    ])
      assert.ok(said.includes(words), `${words} in ${said}`);
  });
});
