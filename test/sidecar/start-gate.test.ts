import assert from "node:assert/strict";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { describe, test } from "node:test";
import { variableOf } from "#core/settings.ts";
import { freePort, startNode } from "../support/process.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { prepareEnvironment } from "../vault/sidecar.ts";
import { openWorld } from "../vault/world.ts";

const BIN = new URL("../../bin/edgesync.ts", import.meta.url).pathname;

describe("edgesync agent --wait", () => {
  test("ends well when the sidecar beside it lets the application start, and not before", async () => {
    const asked: (string | undefined)[] = [];
    let open = false;
    const server = createServer((request, response) => {
      asked.push(request.url);
      if (open) response.writeHead(200).end();
      // One that hangs up counts as one that says no.
      else if (asked.length === 2) request.socket.destroy();
      else response.writeHead(503).end();
      if (asked.length === 4) open = true;
    });
    server.listen(0, "localhost");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    await using waiting = startNode([BIN, "agent", "--wait"], { EDGESYNC_PORT: String(port) });
    assert.equal(await waiting.ended(), 0);
    assert.deepEqual(
      asked,
      Array.from({ length: 5 }, () => "/startup"),
    );
    server.close();
  });
});

describe("edgesync agent --once", { timeout: 60_000 }, () => {
  test("ends well when the credentials are there, and leaves them for the application", async () => {
    await using world = await openWorld({ embedded: true });
    await using folder = await temporaryFolder("/dev/shm");
    const secrets = { db: { request: `${world.names.broker}/creds/app`, format: "json" } };
    const env = await prepareEnvironment(world, folder.path, { secrets });
    const ca = join(folder.path, "ca.crt");
    await writeFile(ca, world.ca ?? "");
    // As of an application that has ended: a sidecar that stays would revoke what nobody needs any more.
    const liveness = {
      handler: { kind: "tcp", port: await freePort() },
      initialDelayMs: 0,
      periodMs: 1_000,
      timeoutMs: 1_000,
      successThreshold: 1,
      failureThreshold: 3,
    };
    const startupWindow = { periodMs: 1_000, failureThreshold: 3 };
    await using agent = startNode([BIN, "agent", "--once"], {
      ...env,
      [variableOf("vault-ca-file")]: ca,
      [variableOf("port")]: String(await freePort()),
      [variableOf("app")]: JSON.stringify([{ container: "web", startupWindow, liveness }]),
    });
    assert.equal(await agent.ended(), 0, agent.output());
    const published = await readFile(join(folder.path, "volume", "set", "db"), "utf8");
    assert.ok(Object.keys(JSON.parse(published) as object).length > 0);
    assert.doesNotMatch(agent.output(), /revoked/);
    assert.ok(!world.embedded?.control.requests.some((line) => line.includes("revoke")));
  });
});
