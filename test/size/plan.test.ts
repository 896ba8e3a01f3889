import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { makePlan } from "#core/plan.ts";
import type { Plan } from "#core/plan.ts";
import type { Entry, Release } from "#core/release.ts";
import { handMadeRelease } from "../support/release.ts";
import type { HandMadeContent, HandMadeStep } from "../support/release.ts";

const sha = (kind: number, number: number): string =>
  (kind * 1e9 + number).toString(16).padStart(64, "0");

/** So many files that have all changed: one delta each, from a step to which there is one from what the site has. */
function chained(files: number): { readonly release: Release; readonly old: ReadonlySet<string> } {
  const entries: Entry[] = [];
  const contents: HandMadeContent[] = [];
  const steps: HandMadeStep[] = [];
  const old = new Set<string>();
  const deltaTo = (to: string, base: string): HandMadeContent["deltas"][number] => ({
    base,
    codec: "known",
    sha256: `d${to.slice(1)}`,
    size: 100,
  });
  for (let index = 0; index < files; index++) {
    const [now, between, before] = [sha(1, index), sha(2, index), sha(3, index)];
    entries.push({
      type: "file",
      path: `f${String(index).padStart(6, "0")}`,
      mode: 0o644,
      sha256: now,
    });
    contents.push({
      sha256: now,
      size: 2_000,
      full: { sha256: sha(4, index), size: 1_000, encoding: "zstd" },
      deltas: [deltaTo(now, between)],
    });
    steps.push({ sha256: between, size: 2_000, deltas: [deltaTo(between, before)] });
    old.add(before);
  }
  return { release: handMadeRelease(entries, contents, [], steps), old };
}

function planOf({ release, old }: ReturnType<typeof chained>): Plan {
  const nothing = new Set<string>();
  return makePlan({
    release,
    installed: "1.0.0",
    available: old,
    foreign: nothing,
    damaged: nothing,
    codecs: new Set(["known"]),
    rejected: nothing,
    fallback: { kind: "always" },
    first: false,
  });
}

setFlagsFromString("--expose-gc");
const collectGarbage: () => void = runInNewContext("gc");

/** Bytes in use when nothing is left to be collected; what lies outside of the heap goes a little later than what is in it. */
async function bytesInUse(): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  for (let same = 0, round = 0; same < 5 && round < 200; round++) {
    collectGarbage();
    await delay(1);
    const { heapUsed, arrayBuffers } = process.memoryUsage();
    const now = heapUsed + arrayBuffers;
    same = now < least - 10_000 ? 0 : same + 1;
    least = Math.min(least, now);
  }
  return least;
}

/** Bytes that a plan takes as long as it is used. */
async function heldBy(files: number): Promise<number> {
  const wanted = chained(files);
  const before = await bytesInUse();
  const plan = planOf(wanted);
  const bytes = (await bytesInUse()) - before;
  assert.equal(plan.ways.chain.contents, files);
  return bytes;
}

describe("a release that has been read", () => {
  test("holds its columns and nothing of how they grew", async (t) => {
    const files = 10_000;
    let release: Release | undefined = chained(files).release;
    assert.equal(release.steps.length, files);
    const all = await bytesInUse();
    release = undefined;
    const bytes = all - (await bytesInUse());
    t.diagnostic(`${bytes / files} bytes for each file, its delta, its step and the delta to that`);
    // 32 for each of seven digests, a path, and some numbers.
    assert.ok(bytes < files * 420, `${bytes / files} bytes for each file`);
  });
});

describe("a plan in which every file comes by a chain", () => {
  test("takes memory in proportion to the files, and little of it", async (t) => {
    // What is compiled and cached only once is in the first.
    await heldBy(1_000);
    const few = await heldBy(5_000);
    const many = await heldBy(20_000);
    t.diagnostic(`5,000 files: ${few} bytes; 20,000 files: ${many} bytes`);
    assert.ok(many < 6 * few, `${many} for four times ${few}`);
    assert.ok(many < 20_000 * 1_000, `${many / 20_000} bytes for each file`);
  });
});
