/** A disk that is full at whatever size: a tmpfs of each size in a mount namespace, from what is installed to what an update needs. */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { after, before, describe, test } from "node:test";
import { FULL } from "./full.ts";
import { PASSAGES, openFrozen } from "./frozen.ts";
import type { Frozen, Passage } from "./frozen.ts";
import type { FullDiskOptions, FullDiskResult } from "./full-disk-process.ts";

const SCRIPT = fileURLToPath(new URL("full-disk-process.ts", import.meta.url));
const NAMESPACE = ["--mount", "--propagation", "private"] as const;

/** A page of a tmpfs, in KiB, and how many of them lie between two sizes that are tried. */
const PAGE_KIB = 4;
const STRIDE = FULL ? 1 : 8;
/** No volume of these tests takes more, in KiB. */
const MOST_KIB = 720;

describe("a disk that is full", () => {
  let frozen: Frozen;
  before(async () => {
    frozen = await openFrozen();
  });
  after(() => frozen[Symbol.asyncDispose]());

  /** KiB of what is there before, at the least. */
  function leastOf(folder: string): number {
    const { stdout } = spawnSync("du", ["-sk", "--apparent-size", folder], { encoding: "utf8" });
    return Math.ceil(Number.parseInt(stdout, 10) / PAGE_KIB) * PAGE_KIB;
  }

  async function fill(passage: Passage): Promise<readonly FullDiskResult[]> {
    const payload = join(frozen.world.folder, `small-${passage.name}`);
    await mkdir(payload);
    const content = passage.installed ? await frozen.volume(passage) : undefined;
    const least = content === undefined ? PAGE_KIB * 2 : leastOf(content);
    const sizes: number[] = [];
    for (let size = least; size <= MOST_KIB; size += PAGE_KIB * STRIDE) sizes.push(size);
    const options: FullDiskOptions = {
      ...frozen.place(passage),
      payload,
      content,
      sizes,
      version: passage.version,
      old: passage.installed ? "1.0.0" : undefined,
      blocked: passage.blocked,
    };
    const child = spawn(
      "unshare",
      [...NAMESPACE, process.execPath, SCRIPT, JSON.stringify(options)],
      { stdio: ["ignore", "pipe", "pipe"] },
    );
    const [output, complaints, [code]] = await Promise.all([
      text(child.stdout),
      text(child.stderr),
      once(child, "close") as Promise<[number | null]>,
    ]);
    assert.equal(code, 0, `${output.trim().split("\n").at(-1)}: ${complaints}`);
    return output
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as FullDiskResult);
  }

  for (const passage of PASSAGES.filter(({ scrubbed }) => !scrubbed))
    test(`leaves the old release running and says so, at every size: ${passage.name}`, async (t) => {
      if (spawnSync("unshare", [...NAMESPACE, "true"]).status !== 0) {
        t.diagnostic("no mount of one's own on this machine");
        return;
      }
      const results = await fill(passage);
      const full = results.filter((result) => result.full);
      t.diagnostic(
        `${results.length} sizes from ${results[0]?.size} KiB, full up to ${full.at(-1)?.size} KiB: ${full.length} times`,
      );
      assert.ok(full.length >= 3, "some are too small");
      assert.ok(full.length < results.length, "some are large enough");
    });
});
