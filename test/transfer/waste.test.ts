/** What interruptions cost in bytes: nothing but what was not durable, and at most 64 KiB each. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { existsSync, readFileSync, readdirSync, statSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import type { Fetch, Part } from "#core/plan.ts";
import { SIDECAR_METRICS } from "#core/metrics.ts";
import { createMetrics } from "#core/telemetry.ts";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { openFaultProxy } from "../support/fault-proxy.ts";
import type { FaultProxy } from "../support/fault-proxy.ts";
import { openOrigin } from "../support/origin.ts";
import { realClock } from "../support/real-clock.ts";
import { MEMORY, temporaryFolder } from "../support/temporary.ts";
import { openDownloads } from "../../sidecar/repository/download.ts";
import type { Downloads } from "../../sidecar/repository/download.ts";
import { nodeDisk } from "../../sidecar/disk/durable.ts";
import type { Disk } from "../../sidecar/disk/durable.ts";
import { openHttp } from "../../sidecar/network/http.ts";
import { openRepository } from "../../sidecar/repository/repository.ts";
import { noise } from "../update/support/world.ts";
import { losingDisk } from "./support/losing-disk.ts";

const KIB = 1024;
const never = new AbortController().signal;

interface Bench extends AsyncDisposable {
  readonly proxy: FaultProxy;
  readonly blob: { readonly sha256: string; readonly size: number };
  readonly partials: string;
  readonly partial: string;
  /** Bytes that downloads have taken. */
  taken(): number;
  /** A process that has just been started. */
  open(disk?: Disk): Downloads;
}

async function openBench(content: Buffer): Promise<Bench> {
  const folder = await temporaryFolder(MEMORY);
  const sha256 = createHash("sha256").update(content).digest("hex");
  await mkdir(join(folder.path, "blobs/sha256"), { recursive: true });
  await writeFile(join(folder.path, "blobs/sha256", sha256), content);
  const partials = join(folder.path, "partial");
  await mkdir(partials);
  const origin = await openOrigin(folder.path);
  const proxy = await openFaultProxy(origin.url);
  const metrics = createMetrics(SIDECAR_METRICS, { Counter, Gauge, Histogram }, new Registry());
  const http = openHttp({ idleTimeoutMs: 20_000, unavailable: "ORIGIN_UNAVAILABLE" });
  let taken = 0;
  return {
    proxy,
    partials,
    partial: join(partials, sha256),
    blob: { sha256, size: content.length },
    taken: () => taken,
    open: (disk = nodeDisk) =>
      openDownloads({
        disk,
        folder: partials,
        repository: openRepository(proxy.url, { http, clock: realClock, metrics }),
        metrics,
        arrived: (bytes) => void (taken += bytes),
      }),
    async [Symbol.asyncDispose]() {
      http.close();
      await proxy[Symbol.asyncDispose]();
      await origin[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

/** Resolves when something holds; the test's own time-out is its bound. */
async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await delay(2);
}

describe("a large download", () => {
  test("that is reset twenty times wastes no byte", async (t) => {
    const EACH = 500 * KIB;
    const content = noise(5, 21 * EACH);
    await using bench = await openBench(content);
    const { proxy, blob } = bench;
    for (let cut = 1; cut <= 20; cut++) {
      const arrived = (): Promise<void> => until(() => bench.taken() >= cut * EACH);
      proxy.fail(/^blobs/, { fault: "reset", after: EACH, arrived });
    }
    const downloads = bench.open();
    for (let cut = 1; cut <= 20; cut++)
      await assert.rejects(downloads.fetch({ fetch: "blob", blob, kind: "full" }, never), {
        code: "ORIGIN_UNAVAILABLE",
      });
    await downloads.fetch({ fetch: "blob", blob, kind: "full" }, never);
    const sent = proxy.requests.reduce((sum, request) => sum + request.sent, 0);
    t.diagnostic(`${sent - blob.size} of ${blob.size} bytes sent in vain`);
    assert.equal(proxy.requests.length, 21);
    assert.ok(sent - blob.size <= blob.size / 100);
    assert.equal(sent, blob.size);
    assert.ok(readFileSync(bench.partial).equals(content));
  });

  test("that is reset with bytes in every buffer keeps what the process has been given", async () => {
    await using bench = await openBench(noise(6, 3_000_000));
    const { proxy, blob } = bench;
    const downloads = bench.open();
    for (let cut = 0; cut < 5; cut++) {
      proxy.fail(/^blobs/, { fault: "closed", after: 500_000 });
      await assert.rejects(downloads.fetch({ fetch: "blob", blob, kind: "full" }, never));
    }
    assert.equal(statSync(bench.partial).size, 2_500_000);
  });

  test("whose process is killed costs at most 64 KiB each time", async (t) => {
    const content = noise(7, 2_000_000);
    await using bench = await openBench(content);
    const { proxy, blob, partials, partial } = bench;
    const program = fileURLToPath(new URL("support/download-process.ts", import.meta.url));
    const options = JSON.stringify({ url: proxy.url, folder: partials, blob });
    const start = (): ReturnType<typeof spawn> =>
      spawn(process.execPath, [program, options], { stdio: ["ignore", "pipe", "inherit"] });
    const size = (): number => statSync(partial, { throwIfNoEntry: false })?.size ?? 0;
    const KILLS = 3;
    for (let kill = 0; kill < KILLS; kill++) {
      const before = Math.max(0, size() - 32 * KIB);
      proxy.fail(/^blobs/, { fault: "stall", after: 450_000 });
      const child = start();
      await until(() => size() === before + 450_000);
      child.kill("SIGKILL");
      await once(child, "close");
    }
    const child = start();
    const [status] = (await once(child, "close")) as [number];
    assert.equal(status, 0);
    assert.ok(readFileSync(partial).equals(content));
    const sent = proxy.requests.reduce((sum, request) => sum + request.sent, 0);
    const each = (sent - blob.size) / KILLS;
    t.diagnostic(`${each} bytes for each kill`);
    assert.ok(each <= 64 * KIB, `${each} bytes`);
  });

  test("that a power cut interrupts costs at most 64 KiB each time, whatever is lost or torn", async (t) => {
    const content = noise(8, 900_000);
    let worst = 0;
    for (let seed = 1; seed <= 25; seed++) {
      await using bench = await openBench(content);
      const { blob } = bench;
      const numbers = noise(seed, 4_000);
      let at = 0;
      const random = (): number => (numbers[at++ % numbers.length] ?? 0) / 256;
      for (let cut = 0; cut < 3; cut++) {
        const hang = new Promise(() => undefined);
        let left = 2 + Math.floor(random() * 12);
        let dead = (): void => undefined;
        const died = new Promise<void>((resolve) => {
          dead = resolve;
        });
        const losing = losingDisk(async () => {
          left -= 1;
          if (left > 0) return;
          dead();
          await hang;
        });
        const downloads = bench.open(losing.disk);
        const had = bench.taken();
        const fetched = downloads.fetch({ fetch: "blob", blob, kind: "full" }, never);
        await Promise.race([died, fetched]);
        const before = existsSync(bench.partial) ? statSync(bench.partial).size : 0;
        await losing.cut(random);
        // What the next process does not rely on, and what this one held and could not write.
        const after = existsSync(bench.partial) ? statSync(bench.partial).size : 0;
        const lost = before - Math.max(0, after - 32 * KIB);
        worst = Math.max(worst, lost);
        assert.ok(lost <= 64 * KIB, `seed ${seed}: ${lost} bytes lost`);
        assert.ok(bench.taken() > had);
      }
      await bench.open().fetch({ fetch: "blob", blob, kind: "full" }, never);
      assert.ok(readFileSync(bench.partial).equals(content), `seed ${seed}`);
      // No tail was bad that had been relied on: the file was never begun anew.
      const anew = bench.proxy.requests.filter(({ range }) => range === undefined).length;
      assert.ok(anew <= 3, `seed ${seed}: begun ${anew} times`);
      const waste = bench.taken() - blob.size;
      assert.ok(waste <= 3 * 128 * KIB, `seed ${seed}: ${waste} bytes taken in vain`);
    }
    t.diagnostic(`${worst} bytes at most`);
  });
});

describe("parts of a pack", () => {
  test("that a power cut interrupts cost at most 64 KiB, and no part that was there before", async () => {
    const sizes = Array.from({ length: 40 }, (_, index) => 3_000 + ((index * 7_919) % 25_000));
    const contents = sizes.map((size, index) => noise(100 + index, size));
    const pack = Buffer.concat(contents);
    let offset = 0;
    const parts = contents.map((content): Part => {
      const sha256 = createHash("sha256").update(content).digest("hex");
      const part = { sha256, size: content.length, offset, kind: "full" as const };
      offset += content.length;
      return part;
    });
    for (let seed = 1; seed <= 12; seed++) {
      await using bench = await openBench(pack);
      const wanted: Fetch = { fetch: "range", pack: bench.blob, parts };
      const numbers = noise(seed, 4_000);
      let at = 0;
      const random = (): number => (numbers[at++ % numbers.length] ?? 0) / 256;
      const hang = new Promise(() => undefined);
      let left = 5 + Math.floor(random() * 30);
      let dead = (): void => undefined;
      const died = new Promise<void>((resolve) => {
        dead = resolve;
      });
      const losing = losingDisk(async () => {
        left -= 1;
        if (left > 0) return;
        dead();
        await hang;
      });
      await Promise.race([died, bench.open(losing.disk).fetch(wanted, never)]);
      const written = readdirSync(bench.partials).length - 1;
      await losing.cut(random);
      const downloads = bench.open();
      await downloads.fetch(wanted, never);
      const begun = parts.slice(0, written).reduce((sum, { size }) => sum + size, 0);
      const again = Number(/=(\d+)-/.exec(bench.proxy.requests.at(-1)?.range ?? "")?.[1]);
      assert.ok(begun - again <= 64 * KIB, `seed ${seed}: ${begun - again} bytes lost`);
      for (const [index, part] of parts.entries()) {
        const chunks: Uint8Array[] = [];
        for await (const chunk of downloads.read(part)) chunks.push(chunk);
        assert.deepEqual(Buffer.concat(chunks), contents[index]);
      }
    }
  });
});
