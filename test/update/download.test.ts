import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, statSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import type { Fetch, Part } from "#core/plan.ts";
import { SIDECAR_METRICS } from "#core/metrics.ts";
import { createMetrics } from "#core/telemetry.ts";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { realClock } from "../support/real-clock.ts";
import { openOrigin } from "../support/origin.ts";
import type { Origin } from "../support/origin.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { openDownloads } from "../../sidecar/repository/download.ts";
import type { Downloads } from "../../sidecar/repository/download.ts";
import { nodeDisk } from "../../sidecar/disk/durable.ts";
import { openHttp } from "../../sidecar/network/http.ts";
import { UNSYNCED_BYTES } from "../../sidecar/repository/partial.ts";
import { openRepository } from "../../sidecar/repository/repository.ts";
import type { Repository } from "../../sidecar/repository/repository.ts";
import { noise } from "./support/world.ts";

const BLOB = noise(3, 1_000_000);
const signal = new AbortController().signal;
const digest = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

interface Bench extends AsyncDisposable {
  readonly origin: Origin;
  readonly repository: Repository;
  readonly blob: { readonly sha256: string; readonly size: number };
  readonly partial: string;
  /** As after a restart of the sidecar: only what is on disk is known. */
  open(): Downloads;
  /** Bytes that the server has sent. */
  sent(): number;
}

/** A repository with one blob. */
async function openBench(bytes: Buffer = BLOB): Promise<Bench> {
  const folder = await temporaryFolder();
  const blob = { sha256: digest(bytes), size: bytes.length };
  await mkdir(join(folder.path, "blobs/sha256"), { recursive: true });
  await writeFile(join(folder.path, "blobs/sha256", blob.sha256), bytes);
  const partials = join(folder.path, "partial");
  await mkdir(partials);
  const origin = await openOrigin(folder.path);
  const http = openHttp({ idleTimeoutMs: 2_000, unavailable: "ORIGIN_UNAVAILABLE" });
  const metrics = createMetrics(SIDECAR_METRICS, { Counter, Gauge, Histogram }, new Registry());
  const deps = { http, clock: realClock, metrics };
  const repository = openRepository(origin.url, deps);
  return {
    origin,
    repository,
    blob,
    partial: join(partials, blob.sha256),
    open: () =>
      openDownloads({
        metrics,
        disk: nodeDisk,
        folder: partials,
        repository,
        arrived: () => undefined,
      }),
    sent: () => origin.requests.reduce((sum, request) => sum + request.bytes, 0),
    async [Symbol.asyncDispose]() {
      http.close();
      await origin[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

async function contentOf(
  downloads: Downloads,
  blob: { sha256: string; size: number },
): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of downloads.read(blob)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

const whole = (blob: { sha256: string; size: number }): Fetch => ({
  fetch: "blob",
  blob,
  kind: "full",
});

describe("a download", () => {
  test("that is cut twenty times goes on each time, and wastes nothing", async () => {
    await using bench = await openBench();
    const downloads = bench.open();
    for (let cut = 0; cut < 20; cut++) {
      bench.origin.fail(/^blobs/, { fault: "truncated", after: 45_000 });
      const fetched = downloads.fetch(whole(bench.blob), signal);
      await assert.rejects(fetched, { code: "ORIGIN_UNAVAILABLE" });
      assert.equal(statSync(bench.partial).size, (cut + 1) * 45_000);
    }
    await downloads.fetch(whole(bench.blob), signal);
    assert.deepEqual(await contentOf(downloads, bench.blob), BLOB);
    assert.equal(bench.sent(), BLOB.length);
    assert.equal(bench.origin.requests.at(-1)?.range, "bytes=900000-");
  });

  test("that is cut and gone on with by another process fetches the end of what is there again, which may be torn", async () => {
    await using bench = await openBench();
    const sizes: number[] = [];
    for (let cut = 0; cut < 4; cut++) {
      bench.origin.fail(/^blobs/, { fault: "truncated", after: 200_000 });
      const fetched = bench.open().fetch(whole(bench.blob), signal);
      await assert.rejects(fetched, { code: "ORIGIN_UNAVAILABLE" });
      const content = readFileSync(bench.partial);
      sizes.push(content.length);
      // What a power cut may leave of the last bytes that were written.
      await writeFile(bench.partial, content.fill(0, content.length - UNSYNCED_BYTES));
    }
    const kept = 200_000 - UNSYNCED_BYTES;
    assert.deepEqual(
      sizes,
      [0, 1, 2, 3].map((cut) => 200_000 + cut * kept),
    );
    const downloads = bench.open();
    await downloads.fetch(whole(bench.blob), signal);
    assert.deepEqual(await contentOf(downloads, bench.blob), BLOB);
    assert.equal(bench.sent(), BLOB.length + 4 * UNSYNCED_BYTES);
  });

  test("that is complete is verified again by another process, and not fetched", async () => {
    await using bench = await openBench();
    await bench.open().fetch(whole(bench.blob), signal);
    const downloads = bench.open();
    await downloads.fetch(whole(bench.blob), signal);
    assert.equal(bench.origin.requests.length, 1);
    assert.deepEqual(await contentOf(downloads, bench.blob), BLOB);
  });

  test("that was damaged on the disk since is fetched again once it is doubted", async () => {
    await using bench = await openBench();
    const downloads = bench.open();
    await downloads.fetch(whole(bench.blob), signal);
    const torn = Buffer.from(BLOB);
    torn[5] = (torn[5] ?? 0) ^ 1;
    await writeFile(bench.partial, torn);
    downloads.doubt();
    await downloads.fetch(whole(bench.blob), signal);
    assert.deepEqual(await contentOf(downloads, bench.blob), BLOB);
  });

  test("of a target that was damaged on the disk since is made anew at once", async () => {
    await using bench = await openBench();
    const downloads = bench.open();
    const path = `blobs/sha256/${bench.blob.sha256}`;
    await downloads.file(path, bench.blob, signal);
    await writeFile(bench.partial, Buffer.alloc(BLOB.length));
    assert.deepEqual(await downloads.file(path, bench.blob, signal), BLOB);
  });

  test("goes on where it was when the server does not serve ranges", async () => {
    await using bench = await openBench();
    bench.origin.fail(/^blobs/, { fault: "reset", after: 500_000 });
    await assert.rejects(bench.open().fetch(whole(bench.blob), signal));
    bench.origin.fail(/^blobs/, { fault: "no-range" });
    const downloads = bench.open();
    await downloads.fetch(whole(bench.blob), signal);
    assert.deepEqual(await contentOf(downloads, bench.blob), BLOB);
  });

  test("whose answer is of another range is refused, and nothing of it is kept", async () => {
    await using bench = await openBench();
    const downloads = bench.open();
    bench.origin.fail(/^blobs/, { fault: "reset", after: 500_000 });
    await assert.rejects(downloads.fetch(whole(bench.blob), signal));
    // What was on its way may have been lost with the connection.
    const { size } = statSync(bench.partial);
    assert.ok(size > 0 && size <= 500_000);
    bench.origin.fail(/^blobs/, { fault: "wrong-range" });
    const fetched = downloads.fetch(whole(bench.blob), signal);
    await assert.rejects(fetched, { code: "ORIGIN_REFUSED" });
    assert.equal(statSync(bench.partial).size, size);
  });

  test("that ends too early is gone on with", async () => {
    await using bench = await openBench();
    const downloads = bench.open();
    bench.origin.fail(/^blobs/, { fault: "truncated", after: 700_000 });
    const fetched = downloads.fetch(whole(bench.blob), signal);
    await assert.rejects(fetched, { code: "ORIGIN_UNAVAILABLE" });
    await downloads.fetch(whole(bench.blob), signal);
    assert.equal(bench.sent(), BLOB.length);
  });

  test("that never ends is cut off at its signed size, and thrown away", async () => {
    await using bench = await openBench();
    bench.origin.fail(/^blobs/, { fault: "endless" });
    const fetched = bench.open().fetch(whole(bench.blob), signal);
    await assert.rejects(fetched, { code: "RESPONSE_TOO_LARGE" });
    assert.equal(existsSync(bench.partial), false);
  });

  test("with one wrong bit is thrown away, and good the next time", async () => {
    await using bench = await openBench();
    bench.origin.fail(/^blobs/, { fault: "flipped", at: 654_321 });
    const fetched = bench.open().fetch(whole(bench.blob), signal);
    await assert.rejects(fetched, { code: "DIGEST_MISMATCH" });
    assert.equal(existsSync(bench.partial), false);
    const downloads = bench.open();
    await downloads.fetch(whole(bench.blob), signal);
    assert.deepEqual(await contentOf(downloads, bench.blob), BLOB);
  });

  test("of a file that is shorter on the server than signed is thrown away", async () => {
    await using bench = await openBench();
    const downloads = bench.open();
    const longer = { ...bench.blob, size: bench.blob.size + 10 };
    await assert.rejects(downloads.fetch(whole(longer), signal), { code: "ORIGIN_UNAVAILABLE" });
    await assert.rejects(downloads.fetch(whole(longer), signal), { code: "DIGEST_MISMATCH" });
    assert.equal(existsSync(bench.partial), false);
  });

  test("that began with something else is thrown away at the end", async () => {
    await using bench = await openBench();
    await writeFile(bench.partial, noise(9, 50_000));
    const fetched = bench.open().fetch(whole(bench.blob), signal);
    await assert.rejects(fetched, { code: "DIGEST_MISMATCH" });
    await bench.open().fetch(whole(bench.blob), signal);
  });

  for (const [status, code] of [
    [404, "ORIGIN_REFUSED"],
    [410, "ORIGIN_REFUSED"],
    [403, "ORIGIN_REFUSED"],
    [302, "ORIGIN_REFUSED"],
    [429, "ORIGIN_UNAVAILABLE"],
    [500, "ORIGIN_UNAVAILABLE"],
    [503, "ORIGIN_UNAVAILABLE"],
  ] as const)
    test(`that is answered with ${status} ends with ${code}`, async () => {
      await using bench = await openBench();
      bench.origin.fail(/^blobs/, { fault: "status", status });
      await assert.rejects(bench.open().fetch(whole(bench.blob), signal), { code });
    });

  test("stops at once when it is aborted, with the caller's reason, and keeps what it has", async () => {
    await using bench = await openBench();
    bench.origin.fail(/^blobs/, { fault: "truncated", after: 100_000 });
    await assert.rejects(bench.open().fetch(whole(bench.blob), signal));
    const reason = new Error("enough");
    await assert.rejects(bench.open().fetch(whole(bench.blob), AbortSignal.abort(reason)), reason);
    assert.equal(statSync(bench.partial).size, 100_000);
  });
});

describe("a server that asks for rest", () => {
  const later = new Date(Date.now() + 3_600_000).toUTCString();
  for (const [what, headers, least, most] of [
    ["for seconds", { "retry-after": "120" }, 119_000, 120_000],
    [
      "until a date",
      { "retry-after": later, date: new Date().toUTCString() },
      3_500_000,
      3_600_000,
    ],
    ["for a month by mistake", { "retry-after": "2592000" }, 21_000_000, 21_600_000],
    ["for nonsense", { "retry-after": "soon" }, 0, 0],
  ] as const)
    test(`${what} gets it`, async () => {
      await using bench = await openBench();
      bench.origin.fail(/^blobs/, { fault: "status", status: 503, headers });
      await assert.rejects(bench.open().fetch(whole(bench.blob), signal));
      const hold = bench.repository.holdMs();
      assert.ok(hold >= least && hold <= most, String(hold));
    });
});

describe("parts of a pack", () => {
  const small = [noise(11, 9_000), noise(12, 20_000), noise(13, 5_000), noise(14, 30_000)];
  const pack = Buffer.concat(small);
  const parts = small.map((bytes, index): Part => {
    const offset = small.slice(0, index).reduce((sum, item) => sum + item.length, 0);
    return { sha256: digest(bytes), size: bytes.length, offset, kind: "full" };
  });
  const some = (...indexes: readonly number[]): readonly Part[] =>
    indexes.flatMap((index) => parts[index] ?? []);

  test("come by one range, without what lies between them", async () => {
    await using bench = await openBench(pack);
    const downloads = bench.open();
    await downloads.fetch({ fetch: "range", pack: bench.blob, parts: some(0, 2) }, signal);
    assert.deepEqual(
      bench.origin.requests.map(({ range }) => range),
      ["bytes=0-33999"],
    );
    for (const index of [0, 2])
      assert.deepEqual(await contentOf(downloads, parts[index] ?? bench.blob), small[index]);
    assert.equal(existsSync(join(bench.partial, "..", parts[1]?.sha256 ?? "")), false);
  });

  test("that are here already are not fetched again after a cut", async () => {
    await using bench = await openBench(pack);
    bench.origin.fail(/^blobs/, { fault: "truncated", after: 31_000 });
    const wanted: Fetch = { fetch: "range", pack: bench.blob, parts };
    await assert.rejects(bench.open().fetch(wanted, signal), { code: "ORIGIN_UNAVAILABLE" });
    const downloads = bench.open();
    await downloads.fetch(wanted, signal);
    assert.equal(bench.origin.requests.at(-1)?.range, `bytes=29000-${pack.length - 1}`);
    for (const [index, part] of parts.entries())
      assert.deepEqual(await contentOf(downloads, part), small[index]);
  });

  test("are found when the server sends the whole pack", async () => {
    await using bench = await openBench(pack);
    bench.origin.fail(/^blobs/, { fault: "no-range" });
    const downloads = bench.open();
    await downloads.fetch({ fetch: "range", pack: bench.blob, parts: some(1, 2) }, signal);
    assert.deepEqual(await contentOf(downloads, parts[1] ?? bench.blob), small[1]);
    assert.deepEqual(await contentOf(downloads, parts[2] ?? bench.blob), small[2]);
  });

  test("with a wrong bit are refused, and those before them kept", async () => {
    await using bench = await openBench(pack);
    bench.origin.fail(/^blobs/, { fault: "flipped", at: 10_000 });
    const fetched = bench.open().fetch({ fetch: "range", pack: bench.blob, parts }, signal);
    await assert.rejects(fetched, { code: "DIGEST_MISMATCH" });
    assert.equal(existsSync(join(bench.partial, "..", parts[0]?.sha256 ?? "")), true);
    assert.equal(existsSync(join(bench.partial, "..", parts[1]?.sha256 ?? "")), false);
  });

  test("come with the whole pack when that is what is fetched", async () => {
    await using bench = await openBench(pack);
    const downloads = bench.open();
    await downloads.fetch({ fetch: "pack", pack: bench.blob, parts }, signal);
    for (const [index, part] of parts.entries())
      assert.deepEqual(await contentOf(downloads, part), small[index]);
    assert.deepEqual(readFileSync(bench.partial), pack);
    await downloads.keepOnly(new Set());
    assert.equal(existsSync(bench.partial), false);
  });
});
