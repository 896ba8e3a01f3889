/** A kill, or a disk error, at every step of a repair: what was good stays good, and the next attempt mends the rest. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { rmSync } from "node:fs";
import { cp, readFile, rm, symlink, truncate, writeFile, chmod } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { SIDECAR_METRICS } from "#core/metrics.ts";
import { createMetrics } from "#core/telemetry.ts";
import type { Log } from "#core/telemetry.ts";
import type { Bank } from "#core/update-state.ts";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { realClock } from "../support/real-clock.ts";
import { MEMORY, temporaryFolder } from "../support/temporary.ts";
import { openDownloads } from "../../sidecar/repository/download.ts";
import { nodeDisk } from "../../sidecar/disk/durable.ts";
import type { Disk } from "../../sidecar/disk/durable.ts";
import { openHttp } from "../../sidecar/network/http.ts";
import { hasDigest } from "../../sidecar/payload/make-file.ts";
import { openRepository } from "../../sidecar/repository/repository.ts";
import { openScrub } from "../../sidecar/payload/scrub.ts";
import { openStore } from "../../sidecar/payload/store.ts";
import { failingAt, faultyDisk, killedAt } from "../update/support/faulty-disk.ts";
import { checkVolume, journalOf } from "../update/support/invariants.ts";
import { PLATFORM, openWorld } from "../update/support/world.ts";
import type { World } from "../update/support/world.ts";
import { bankOf, files, flip, installed, scraps } from "./support.ts";

const never = new AbortController().signal;
const PAUSE_MS = 999_999;
/** After the first failure, without chance. */
const RETRY_MS = 54_000;

const silent: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

let world: World;
let damaged: string;
let memory: Awaited<ReturnType<typeof temporaryFolder>>;
before(async () => {
  memory = await temporaryFolder(MEMORY);
  world = await openWorld();
  await world.publish("1.0.0", files("1.0.0"));
  damaged = await installed(world, "1.0.0");
  const bank = bankOf(damaged);
  flip(join(bank, "data/model.bin"), 1_234);
  await truncate(join(bank, "bin/run"), 2);
  await rm(join(bank, "data/deep"), { recursive: true, maxRetries: 5 });
  await rm(join(bank, "latest"));
  await symlink("health", join(bank, "latest"));
  await writeFile(join(bank, "data/more"), "x");
  await chmod(join(bank, "health"), 0o400);
});
after(async () => {
  await memory[Symbol.asyncDispose]();
  await world[Symbol.asyncDispose]();
});

function bankIn(payload: string): Bank {
  const state = journalOf(payload);
  if (state.phase !== "committed") throw new TypeError("nothing is committed");
  return state.bank;
}

/** One pass over a volume, by a process that has just started. @returns whether it ended well */
async function scrub(payload: string, disk: Disk): Promise<boolean> {
  const metrics = createMetrics(SIDECAR_METRICS, { Counter, Gauge, Histogram }, new Registry());
  const http = openHttp({ idleTimeoutMs: 5_000, unavailable: "ORIGIN_UNAVAILABLE" });
  try {
    const store = await openStore(payload, disk);
    const repository = openRepository(world.origin.url, { http, clock: realClock, metrics });
    const folder = store.partial;
    const arrived = (): undefined => undefined;
    const downloads = openDownloads({ disk, folder, repository, metrics, arrived });
    const volume = { store, downloads };
    const over = new AbortController();
    let retries = 0;
    const opened = openScrub({
      settings: { scrubInterval: 1_000_000, scrubRate: 1e10 },
      // A repair that has failed is tried again at once, and that is all.
      clock: {
        ...realClock,
        async sleep(ms, signal) {
          if (ms < 10 || (ms === RETRY_MS && retries++ === 0)) return;
          if (ms !== PAUSE_MS) over.abort();
          await realClock.sleep(5_000, signal);
        },
      },
      random: () => 0,
      log: silent,
      metrics,
      disk,
      app: "web",
      platform: PLATFORM,
      fallback: { kind: "always" },
      limits: { volume: undefined, local: undefined, reserve: 0 },
      seed: undefined,
      trusted: () => undefined,
      volume: () => volume,
    });
    await opened.work(bankIn(payload), PAUSE_MS, over.signal).catch(() => undefined);
    return typeof opened.status()?.lastPass === "string";
  } finally {
    http.close();
  }
}

describe("a repair", () => {
  test("that is killed at any step harms nothing, and the next one mends all", async (t) => {
    let operations = 0;
    for (let number = 1; ; number++) {
      const payload = join(memory.path, "killed");
      rmSync(payload, { recursive: true, force: true });
      await cp(damaged, payload, {
        recursive: true,
        verbatimSymlinks: true,
        preserveTimestamps: true,
      });
      const good = join(bankOf(payload), "version");
      let dead = (): void => undefined;
      const died = new Promise<"died">((resolve) => {
        dead = () => resolve("died");
      });
      let outcome: boolean | "died";
      {
        await using faulty = faultyDisk(killedAt(number, dead));
        outcome = await Promise.race([scrub(payload, faulty.disk), died]);
      }
      if (outcome !== "died") {
        assert.equal(outcome, true);
        operations = number - 1;
        break;
      }
      assert.equal(
        await hasDigest(nodeDisk, good, await digestOf(join(bankOf(damaged), "version")), never),
        true,
      );
      assert.equal(await scrub(payload, nodeDisk), true, `after a kill at ${number}`);
      await checkVolume(payload);
      assert.deepEqual(halfMade(payload), [], `after a kill at ${number}`);
    }
    t.diagnostic(`${operations} operations`);
    assert.ok(operations > 30);
  });

  for (const code of ["DISK_FULL", "DISK_FAILED"] as const)
    test(`that meets ${code} at any step says so, and the next one mends all`, async () => {
      for (let number = 1, failed = true; failed; number += 3) {
        const payload = join(memory.path, code);
        rmSync(payload, { recursive: true, force: true });
        await cp(damaged, payload, {
          recursive: true,
          verbatimSymlinks: true,
          preserveTimestamps: true,
        });
        {
          await using faulty = faultyDisk(failingAt(number, 1, code));
          const outcome = await scrub(payload, faulty.disk).catch(() => false);
          failed = faulty.count() >= number;
          if (!failed) assert.equal(outcome, true);
        }
        assert.equal(await scrub(payload, nodeDisk), true);
        await checkVolume(payload);
        assert.deepEqual(halfMade(payload), []);
      }
    });
});

function halfMade(payload: string): readonly string[] {
  return scraps(payload).filter((name) => !/^[0-9a-f]{64}$/.test(name));
}

async function digestOf(path: string): Promise<string> {
  return createHash("sha256")
    .update(await readFile(path))
    .digest("hex");
}
