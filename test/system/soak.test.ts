/** Updates without end: releases good and bad, forward and back, under kills at any time and a repository that breaks off. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readdirSync, lstatSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { describe, test } from "node:test";
import type { Fault } from "../support/origin.ts";
import { randomOf } from "../support/random.ts";
import { assertNotBelow, checkVolume, floorsOn } from "../update/support/invariants.ts";
import { PLATFORM, openWorld } from "../update/support/world.ts";
import type { World } from "../update/support/world.ts";
import { FULL, SEED } from "./full.ts";
import { treeOf } from "./frozen.ts";
import type { SoakStatus } from "./soak-process.ts";

const SCRIPT = fileURLToPath(new URL("soak-process.ts", import.meta.url));

/** Updates under fire, and then in one process that nobody disturbs, so that growth would show. */
const DISTURBED = FULL ? 1_000 : 50;
const STEADY = FULL ? 300 : 60;
/** Updates after which a process has all that it will ever need. */
const WARM = 20;

const GOOD = ["1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0"];
const BAD = ["1.5.0", "1.6.0"];

/** What bounds the sidecar's memory: see Dockerfile.multiarch. */
const AS_IN_THE_IMAGE = {
  flags: ["--max-semi-space-size=1", "--optimize-for-size", "--no-maglev"],
  env: { MALLOC_MMAP_THRESHOLD_: "131072", MALLOC_ARENA_MAX: "2" },
} as const;

interface Runner {
  last(): SoakStatus | undefined;
  /** Resolves when the site has said something that fits; fails with what it said last. */
  until(what: string, is: (status: SoakStatus) => boolean): Promise<SoakStatus>;
  kill(): Promise<void>;
}

function startSite(options: object): Runner {
  const child: ChildProcess = spawn(
    process.execPath,
    [...AS_IN_THE_IMAGE.flags, "--expose-gc", SCRIPT, JSON.stringify(options)],
    { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...AS_IN_THE_IMAGE.env } },
  );
  let last: SoakStatus | undefined;
  let complaints = "";
  child.stderr?.on("data", (chunk: Buffer) => void (complaints += chunk.toString()));
  if (child.stdout !== null)
    createInterface(child.stdout).on(
      "line",
      (line) => void (last = JSON.parse(line) as SoakStatus),
    );
  const ended = once(child, "close");
  return {
    last: () => last,
    async until(what, is) {
      for (let turn = 0; turn < 40_000; turn++) {
        if (last !== undefined && is(last)) return last;
        assert.equal(child.exitCode, null, `the site ended by itself: ${complaints}`);
        await delay(5);
      }
      throw new Error(`${what} did not come about: ${JSON.stringify(last)} ${complaints}`);
    },
    async kill() {
      child.kill("SIGKILL");
      await ended;
    },
  };
}

/** Files, folders and links on a volume, and their bytes. */
function usage(folder: string): { readonly names: number; readonly bytes: number } {
  const items = readdirSync(folder, { recursive: true, withFileTypes: true });
  const inodes = new Map(
    items.map((item) => {
      const { ino, blocks } = lstatSync(join(item.parentPath, item.name));
      return [ino, blocks * 512];
    }),
  );
  const bytes = inodes.values().reduce((sum, size) => sum + size, 0);
  return { names: items.length, bytes };
}

describe("a soak", () => {
  test("loses nothing and does not grow", async (t) => {
    await using cleanup = new AsyncDisposableStack();
    const world = cleanup.use(await openWorld());
    for (const version of [...GOOD, ...BAD])
      await world.release(version, treeOf(version, GOOD.includes(version) ? "good" : "bad"));
    const random = randomOf(`soak ${SEED}`);
    const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)] as T;
    const payload = join(world.folder, "site");
    const options = { payload, url: world.origin.url, root: world.root };
    const counts = { updates: 0, kills: 0, cuts: 0, rollbacks: 0, interrupted: 0 };
    let site = startSite(options);
    cleanup.defer(() => site.kill());
    let served = "";

    /** One release, to its end. @param disturb whether anything happens to it on the way */
    async function update(sequence: number, disturb: boolean): Promise<SoakStatus> {
      const good = sequence === 1 || random() < 0.85;
      const version = pick((good ? GOOD : BAD).filter((item) => item !== served));
      if (disturb && random() < 0.4) counts.cuts += breakOff(world, random, pick);
      await point(world, version, sequence);
      let kills = 0;
      for (const chance = disturb ? 0.3 : 0; random() < chance;) {
        await delay(random() * 400);
        await site.kill();
        kills += 1;
        const floors = floorsOn(payload);
        if (served !== "") assert.notEqual(await checkVolume(payload), undefined);
        site = startSite(options);
        await site.until("a start", () => true);
        assertNotBelow(floorsOn(payload), floors);
      }
      counts.kills += kills;
      const end = await site.until(
        `${version} at ${sequence}`,
        (now) =>
          now.phase === "committed" && (now.sequence === sequence || now.blocked === sequence),
      );
      counts.updates += 1;
      if (end.blocked === sequence) {
        counts.rollbacks += 1;
        assert.equal(end.version, served, "what was there before is served again");
        // The application starts with the sidecar here, and too many starts are a reason, too.
        assert.ok(!good || kills > 0, `${version} is good: ${end.reason}`);
        counts.interrupted += Number(good);
      } else {
        assert.ok(good, `${version} is bad`);
        assert.equal(end.version, version);
        served = version;
      }
      return end;
    }

    const disk: number[] = [];
    for (let sequence = 1; sequence <= DISTURBED; sequence++) {
      await update(sequence, true);
      if (sequence % 10 !== 0) continue;
      world.origin.reset();
      await site.kill();
      await checkVolume(payload);
      disk.push(usage(payload).names);
      site = startSite(options);
    }
    world.origin.reset();
    const held: SoakStatus[] = [];
    for (let sequence = DISTURBED + 1; sequence <= DISTURBED + STEADY; sequence++) {
      held.push(await update(sequence, false));
      world.origin.reset();
    }
    await site.kill();
    await checkVolume(payload);
    const { names, bytes } = usage(payload);
    const before = held[WARM];
    const after = held.at(-1);
    assert.ok(before !== undefined && after !== undefined);
    const mib = (value: number): string => (value / 2 ** 20).toFixed(1);
    t.diagnostic(
      `${counts.updates} updates, ${counts.rollbacks} rolled back (${counts.interrupted} of them good and interrupted), ${counts.kills} kills, ${counts.cuts} cuts`,
    );
    t.diagnostic(
      `after ${WARM} and ${STEADY} updates of one process: heap ${mib(before.heap)} and ${mib(after.heap)} MiB, RssAnon ${mib(before.memory)} and ${mib(after.memory)} MiB, handles ${before.handles} and ${after.handles}; the volume ends with ${names} names, ${bytes} bytes`,
    );
    // A sweep may be under way when it is looked at: two banks and what is left of a third.
    const most = 3 * 14 + 40;
    assert.ok(Math.max(...disk, names) <= most, `${disk.join()} and ${names} names`);
    assert.ok(bytes < 3 * 2 ** 20, `${bytes} bytes`);
    assert.ok(after.heap - before.heap < 2 * 2 ** 20, "the heap does not grow");
    assert.ok(after.memory - before.memory < 16 * 2 ** 20, "the memory does not grow");
    assert.ok(after.handles - before.handles <= 4, "handles do not grow");
  });
});

/** Signs that the channel is at a version, whichever way that is. */
async function point(world: World, version: string, sequence: number): Promise<void> {
  const releases = [{ platform: PLATFORM, version }];
  await world.forgeChannel({
    schema: 1,
    app: "web",
    channel: "stable",
    sequence,
    releases,
    downgrade: true,
  });
}

function breakOff(world: World, random: () => number, pick: <T>(items: readonly T[]) => T): number {
  const times = 1 + Math.floor(random() * 3);
  const after = Math.floor(random() * 40_000);
  const fault = pick<Fault>([
    { fault: "reset", after },
    { fault: "truncated", after },
    { fault: "flipped", at: after },
    { fault: "status", status: 503 },
    { fault: "no-range" },
  ]);
  world.origin.fail(pick([/^blobs\//, /^metadata\//, /^targets\//]), fault, times);
  return times;
}
