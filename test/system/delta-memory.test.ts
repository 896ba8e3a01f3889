/**
 * The memory of a decoder, in a real process with the image's bundles and flags: by what the kernel says of it, and in a cgroup as small as that
 * of a container. `npm run test:system` takes 192 MiB, `npm run test:system -- --full` 2 GiB; the bounds are the same.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { after, before, describe, test } from "node:test";
import { openCgroup } from "../../bench/cgroup.ts";
import { chanceFrom, writeWeights } from "../../bench/delta/generated.ts";
import { figuresOf } from "../../bench/site.ts";
import { bundle } from "../../scripts/bundle.ts";
import { readImage } from "../../scripts/image.ts";
import { startProgram } from "../support/process.ts";
import type { Program } from "../support/process.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { FULL } from "./full.ts";

const MIB = 2 ** 20;
/** Of weights, of which one in 80 changes; and of bytes into which others are put. */
const WEIGHTS_MIB = FULL ? 1280 : 128;
const BYTES_MIB = FULL ? 768 : 64;
/** What docs/operations.md promises, in MiB: what the process alone has, and all of it. */
const MOST_ANON = 32;
const MOST_RSS = 80;
/** Of the cgroup, page cache included. */
const LIMIT = 96 * MIB;
/** Milliseconds between two looks. */
const LOOK_MS = 5;

describe("edgesync delta apply", () => {
  let folder: Awaited<ReturnType<typeof temporaryFolder>>;
  let command: readonly string[];
  let env: Readonly<Record<string, string>>;
  const path = (name: string): string => join(folder.path, name);
  before(async () => {
    folder = await temporaryFolder();
    await bundle(folder.path);
    const image = await readImage(folder.path);
    [command, env] = [image.entryPoint, image.env];
    await writePair(path("old"), path("new"));
    await using made = edgesync([], "delta", "make", path("old"), path("new"), "-o", path("delta"));
    assert.equal(await made.ended(), 0, made.output());
  });
  after(() => folder[Symbol.asyncDispose]());

  function edgesync(around: readonly string[], ...args: readonly string[]): Program {
    const [program = "", ...rest] = [...around, ...command, ...args];
    return startProgram(program, rest, env);
  }
  const apply = (around: readonly string[]): Program =>
    edgesync(around, "delta", "apply", path("old"), path("delta"), "-o", path("out"));

  test(`takes no more memory for ${WEIGHTS_MIB + BYTES_MIB} MiB than for less`, async (t) => {
    await using applied = apply([]);
    const peak = await peakOf(applied);
    assert.equal(await applied.ended(), 0, applied.output());
    assert.equal(await digestOf(path("out")), await digestOf(path("new")));
    await rm(path("out"));
    const { size } = await stat(path("delta"));
    t.diagnostic(
      `${size} bytes of delta, RssAnon ${peak.anon.toFixed(1)} MiB, RSS ${peak.rss.toFixed(1)} MiB`,
    );
    assert.ok(size < ((WEIGHTS_MIB + BYTES_MIB) * MIB) / 50, `${size} bytes of delta`);
    assert.ok(peak.anon > 0 && peak.anon <= MOST_ANON, `RssAnon ${peak.anon} MiB`);
    assert.ok(peak.rss <= MOST_RSS, `RSS ${peak.rss} MiB`);
  });

  test("ends well in a cgroup of 96 MiB, which also counts the pages of the files", async (t) => {
    await using cgroup = await openCgroup("delta-apply", LIMIT);
    if (cgroup === undefined) {
      t.diagnostic("no memory cgroup of one's own on this machine");
      return;
    }
    await using applied = apply(cgroup.command);
    assert.equal(await applied.ended(), 0, applied.output());
    assert.equal(await cgroup.kills(), 0);
    assert.equal(await digestOf(path("out")), await digestOf(path("new")));
    await rm(path("out"));
  });
});

/** The highest that is seen until the process has ended, in MiB. */
async function peakOf(program: Program): Promise<{ readonly rss: number; readonly anon: number }> {
  const peak = { rss: 0, anon: 0 };
  const stop = new AbortController();
  const ended = program.ended().finally(() => {
    stop.abort();
  });
  while (!stop.signal.aborted) {
    const figures = await figuresOf(program.pid).catch(() => undefined);
    peak.rss = Math.max(peak.rss, figures?.rssPeak ?? 0);
    peak.anon = Math.max(peak.anon, figures?.rssAnon ?? 0);
    await sleep(LOOK_MS);
  }
  await ended;
  return peak;
}

async function digestOf(file: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(file)) hash.update(chunk as Buffer);
  return hash.digest("hex");
}

/** Weights that move, then bytes that do not compress: with 4 KiB of others in each MiB, and a few changed. */
async function writePair(oldFile: string, newFile: string): Promise<void> {
  const weights = { dtype: "bf16", sigma: 1e-3, rows: 1, size: WEIGHTS_MIB * MIB } as const;
  await writeWeights(weights, 9, oldFile, newFile);
  const chance = chanceFrom(10);
  await using old = await open(oldFile, "a");
  await using target = await open(newFile, "a");
  for (let mib = 0; mib < BYTES_MIB; mib++) {
    const words = Uint32Array.from({ length: MIB / 4 }, () => chance.bits());
    await old.writeFile(words);
    const place = mib * 4001;
    await target.writeFile(words.subarray(0, place % words.length));
    await target.writeFile(Uint32Array.from({ length: 1024 }, () => chance.bits()));
    const rest = words.subarray(place % words.length);
    for (let at = 0; at < rest.length; at += 16_384) rest[at] = chance.bits();
    await target.writeFile(rest);
  }
}
