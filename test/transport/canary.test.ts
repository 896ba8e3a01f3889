/** The sidecar as a process, with credentials that must not be seen anywhere but where they belong. */
import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, test } from "node:test";
import { authority } from "../support/certificates.ts";
import { openForwardProxy } from "../support/forward-proxy.ts";
import { eventually, freePort, startNode } from "../support/process.ts";
import { httpServer } from "../support/server.ts";
import { openWorld } from "../update/support/world.ts";

const BIN = fileURLToPath(new URL("../../bin/edgesync.ts", import.meta.url));

describe("credentials of the repository and of the proxy", () => {
  test("are in no line of the log, no metric, no status and no error, whatever goes wrong", async () => {
    const ca = authority();
    const localhost = ca.issue(["localhost"]);
    await using world = await openWorld(localhost);
    await world.publish("1.0.0", { health: "good", a: "1" });
    const folder = join(world.folder, "credentials");
    await mkdir(folder);
    await writeFile(join(folder, "token"), "canary-token");
    await writeFile(join(world.folder, "ca.crt"), ca.cert);
    const seen: unknown[] = [];
    const answering = (status: number, headers: Readonly<Record<string, string>> = {}) =>
      httpServer((request, response) => {
        seen.push(request.headers.authorization);
        response.writeHead(status, headers).end(`you sent ${request.headers.authorization}`);
      }, localhost);
    await using unauthorized = await answering(401, { "www-authenticate": "Bearer canary-token" });
    await using broken = await answering(500);
    await using moving = await answering(302, { location: "https://canary-token@localhost/" });
    await using proxy = await openForwardProxy();
    await using refusing = await openForwardProxy({ authorization: "Basic other" });
    const run = async (port: number, goal: RegExp): Promise<string> => {
      const own = await freePort();
      const payload = join(world.folder, `payload-${port}`);
      await mkdir(payload);
      await using program = startNode(["--disable-warning=ExperimentalWarning", BIN, "agent"], {
        HTTPS_PROXY: `http://edge:canary-proxy@127.0.0.1:${port}`,
        EDGESYNC_CHANNEL: "web/stable",
        EDGESYNC_REPOSITORY: unauthorized.url,
        EDGESYNC_REPOSITORY_MIRRORS: [broken.url, moving.url, world.origin.url].join(","),
        EDGESYNC_REPOSITORY_CREDENTIALS_DIR: folder,
        EDGESYNC_REPOSITORY_CA_FILE: join(world.folder, "ca.crt"),
        EDGESYNC_PAYLOAD_DIR: payload,
        EDGESYNC_TRUST_ROOT_FILE: world.root,
        EDGESYNC_LOG_LEVEL: "debug",
        EDGESYNC_POLL_INTERVAL: "1s",
        EDGESYNC_HEALTH: "none",
        EDGESYNC_PORT: String(own),
      });
      const ask = async (path: string): Promise<string> => {
        const response = await fetch(`http://127.0.0.1:${own}${path}`).catch(() => undefined);
        return response === undefined ? "" : await response.text();
      };
      await eventually(
        () => (goal.test(program.output()) ? true : undefined),
        () => program.output(),
      );
      const told = (await ask("/status")) + (await ask("/metrics"));
      assert.match(told, /edgesync_sidecar_failovers_total/);
      await program.end("SIGTERM");
      return told + program.output();
    };
    // base64 of "edge:canary-proxy", as it travels.
    const canary = /canary|ZWRnZTpjYW5hcnktcHJveHk/i;
    const good = await run(proxy.port, /release committed/);
    assert.doesNotMatch(good, canary);
    assert.ok(seen.includes("Bearer canary-token"), "it was sent where it belongs");
    assert.ok(proxy.authorizations.every((value) => value !== undefined));
    const bad = await run(refusing.port, /update failed/);
    assert.doesNotMatch(bad, canary);
    assert.match(bad, /ORIGIN_REFUSED/);
  });
});
