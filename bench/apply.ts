import { execFile } from "node:child_process";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { bundleOne } from "../scripts/bundle.ts";
import { temporaryFolder } from "../test/support/temporary.ts";
import { openCgroup } from "./cgroup.ts";
import { FILE_NAMES, openLargeRelease } from "./large.ts";
import type { LargeRelease } from "./large.ts";
import { figuresOf } from "./site.ts";
import { buildSubjects, round, start } from "./subjects.ts";
import type { Measurement, Running, Subject } from "./subjects.ts";

const MIB = 2 ** 20;
/** Of the whole container, page cache included. */
const LIMIT = 96 * MIB;
const SAMPLE_MS = 20;
/** Milliseconds; an update of this size takes seconds. */
const PATIENCE_MS = 600_000;

interface Peak {
  rssAnon: number;
  rss: number;
}

interface Look {
  readonly phase: string;
  readonly release: string | undefined;
}

/**
 * 1 GiB installed, updated by deltas, and recovered after a kill in each phase of another update, all in a memory cgroup of 96 MiB.
 * What the update takes is compared with a plain copy of the same files that hashes them on the way; recovery, from spawn to an open
 * start gate, with the start of a process that only loads the libraries.
 */
export async function* apply(): AsyncGenerator<Measurement> {
  await using folder = await temporaryFolder();
  const published = join(folder.path, "published");
  await mkdir(published);
  await using large = await openLargeRelease(published);
  await large.publish(1);
  const subjects = await buildSubjects(folder.path);
  const sidecar = subjects.find(({ name }) => name === "sidecar");
  const libraries = subjects.find(({ name }) => name === "libraries");
  if (sidecar === undefined || libraries === undefined) throw new Error("no bundles");
  const site = openSite(sidecar, large, join(folder.path, "payload"));
  await mkdir(join(folder.path, "payload"));
  {
    await using running = await site.start("apply", FIRST);
    const install = await site.follow(running, (look) => isCommitted(look, "1"));
    yield* peaks("install", install.peak);
    await large.publish(2);
    const update = await site.follow(running, (look) => isCommitted(look, "2"));
    yield* peaks("update", update.peak);
    yield row("update", "oom-kills", await running.kills(), "kills");
    const floor = await copyMs(folder.path, large);
    const wall = { subject: "update", metric: "wall", unit: "s", value: round(update.ms / 1000) };
    yield row("copy", "wall", round(floor / 1000), "s");
    yield { ...wall, peer: "copy", ratio: round(update.ms / floor) };
  }
  const floor = await startMs(libraries);
  yield row("libraries", "start", round(floor), "ms");
  await large.publish(3);
  for (const phase of ["committed", "downloading", "trial"]) {
    {
      await using running = await site.start(`kill-${phase}`, {
        EDGESYNC_TRIAL_DURATION: "1h",
        EDGESYNC_TRIAL_TIMEOUT: "2h",
      });
      // The first look may come before the bench sees that state; that is a recovery too.
      await site.follow(running, (look) => look.phase === phase);
    }
    await using again = await site.start(`recover-${phase}`, {
      EDGESYNC_TRIAL_DURATION: "1h",
      EDGESYNC_TRIAL_TIMEOUT: "2h",
    });
    const value = round(again.openMs);
    yield {
      subject: `recovery-${phase}`,
      metric: "start-gate",
      value,
      unit: "ms",
      peer: "libraries",
      ratio: round(again.openMs / floor),
    };
  }
}

function row(subject: string, metric: string, value: number, unit: string): Measurement {
  return { subject, metric, value, unit, peer: null, ratio: null };
}

function* peaks(subject: string, peak: Peak): Generator<Measurement> {
  yield row(subject, "rss-anon-peak", round(peak.rssAnon), "MiB");
  yield row(subject, "rss-peak", round(peak.rss), "MiB");
}

function isCommitted(look: Look, version: string): boolean {
  return look.phase === "committed" && look.release === version;
}

/** Of a site that has no release yet. */
const FIRST: Readonly<Record<string, string>> = {};

interface RunningSite extends AsyncDisposable {
  readonly running: Running;
  /** Milliseconds from spawn to an open start gate; to the first answer where there is no release yet. */
  readonly openMs: number;
  kills(): Promise<number>;
}

interface Site {
  start(name: string, env?: Readonly<Record<string, string>>): Promise<RunningSite>;
  /** Watches until the status is as it should be; what it took, and the most memory meanwhile. */
  follow(
    site: RunningSite,
    is: (look: Look) => boolean,
  ): Promise<{ readonly ms: number; readonly peak: Peak }>;
}

function openSite(subject: Subject, large: LargeRelease, payload: string): Site {
  const base = {
    EDGESYNC_SETTINGS_VERSION: "1",
    EDGESYNC_CHANNEL: "web/stable",
    EDGESYNC_REPOSITORY: large.url,
    EDGESYNC_TRUST_ROOT_FILE: large.root,
    EDGESYNC_PAYLOAD_DIR: payload,
    EDGESYNC_POLL_INTERVAL: "1s",
    EDGESYNC_TRIAL_DURATION: "1s",
    EDGESYNC_ON_UPDATE: "none",
    EDGESYNC_HEALTH: "none",
  };
  return {
    async start(name, env = {}) {
      const cgroup = await openCgroup(name, LIMIT);
      const running = await start(subject, { ...base, ...env }, cgroup);
      const begun = performance.now();
      // A status that does not yet say what is installed would be taken for one of a site that has nothing.
      if (env !== FIRST) await untilOpen(running);
      return {
        running,
        openMs: running.startMs + performance.now() - begun,
        kills: async () => (await cgroup?.kills()) ?? 0,
        async [Symbol.asyncDispose]() {
          await running[Symbol.asyncDispose]();
          await cgroup?.[Symbol.asyncDispose]();
        },
      };
    },
    async follow({ running }, is) {
      // What came before is not what is measured.
      await writeFile(`/proc/${running.pid}/clear_refs`, "5").catch(() => undefined);
      const peak: Peak = { rssAnon: 0, rss: 0 };
      const begun = performance.now();
      let workBegun = begun;
      for (;;) {
        const now = await look(running);
        const { rssAnon, rssPeak } = await figuresOf(running.pid);
        peak.rssAnon = Math.max(peak.rssAnon, rssAnon);
        peak.rss = Math.max(peak.rss, rssPeak);
        if (is(now)) return { ms: performance.now() - workBegun, peak };
        if (now.phase === "committed") workBegun = performance.now();
        if (performance.now() - begun > PATIENCE_MS)
          throw new Error(`it did not come about: ${JSON.stringify(now)}`);
        await sleep(SAMPLE_MS);
      }
    },
  };
}

async function look(running: Running): Promise<Look> {
  const status = JSON.parse(await running.get("/status")) as {
    readonly update?: {
      readonly phase: string;
      readonly release: { readonly version: string } | null;
    };
  };
  return { phase: status.update?.phase ?? "none", release: status.update?.release?.version };
}

async function untilOpen(running: Running): Promise<void> {
  for (let attempt = 0; attempt < 10_000; attempt++) {
    try {
      await running.get("/startup");
      return;
    } catch {
      // Recovery goes on.
      await sleep(1);
    }
  }
  throw new Error("the start gate does not open");
}

/** Milliseconds to copy and hash the files of the update. */
async function copyMs(folder: string, large: LargeRelease): Promise<number> {
  const program = join(folder, "bench-copy.mjs");
  await bundleOne("bench/programs/copy.ts", program);
  const begun = performance.now();
  for (const name of FILE_NAMES) {
    const out = join(folder, "copied");
    const args = [program, join(large.folder(2), name), out];
    await promisify(execFile)(process.execPath, args);
    await rm(out);
  }
  return performance.now() - begun;
}

async function startMs(subject: Subject): Promise<number> {
  await using running = await start(subject);
  return running.startMs;
}
