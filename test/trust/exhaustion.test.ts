/** Answers that are meant to use up memory, a processor or time. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { parseTargets } from "#core/trust/metadata.ts";
import { refresh } from "#core/trust/refresh.ts";
import { fetchTarget } from "#core/trust/target.ts";
import { matchesPattern } from "#core/trust/paths.ts";
import { openHttp, readBody } from "../../sidecar/network/http.ts";
import { byteServer } from "../support/server.ts";
import { TARGET, TARGET_BYTES, makeWorld, never } from "./world.ts";
import type { World } from "./world.ts";

const INVALID = { code: "METADATA_INVALID" };

function refreshed(world: World): ReturnType<typeof refresh> {
  return refresh(world.deps, never);
}

async function fetched(world: World, limit: number = 1000): Promise<Uint8Array> {
  return fetchTarget(await refreshed(world), TARGET, limit, world.deps, never);
}

/** Processor time of this process that something takes, in milliseconds. */
async function costOf(work: () => Promise<unknown> | void): Promise<number> {
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

describe("endless data", () => {
  test("no more is asked for than a limit, and more is refused before it is parsed", async () => {
    const world = makeWorld();
    world.publish();
    world.files.set("metadata/timestamp.json", Buffer.alloc(16_385, " "));
    await assert.rejects(refreshed(world), { code: "RESPONSE_TOO_LARGE" });
    world.publish();
    world.files.set("metadata/2.root.json", Buffer.alloc(512_001, " "));
    await assert.rejects(refreshed(world), { code: "RESPONSE_TOO_LARGE" });
  });

  test("a snapshot longer than the timestamp says is refused", async () => {
    const world = makeWorld();
    world.publish();
    const good = world.files.get("metadata/1.snapshot.json") ?? Buffer.alloc(0);
    world.files.set("metadata/1.snapshot.json", Buffer.concat([good, Buffer.from(" ")]));
    await assert.rejects(refreshed(world), { code: "RESPONSE_TOO_LARGE" });
  });

  test("a target longer than the caller can take is not even fetched", async () => {
    const world = makeWorld();
    world.publish();
    await assert.rejects(fetched(world, TARGET_BYTES.length - 1), { code: "RESPONSE_TOO_LARGE" });
    assert.ok(!world.requests.some((name) => name.startsWith("targets/")));
  });

  test("a body that never ends is given up at the limit, over a real connection", async () => {
    let sent = 0;
    await using server = await byteServer((socket) => {
      socket.write("HTTP/1.1 200 OK\r\n\r\n");
      const more = (): void => {
        while (!socket.destroyed && socket.write(Buffer.alloc(65_536))) sent += 65_536;
        socket.once("drain", more);
      };
      more();
    });
    const http = openHttp({ idleTimeoutMs: 5_000, unavailable: "ORIGIN_UNAVAILABLE" });
    const source = {
      async metadata(name: string, limit: number, signal: AbortSignal) {
        const url = `${server.url}/${name}`;
        return readBody(await http.request({ method: "GET", url }, signal), limit, signal);
      },
      target: () => Promise.resolve(undefined),
    };
    const world = makeWorld();
    await assert.rejects(refresh({ ...world.deps, source }, never), { code: "RESPONSE_TOO_LARGE" });
    http.close();
    // What was on its way when the connection was given up.
    assert.ok(sent < 32 * 2 ** 20, `${sent} bytes`);
  });
});

/** Milliseconds of a processor for a file of a few megabytes: many times what it takes, and far below what a quadratic step would. */
const BOUND_MS = 3_000;

describe("CPU exhaustion", () => {
  const files: Readonly<Record<string, () => string>> = {
    "deep nesting": () =>
      `{"signed":${'{"a":'.repeat(400_000)}1${"}".repeat(400_000)},"signatures":[]}`,
    "nested lists": () =>
      `{"signed":{"a":${"[".repeat(1_000_000)}${"]".repeat(1_000_000)}},"signatures":[]}`,
    "many keys of nothing": () =>
      `{"signed":{"_type":"targets","delegations":{"roles":[],"keys":{${many(200_000, (i) => `"${i}":{}`)}}}},"signatures":[]}`,
    "many targets of nothing": () =>
      `{"signed":{"_type":"targets","targets":{${many(300_000, (i) => `"${i}":{}`)}}},"signatures":[]}`,
    "many targets": () =>
      `{"signed":{"_type":"targets","spec_version":"1.0.34","version":1,"expires":"2030-01-01T00:00:00Z","targets":{${many(60_000, (i) => `"a/${i}":{"length":1,"hashes":{"sha256":"ab"}}`)}}},"signatures":[]}`,
    "many delegations": () =>
      `{"signed":{"_type":"targets","spec_version":"1.0.34","version":1,"expires":"2030-01-01T00:00:00Z","targets":{},"delegations":{"keys":{},"roles":[${many(40_000, (i) => `{"name":"r${i}","keyids":[],"threshold":1,"terminating":false,"paths":["*"]}`)}]}},"signatures":[]}`,
    "many signatures": () =>
      `{"signed":{},"signatures":[${many(80_000, (i) => `{"keyid":"${i}","sig":"00"}`)}]}`,
    "one signature many times": () =>
      `{"signed":{},"signatures":[${many(80_000, () => `{"keyid":"a","sig":"00"}`)}]}`,
    "long numbers": () => `{"signed":{"version":${"9".repeat(4_000_000)}},"signatures":[]}`,
    "many unknown fields": () =>
      `{"signed":{${many(300_000, (i) => `"x${i}":1`)}},"signatures":[]}`,
  };
  for (const [what, text] of Object.entries(files))
    test(`${what} takes no more than its size`, async () => {
      const bytes = Buffer.from(text());
      assert.ok(bytes.length <= 5_000_000 && bytes.length > 1_000_000, `${bytes.length} bytes`);
      const cost = await costOf(() => {
        try {
          parseTargets(bytes, "role");
        } catch (error) {
          assert.equal((error as { code?: string }).code, INVALID.code);
        }
      });
      assert.ok(cost < BOUND_MS, `${cost} ms`);
    });

  test("patterns made for backtracking take no more than their length times the path's", async () => {
    const path = `${"a".repeat(10_000)}b`;
    const pattern = `${"*a".repeat(100)}*c`;
    const cost = await costOf(() => assert.equal(matchesPattern(path, pattern), false));
    assert.ok(cost < BOUND_MS, `${cost} ms`);
  });

  test("signatures of keys that a role does not name are not even looked at", async () => {
    const world = makeWorld();
    world.publish();
    const { signed, signatures } = JSON.parse(
      (world.files.get("metadata/timestamp.json") ?? "").toString(),
    );
    const others = Array.from({ length: 100 }, (_, i) => ({
      keyid: `k${i}`,
      sig: "00".repeat(32),
    }));
    const text = JSON.stringify({ signed, signatures: [...others, ...signatures] });
    world.files.set("metadata/timestamp.json", Buffer.from(text));
    await refreshed(world);
  });
});

function many(count: number, one: (index: number) => string): string {
  return Array.from({ length: count }, (_, index) => one(index)).join(",");
}

describe("slow retrieval attack", () => {
  test("a source that stalls holds nothing up but the look, which ends when it is given up", async () => {
    const world = makeWorld();
    world.publish();
    await refreshed(world);
    const before = new Map(world.stored);
    const stalled = Promise.withResolvers<void>();
    const wait = (signal: AbortSignal): Promise<never> =>
      new Promise((_, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
        stalled.resolve();
      });
    const source = {
      metadata: (_name: string, _limit: number, signal: AbortSignal) => wait(signal),
      target: (_path: string, _limit: number, signal: AbortSignal) => wait(signal),
    };
    const stop = new AbortController();
    const look = refresh({ ...world.deps, source }, stop.signal);
    await stalled.promise;
    const reason = new Error("given up");
    stop.abort(reason);
    await assert.rejects(look, reason);
    assert.deepEqual(world.stored, before);
    await refreshed(world);
  });

  test("what came before the stall is kept, and the next look goes on from there", async () => {
    const world = makeWorld();
    world.publish();
    for (let version = 2; version <= 20; version++) world.publishRoot(version);
    const stop = new AbortController();
    const reason = new Error("given up");
    const source = {
      ...world.deps.source,
      metadata(name: string, limit: number, signal: AbortSignal) {
        if (!name.startsWith("11.")) return world.deps.source.metadata(name, limit, signal);
        stop.abort(reason);
        return Promise.reject(reason);
      },
    };
    await assert.rejects(refresh({ ...world.deps, source }, stop.signal), reason);
    world.requests.length = 0;
    assert.equal((await refreshed(world)).root.version, 20);
    assert.equal(world.requests[0], "metadata/11.root.json");
  });

  test("over a real connection: a server that sends nothing more is given up", async () => {
    await using server = await byteServer((socket) => {
      socket.write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{");
    });
    const http = openHttp({ idleTimeoutMs: 50, unavailable: "ORIGIN_UNAVAILABLE" });
    const source = {
      async metadata(name: string, limit: number, signal: AbortSignal) {
        const url = `${server.url}/${name}`;
        return readBody(await http.request({ method: "GET", url }, signal), limit, signal);
      },
      target: () => Promise.resolve(undefined),
    };
    const world = makeWorld();
    await assert.rejects(refresh({ ...world.deps, source }, never), { code: "ORIGIN_UNAVAILABLE" });
    http.close();
  });
});
