import assert from "node:assert/strict";
import { mkdir, readlink } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { serve } from "../../publisher/serve.ts";
import { edgesync, makeTree } from "../publisher/world.ts";
import { eventually, freePort, startNode } from "../support/process.ts";
import { temporaryFolder } from "../support/temporary.ts";

describe("a sidecar outside of a pod", () => {
  test("swaps without being asked for the start gate: there is no kubelet that holds anything back", async () => {
    await using folder = await temporaryFolder();
    const run = async (...args: readonly string[]): Promise<void> => {
      const ran = await edgesync(args, { cwd: folder.path });
      assert.equal(ran.status, 0, ran.stderr);
    };
    const publish = async (version: string): Promise<void> => {
      await makeTree(join(folder.path, version), { "version.txt": version });
      const platform = `${process.platform}-${process.arch}`;
      const name = ["--app", "web", "--version", version, "--platform", platform];
      await run("release", "add", version, ...name);
      await run("channel", "set", "web/stable", version);
    };
    await run("init");
    await publish("1.0.0");
    const root = join(folder.path, "repository");
    await using server = await serve({ root, host: "127.0.0.1", port: 0 });
    const payload = join(folder.path, "payload");
    await mkdir(payload);
    await using sidecar = startNode(["bin/edgesync.ts", "agent"], {
      EDGESYNC_PORT: String(await freePort()),
      EDGESYNC_CHANNEL: "web/stable",
      EDGESYNC_REPOSITORY: server.url,
      EDGESYNC_PAYLOAD_DIR: payload,
      EDGESYNC_TRUST_ROOT_FILE: join(root, "metadata", "1.root.json"),
      EDGESYNC_POLL_INTERVAL: "1s",
      EDGESYNC_ON_UPDATE: "none",
      EDGESYNC_HEALTH: "none",
    });
    for (const version of ["1.0.0", "1.0.1"]) {
      if (version !== "1.0.0") await publish(version);
      await eventually(
        async () => {
          const current = await readlink(join(payload, "current")).catch(() => "");
          return current.startsWith(`banks/${version}-`) || undefined;
        },
        () => sidecar.output(),
      );
    }
    assert.equal(await sidecar.end("SIGTERM"), 0);
  });
});
