import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { temporaryFolder } from "../test/support/temporary.ts";
import { openCgroup } from "./cgroup.ts";
import { IDLE_MS, figuresOf, openStage } from "./site.ts";
import type { Stage } from "./site.ts";
import { buildSubjects, round, start } from "./subjects.ts";
import type { Measurement, Running, Subject } from "./subjects.ts";

/** What an hour brings at the defaults: a look every 15 minutes, a scrape every 15 s, and the probes of an injected pod. */
const HOUR = { looks: 4, scrapes: 240, ready: 720, live: 360, app: 360 } as const;

/** Requests of one look that finds nothing new. */
const REQUESTS_OF_A_LOOK = 2;

/** Milliseconds for the garbage collector and the allocator to come to rest. */
const SETTLE_MS = 2_000;
const HOURS_OF_A_DAY = 24;

type Figures = Readonly<Record<"rss-anon" | "rss" | "cgroup" | "cpu-day" | "bytes-day", number>>;

const UNITS = {
  "rss-anon": "MiB",
  rss: "MiB",
  cgroup: "MiB",
  "cpu-day": "s",
  "bytes-day": "bytes",
} as const;

/**
 * A site at rest, an hour compressed into seconds: everything that an hour brings is asked for, one after the other. The libraries
 * make as many HTTPS requests and answer as many probes and scrapes in the same run; they are what the sidecar's own code is measured against.
 */
export async function* idle(): AsyncGenerator<Measurement> {
  await using folder = await temporaryFolder();
  await using stage = await openStage();
  await stage.world.publish("1.0.0", { health: "good", "lib/model.txt": "a small payload" });
  const subjects = await buildSubjects(folder.path);
  const figures = new Map<string, Figures>();
  for (const subject of subjects) {
    if (subject.name === "bare") continue;
    figures.set(subject.name, await measure(subject, stage));
  }
  const floor = figures.get("libraries");
  for (const [subject, own] of figures)
    for (const metric of Object.keys(UNITS) as (keyof Figures)[]) {
      const value = own[metric];
      if (Number.isNaN(value)) continue;
      const other = subject === "libraries" ? undefined : floor?.[metric];
      const row = { subject, unit: UNITS[metric] };
      yield {
        ...row,
        metric,
        value: round(value),
        peer: other === undefined ? null : "libraries",
        ratio: other === undefined ? null : round(value / other),
      };
      if (metric === "rss-anon" && other !== undefined)
        yield {
          ...row,
          metric: "rss-anon-over-libraries",
          value: round(value - other),
          peer: null,
          ratio: null,
        };
    }
}

async function measure(subject: Subject, stage: Stage): Promise<Figures> {
  await using folder = await temporaryFolder();
  await using cgroup = await openCgroup(`${subject.name}-idle`);
  const env =
    subject.name === "libraries"
      ? { BENCH_URL: `${stage.url}/metadata/timestamp.json`, BENCH_CA_FILE: stage.caFile }
      : stage.environment(join(folder.path, "payload"), { EDGESYNC_POLL_INTERVAL: "1s" });
  await mkdir(join(folder.path, "payload"));
  await using running = await start(subject, env, cgroup);
  if (subject.name === "sidecar") await untilReady(running);
  const before = {
    ...(await figuresOf(running.pid)),
    bytes: stage.carried(),
    looks: await looksOf(subject, running),
  };
  await anHour(subject, running);
  await sleep(SETTLE_MS);
  const after = {
    ...(await figuresOf(running.pid)),
    bytes: stage.carried(),
    looks: await looksOf(subject, running),
  };
  const looks = after.looks - before.looks || HOUR.looks;
  return {
    "rss-anon": after.rssAnon,
    rss: after.rss,
    cgroup: cgroup === undefined ? Number.NaN : (await cgroup.bytes()) / 2 ** 20,
    "cpu-day": (after.cpu - before.cpu) * HOURS_OF_A_DAY,
    "bytes-day": ((after.bytes - before.bytes) / looks) * HOUR.looks * HOURS_OF_A_DAY,
  };
}

async function looksOf(subject: Subject, running: Running): Promise<number> {
  if (subject.name !== "sidecar") return 0;
  const text = await running.get("/metrics");
  return [...text.matchAll(/^edgesync_sidecar_polls_total\{.*\} (\d+)$/gm)].reduce(
    (sum, [, n]) => sum + Number(n),
    0,
  );
}

async function untilReady(running: Running): Promise<void> {
  for (let attempt = 0; attempt < 400; attempt++) {
    try {
      await running.get("/startup");
      return;
    } catch {
      // Not installed yet.
      await sleep(50);
    }
  }
  throw new Error("the sidecar did not install its release");
}

/** The requests of one look, on a connection of its own. */
async function look(running: Running): Promise<void> {
  for (let request = 0; request < REQUESTS_OF_A_LOOK; request++) await running.get("/request");
  await sleep(2 * IDLE_MS);
}

/** Evenly mixed, as they come. */
async function anHour(subject: Subject, running: Running): Promise<void> {
  const begun = performance.now();
  const probes =
    subject.name === "libraries"
      ? ["/live", "/live", "/live"]
      : ["/ready", "/live", "/app/app/live"];
  for (let turn = 0; turn < HOUR.ready; turn++) {
    await running.get(probes[0] ?? "");
    if (turn % (HOUR.ready / HOUR.live) === 0) await running.get(probes[1] ?? "");
    if (turn % (HOUR.ready / HOUR.app) === 0) await running.get(probes[2] ?? "");
    if (turn % (HOUR.ready / HOUR.scrapes) === 0) await running.get("/metrics");
    if (subject.name === "libraries" && turn % (HOUR.ready / HOUR.looks) === 0) await look(running);
  }
  // The sidecar looks every second, and an hour has four looks.
  await sleep(Math.max(0, HOUR.looks * 1_200 - (performance.now() - begun)));
}
