/** What is kept beside the release, each by itself, under every power cut that there can be: the bytes of a day, holds, leases. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { SIDECAR_METRICS } from "#core/metrics.ts";
import { createMetrics } from "#core/telemetry.ts";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { crashDisk } from "../support/crash-model.ts";
import type { Image } from "../support/crash-model.ts";
import { openFileLease } from "../../sidecar/claim/lease.ts";
import type { FileLease } from "../../sidecar/claim/lease.ts";
import type { Disk } from "../../sidecar/disk/durable.ts";
import { openHolds } from "../../sidecar/application/hold.ts";
import { openUsage } from "../../sidecar/update/usage.ts";
import type { UsageBook } from "../../sidecar/update/usage.ts";

const never = new AbortController().signal;
const VOLUME = "/volume";
const EMPTY: Image = new Map([
  [VOLUME, { kind: "directory", bytes: Buffer.alloc(0), mode: 0o755 }],
]);
/** No model of these has more cases at one operation. */
const EVERY = 4_096;

/** Time that somebody owns. */
function stoppedClock(): {
  now(): number;
  monotonic(): number;
  sleep(): Promise<void>;
  pass(ms: number): void;
} {
  let passed = 0;
  return {
    now: () => Date.UTC(2026, 10, 22, 12) + passed,
    monotonic: () => passed,
    sleep: () => Promise.resolve(),
    pass: (ms) => void (passed += ms),
  };
}

/**
 * Does something, and judges every image of every cut in it.
 *
 * @param relied what whoever does it has been promised when the power goes
 * @returns how many there were
 */
async function cutEverywhere<R>(
  act: (disk: Disk, promise: (relied: R) => void) => Promise<void>,
  judge: (disk: Disk, relied: R | undefined) => Promise<void>,
): Promise<number> {
  const cuts: { image: Image; relied: R | undefined }[] = [];
  let relied: R | undefined;
  const model = crashDisk(EMPTY, () => look());
  const look = (): void => {
    const drawn = model.everyImage(EVERY);
    assert.ok(drawn !== undefined, "not too much is in the air");
    for (const { image } of drawn) cuts.push({ image, relied });
  };
  await act(model.disk, (now) => {
    relied = now;
  });
  look();
  for (const { image, relied: then } of cuts) await judge(crashDisk(image).disk, then);
  return cuts.length;
}

describe("after any power cut", () => {
  test("a day's budget is not had a second time", async () => {
    const BUDGET = 1_000_000;
    const open = (disk: Disk): UsageBook => {
      const metrics = createMetrics(SIDECAR_METRICS, { Counter, Gauge, Histogram }, new Registry());
      const clock = stoppedClock();
      return openUsage({
        root: VOLUME,
        disk,
        clock,
        metrics,
        now: () => clock.now(),
        budget: BUDGET,
      });
    };
    const cases = await cutEverywhere<number>(
      async (disk, promise) => {
        const book = open(disk);
        await book.load();
        for (const bytes of [1_000, 200_000, 70_000]) {
          book.count(bytes);
          await book.save();
          promise(book.today().usage.bytes);
        }
      },
      async (disk, relied) => {
        const book = open(disk);
        await book.load();
        const { bytes } = book.today().usage;
        assert.ok(bytes >= (relied ?? 0), `${bytes} are known, ${relied} were`);
      },
    );
    assert.ok(cases > 20, `${cases} cases`);
  });

  test("a hold that was confirmed still holds", async () => {
    const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
    const open = (disk: Disk): ReturnType<typeof openHolds> =>
      openHolds({ clock: stoppedClock(), log, volume: VOLUME, folder: undefined, pod: "a", disk });
    const cases = await cutEverywhere<readonly string[]>(
      async (disk, promise) => {
        const book = open(disk);
        await book.put("first", { forMs: 60_000, reason: undefined });
        promise(["first"]);
        await book.put("second", { forMs: 60_000, reason: undefined });
        promise(["first", "second"]);
      },
      async (disk, relied = []) => {
        const owners = (await open(disk).list(never)).map(({ owner }) => owner);
        for (const owner of relied)
          assert.ok(owners.includes(owner), `${owner} of ${owners.join()}`);
      },
    );
    assert.ok(cases > 10, `${cases} cases`);
  });

  test("a lease can be taken by another, and its number has only grown", async () => {
    const LEASE_MS = 10_000;
    let tokens = 0;
    const open = (disk: Disk, uid: string, clock: ReturnType<typeof stoppedClock>): FileLease =>
      openFileLease({
        folder: VOLUME,
        uid,
        name: uid,
        disk,
        clock,
        leaseMs: LEASE_MS,
        token: () => `t${tokens++}`,
      });
    /** Tends until it is held, for at most so many times. */
    async function take(lease: FileLease, clock: ReturnType<typeof stoppedClock>): Promise<void> {
      for (let turn = 0; turn < 20 && !lease.mayAct(); turn++) {
        await lease.tend(true, () => Promise.resolve(false));
        clock.pass(LEASE_MS / 4);
      }
    }
    const cases = await cutEverywhere<number>(
      async (disk, promise) => {
        const clock = stoppedClock();
        for (const uid of ["a", "b"]) {
          const lease = open(disk, uid, clock);
          await take(lease, clock);
          assert.equal(lease.mayAct(), true);
          promise(lease.holder()?.epoch ?? 0);
          await lease.tend(true, () => Promise.resolve(false));
          await lease.release();
        }
      },
      async (disk, relied = 0) => {
        const clock = stoppedClock();
        const lease = open(disk, "c", clock);
        await take(lease, clock);
        assert.equal(lease.mayAct(), true, "nothing blocks it for ever");
        assert.ok((lease.holder()?.epoch ?? 0) >= relied, "an epoch is not given twice");
      },
    );
    assert.ok(cases > 20, `${cases} cases`);
  });
});
