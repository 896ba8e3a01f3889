import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { bundle, bundleOne, packagesIn } from "../../scripts/bundle.ts";
import { readImage } from "../../scripts/image.ts";
import type { Bundle } from "../../scripts/bundle.ts";
import { eventually, freePort, startNode } from "../support/process.ts";
import { temporaryFolder } from "../support/temporary.ts";

describe("the image's bundles", () => {
  let folder: Awaited<ReturnType<typeof temporaryFolder>>;
  let bundles: readonly Bundle[] = [];

  before(async () => {
    folder = await temporaryFolder();
    bundles = await bundle(folder.path);
  });
  after(() => folder[Symbol.asyncDispose]());

  test("are one file for each program and one that dispatches", async () => {
    assert.deepEqual(
      bundles.map(({ program }) => program),
      ["edgesync", "sidecar", "webhook", "publisher"],
    );
    const dispatcher = await readFile(join(folder.path, "edgesync.mjs"), "utf8");
    for (const program of ["sidecar", "webhook", "publisher"])
      assert.ok(dispatcher.includes(`import("./${program}.mjs")`), program);
    assert.ok(dispatcher.length < 2_000, "the dispatcher holds a program");
  });

  test("run without the sources and without node_modules", async () => {
    const port = await freePort();
    const { entryPoint, env } = await readImage(folder.path);
    await using sidecar = startNode([...entryPoint.slice(1), "agent"], {
      ...env,
      EDGESYNC_PORT: String(port),
    });
    await eventually(
      async () => {
        try {
          return (await fetch(`http://127.0.0.1:${port}/live`)).status === 200 || undefined;
        } catch {
          // Not listening yet.
          return undefined;
        }
      },
      () => sidecar.output(),
    );
    assert.equal(await sidecar.end("SIGTERM"), 0);
  });

  test("load no program that was not asked for", async () => {
    await using help = startNode([join(folder.path, "edgesync.mjs"), "agent", "--help"]);
    assert.equal(await help.ended(), 0);
    assert.match(help.output(), /edgesync agent/);
  });

  test("of the sidecar hold none of the libraries that are too large for it", async () => {
    const { metafile } = await bundleOne("sidecar/main.ts", join(folder.path, "again.mjs"));
    const packages = packagesIn(metafile);
    for (const needed of ["pino", "prom-client", "valibot"])
      assert.ok(packages.includes(needed), `${needed} is not in ${packages.join(", ")}`);
    for (const forbidden of ["express", "@kubernetes/client-node", "node-forge", "yaml"])
      assert.ok(!packages.includes(forbidden), forbidden);
    const programs = Object.keys(metafile.inputs).filter((path) => !path.includes("node_modules"));
    for (const path of programs) assert.match(path, /^(sidecar|src)\//);
  });
});
