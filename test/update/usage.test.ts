import assert from "node:assert/strict";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { SIDECAR_METRICS } from "#core/metrics.ts";
import { createMetrics } from "#core/telemetry.ts";
import { nodeDisk } from "../../sidecar/disk/durable.ts";
import { openUsage } from "../../sidecar/update/usage.ts";
import type { UsageBook } from "../../sidecar/update/usage.ts";
import { manualClock } from "../support/clock.ts";
import { temporaryFolder } from "../support/temporary.ts";

function open(root: string): UsageBook {
  const clock = manualClock();
  const metrics = createMetrics(SIDECAR_METRICS, { Counter, Gauge, Histogram }, new Registry());
  return openUsage({
    root,
    disk: nodeDisk,
    clock,
    metrics,
    now: () => clock.now(),
    budget: 1 << 30,
  });
}

describe("the bytes of a day", () => {
  test("are saved one after the other, however many ask at once", async () => {
    await using folder = await temporaryFolder();
    for (let round = 1; round <= 20; round++) {
      const book = open(folder.path);
      book.count(round * 20_000_000);
      await Promise.all([book.save(), book.save(), book.save()]);
      const text = await readFile(join(folder.path, "usage.json"), "utf8");
      const saved = JSON.parse(text) as { readonly bytes: number };
      assert.ok(saved.bytes >= book.today().usage.bytes);
    }
  });

  test("are saved after a save that failed, which is told to who asked for that one", async () => {
    await using folder = await temporaryFolder();
    const missing = join(folder.path, "missing");
    const book = open(missing);
    book.count(1);
    await assert.rejects(book.save(), { code: "DISK_FAILED" });
    await mkdir(missing);
    await book.save();
  });
});
