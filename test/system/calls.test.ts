/**
 * A site in a process of its own, whose system calls on its payload volume are made to fail or to be its last, one by one: the Nth openat,
 * write, fsync, rename, link, symlink, unlink and the others by which a disk is changed. strace does it.
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import { join, relative } from "node:path";
import { after, before, describe, test } from "node:test";
import { sampleOf } from "../support/random.ts";
import { floorsOn } from "../update/support/invariants.ts";
import { FULL, SEED, forEach } from "./full.ts";
import { PASSAGES, checkPassage, openFrozen, runSite } from "./frozen.ts";
import type { Frozen, Passage } from "./frozen.ts";

const STRACE = "/usr/bin/strace";

const CALLS = [
  "openat",
  "write",
  "fsync",
  "rename",
  "link",
  "symlink",
  "unlink",
  "rmdir",
  "mkdir",
  "chmod",
  "fchmod",
  "truncate",
  "ftruncate",
] as const;
type Call = (typeof CALLS)[number];

const FATES = ["SIGKILL", "ENOSPC", "EIO"] as const;
type Fate = (typeof FATES)[number];

/** Calls that never need room. */
const NEEDS_NO_ROOM: ReadonlySet<Call> = new Set(["unlink", "rmdir", "chmod", "fchmod"]);

interface Case {
  readonly passage: Passage;
  readonly call: Call;
  readonly number: number;
  readonly fate: Fate;
}

/** What a passage does when nothing is in its way. */
interface Traced {
  /** Paths in the payload volume, relative to it. */
  readonly paths: readonly string[];
  readonly counts: ReadonlyMap<Call, number>;
}

/** One thread for files: strace counts the calls of each thread for itself. */
const ONE_THREAD = { UV_THREADPOOL_SIZE: "1" };

describe("a system call on the payload volume", () => {
  let frozen: Frozen;
  before(async () => {
    frozen = await openFrozen();
  });
  after(() => frozen[Symbol.asyncDispose]());

  async function trace(passage: Passage): Promise<Traced> {
    const payload = await frozen.volume(passage);
    const log = `${payload}.log`;
    const strace = [STRACE, "-f", "-qq", "-y", "-s", "0", "-o", log, `-etrace=${CALLS.join()}`];
    const { outcome, complaints } = await runSite(
      { ...frozen.place(passage), ...passage, payload },
      strace,
      ONE_THREAD,
    );
    assert.equal(outcome, 0, complaints);
    const paths = new Set<string>();
    const counts = new Map<Call, number>();
    for (const line of (await readFile(log, "utf8")).split("\n")) {
      const call = CALLS.find((name) => line.includes(` ${name}(`));
      const named = [...line.matchAll(/["<](\/[^">]+)[">]/g)].map(([, path]) => path ?? "");
      const ours = named.filter((path) => path === payload || path.startsWith(`${payload}/`));
      if (call === undefined || ours.length === 0 || ours.some(isTheApplications)) continue;
      for (const path of ours) paths.add(relative(payload, path));
      counts.set(call, (counts.get(call) ?? 0) + 1);
    }
    return { paths: [...paths], counts };
  }

  async function run(
    { passage, call, number, fate }: Case,
    { paths }: Traced,
  ): Promise<"killed" | "told" | "silent"> {
    const payload = await frozen.volume(passage);
    const floors = floorsOn(payload);
    const fault = fate === "SIGKILL" ? "signal=SIGKILL" : `error=${fate}`;
    const strace = [
      STRACE,
      "-f",
      "-qq",
      "-o",
      "/dev/null",
      ...paths.flatMap((path) => ["-P", join(payload, path)]),
      `-etrace=${call}`,
      `-einject=${call}:${fault}:when=${number}`,
    ];
    const options = { ...frozen.place(passage), ...passage, payload, tells: true };
    const { outcome, output, complaints } = await runSite(options, strace, ONE_THREAD);
    // How often it looks at the channel depends on the machine, so the last calls may not come.
    assert.ok(outcome === 0 || (fate === "SIGKILL" && outcome === fate), complaints);
    const served = await checkPassage(passage, payload);
    if (passage.installed) assert.notEqual(served, undefined, "the old release is still there");
    await frozen.recover(passage, payload, floors);
    await rm(payload, { recursive: true });
    if (outcome === "SIGKILL") return "killed";
    return /DISK_(?:FULL|FAILED)/.test(output.split("\n")[1] ?? "") ? "told" : "silent";
  }

  test("may be the last one or fail, whichever it is", async (t) => {
    if (!existsSync(STRACE)) {
      t.diagnostic(`${STRACE} is not there; scripts/system-packages.sh installs it`);
      return;
    }
    const traced = new Map<Passage, Traced>();
    const cases: Case[] = [];
    for (const passage of PASSAGES) {
      const found = await trace(passage);
      traced.set(passage, found);
      for (const [call, count] of found.counts)
        for (let number = 1; number <= count; number++)
          for (const fate of FATES)
            if (fate !== "ENOSPC" || !NEEDS_NO_ROOM.has(call))
              cases.push({ passage, call, number, fate });
    }
    const chosen = FULL ? cases : sampleOf(cases, 80, SEED);
    const done = new Map<string, number>();
    await forEach(
      chosen,
      ({ passage, call, number, fate }) => `${passage.name}: ${fate} at ${call} ${number}`,
      async (one) => {
        const found = traced.get(one.passage);
        assert.ok(found !== undefined);
        const outcome = await run(one, found);
        for (const what of [one.fate, outcome]) done.set(what, (done.get(what) ?? 0) + 1);
      },
    );
    const count = (what: string): number => done.get(what) ?? 0;
    const counts = [...done].map(([what, number]) => `${what} ${number}`).join(", ");
    t.diagnostic(`${chosen.length} of ${cases.length} calls: ${counts}`);
    assert.ok(count("killed") >= count("SIGKILL") * 0.9, "the kills came in time");
    // Some hide: a file that cannot be read is made anew, what cannot be cleared away is left to the sweep.
    const failures = count("ENOSPC") + count("EIO");
    assert.ok(
      count("told") >= failures * 0.7,
      `of ${failures} failures ${count("told")} were told`,
    );
    assert.ok(cases.length > 500, `${cases.length} cases`);
  });
});

/** The application reads too, with another thread, and that is no business of the agent's. */
function isTheApplications(path: string): boolean {
  return path.endsWith("/health");
}
