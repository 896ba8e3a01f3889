import assert from "node:assert/strict";
import { describe, test } from "node:test";
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

/** Bytes that a plan takes as long as it is used. */
function heldBy(files: number): { readonly bytes: number; readonly ms: number } {
  const wanted = chained(files);
  const measure = (): number => {
    collectGarbage();
    const { heapUsed, arrayBuffers } = process.memoryUsage();
    return heapUsed + arrayBuffers;
  };
  const before = measure();
  const begun = performance.now();
  const plan = planOf(wanted);
  const ms = performance.now() - begun;
  const bytes = measure() - before;
  assert.equal(plan.ways.chain.contents, files);
  return { bytes, ms };
}

describe("a plan in which every file comes by a chain", () => {
  test("takes memory in proportion to the files, and little of it", (t) => {
    // What is compiled and cached only once is in the first.
    heldBy(1_000);
    const few = heldBy(5_000);
    const many = heldBy(20_000);
    t.diagnostic(`5,000 files: ${few.bytes} bytes, ${few.ms.toFixed(0)} ms`);
    t.diagnostic(`20,000 files: ${many.bytes} bytes, ${many.ms.toFixed(0)} ms`);
    assert.ok(many.bytes < 6 * few.bytes, `${many.bytes} for four times ${few.bytes}`);
    assert.ok(many.bytes < 20_000 * 1_000, `${many.bytes / 20_000} bytes for each file`);
  });
});
