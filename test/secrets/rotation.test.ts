import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { SIDECAR_METRICS } from "#core/metrics.ts";
import type { OnUpdate } from "#core/on-update.ts";
import { beginTelling, endTelling, noRotation, publishedSet, tellAt } from "#core/rotation.ts";
import type { Rotation } from "#core/rotation.ts";
import { fromEnv } from "#core/settings.ts";
import { createMetrics } from "#core/telemetry.ts";
import { openRotateHook } from "../../sidecar/application/rotate.ts";
import { openWorkload } from "../../sidecar/application/workload.ts";
import { ALONE } from "../../sidecar/claim/turn.ts";
import type { RotateHook } from "../../sidecar/secrets/rotation.ts";
import { realClock } from "../support/real-clock.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { recordedLog, startSidecar, until } from "../vault/sidecar.ts";
import { openWorld } from "../vault/world.ts";
import type { World } from "../vault/world.ts";

const NEVER = Number.POSITIVE_INFINITY;

describe("new secrets", () => {
  const first = publishedSet(noRotation, "a", 0);

  test("are no news when they are the first", () => {
    assert.equal(tellAt(first), NEVER);
    assert.equal(tellAt(publishedSet(first, "a", 5)), NEVER);
  });

  test("are told once they have been quiet for two seconds, and after ten at the latest", () => {
    let rotation = publishedSet(first, "b", 1_000);
    assert.equal(tellAt(rotation), 3_000);
    rotation = publishedSet(rotation, "c", 2_500);
    assert.equal(tellAt(rotation), 4_500);
    for (let at = 4_000; at < 11_000; at += 1_000) rotation = publishedSet(rotation, `${at}`, at);
    assert.equal(tellAt(rotation), 11_000);
  });

  test("that are the old ones again need not be told", () => {
    assert.equal(tellAt(publishedSet(publishedSet(first, "b", 0), "a", 1)), NEVER);
  });

  test("that come while the application is told are told after it", () => {
    const telling = beginTelling(publishedSet(first, "b", 0));
    assert.equal(telling.told, "b");
    const more = publishedSet(telling, "c", 5_000);
    assert.equal(tellAt(more), NEVER);
    assert.equal(tellAt(endTelling(more)), 7_000);
  });

  test("are told at most once for each change, however the sidecar ends in between", () => {
    const step = fc.constantFrom("publish", "again", "tell", "end", "killed");
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        let rotation = first;
        let saved: Rotation = first;
        let set = 0;
        let at = 0;
        const told: (string | undefined)[] = [];
        for (const what of steps) {
          at += 20_000;
          if (what === "publish") set++;
          if (what === "publish" || what === "again")
            rotation = publishedSet(rotation, String(set), at);
          if (what === "tell" && tellAt(rotation) < at) {
            saved = rotation = beginTelling(rotation);
            told.push(rotation.told);
          }
          if (what === "end") rotation = endTelling(rotation);
          if (what === "killed") rotation = { ...noRotation, told: saved.told };
        }
        assert.equal(new Set(told).size, told.length);
      }),
    );
  });
});

let world: World;
before(async () => {
  world = await openWorld({ embedded: true });
});
after(() => world[Symbol.asyncDispose]());

const path = (name: string): string => `${world.names.kv}/data/web/${name}`;
const write = (name: string, value: string): Promise<unknown> =>
  world.configure("POST", path(name), { data: { value } });

/** An application that reloads, at a real port; and a clock on which pauses are short. */
async function openApplication(status: () => number) {
  const bodies: string[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      bodies.push(Buffer.concat(chunks).toString("utf8"));
      response.writeHead(status()).end();
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const onRotate: OnUpdate = { kind: "http", port, path: "/reload" };
  const settings = { ...fromEnv({}), onRotate };
  const clock = {
    ...realClock,
    sleep: (ms: number, signal: AbortSignal) => realClock.sleep(ms / 100, signal),
  };
  const registry = createMetrics(SIDECAR_METRICS, { Counter, Gauge, Histogram }, new Registry());
  const deps = { settings, clock: realClock, random: () => 0, log: recordedLog() };
  const workload = openWorkload({ ...deps, metrics: registry });
  const hookWith = (held: () => boolean): RotateHook | undefined =>
    openRotateHook({
      settings,
      clock,
      random: () => 0,
      held,
      turn: ALONE,
      workload,
    });
  return {
    bodies,
    hookWith,
    hook: hookWith(() => false),
    async [Symbol.asyncDispose]() {
      workload[Symbol.dispose]();
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}

describe("on-rotate", () => {
  const secrets = () => ({
    one: { request: path("one"), format: "raw:value" },
    two: { request: path("two"), format: "raw:value" },
  });

  test("asks the application once for what changes together, never for the first set, and not again after a restart", async () => {
    await write("one", "1");
    await write("two", "1");
    await using folder = await temporaryFolder("/dev/shm");
    await using app = await openApplication(() => 200);
    const options = {
      folder: folder.path,
      refreshInterval: "1s",
      secrets: secrets(),
      rotate: app.hook,
    };
    {
      await using sidecar = await startSidecar(world, options);
      await until(() => sidecar.agent.published(), "published");
      await write("one", "2");
      await write("two", "2");
      await until(() => sidecar.agent.status().onRotate?.state === "told", "told");
      assert.equal(await sidecar.file("one"), "2");
      assert.equal(await sidecar.file("two"), "2");
      assert.equal(app.bodies.length, 1);
      assert.match(app.bodies[0] ?? "", /"hook":"rotate"/);
      assert.doesNotMatch(app.bodies[0] ?? "", /web|value/);
    }
    await using next = await startSidecar(world, options);
    await until(() => next.agent.published(), "published");
    await write("one", "3");
    await until(() => next.agent.status().onRotate?.state === "told", "told again");
    assert.equal(app.bodies.length, 2);
  });

  test("gives an application up that does not take it, says so, and tells it of the next change", async () => {
    await write("one", "1");
    await write("two", "1");
    let status = 500;
    await using app = await openApplication(() => status);
    await using sidecar = await startSidecar(world, {
      refreshInterval: "1s",
      secrets: secrets(),
      rotate: app.hook,
    });
    await until(() => sidecar.agent.published(), "published");
    await write("one", "2");
    await until(() => sidecar.agent.status().onRotate?.state === "failed", "given up");
    assert.equal(app.bodies.length, 8);
    const metrics = await sidecar.registry.metrics();
    assert.match(metrics, /edgesync_sidecar_rotation_hooks_total\{outcome="failed"\} 1/);
    status = 200;
    await write("one", "3");
    await until(() => sidecar.agent.status().onRotate?.state === "told", "told");
  });

  test("waits until the application has been let start", async () => {
    await write("one", "1");
    await write("two", "1");
    let held = true;
    await using app = await openApplication(() => 200);
    await using sidecar = await startSidecar(world, {
      refreshInterval: "1s",
      secrets: secrets(),
      rotate: app.hookWith(() => held),
    });
    await until(() => sidecar.agent.published(), "published");
    await write("one", "2");
    await until(() => sidecar.agent.status().onRotate?.state === "waiting", "waiting");
    await until(async () => (await sidecar.file("one")) === "2", "published meanwhile");
    assert.equal(app.bodies.length, 0);
    held = false;
    await until(() => sidecar.agent.status().onRotate?.state === "told", "told");
  });
});
