import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { temporaryFolder } from "../test/support/temporary.ts";
import { prepareEnvironment } from "../test/vault/sidecar.ts";
import { openWorld } from "../test/vault/world.ts";
import type { World } from "../test/vault/world.ts";
import { openCgroup } from "./cgroup.ts";
import { peersOf } from "./startup.ts";
import { buildSubjects, round, start } from "./subjects.ts";
import type { Measurement, Running, Subject } from "./subjects.ts";

const REQUESTS = 300;
const SCRAPES = 50;

/** Each is read again every second, so that the sidecar makes its requests in the time that a bench may take. */
const SECRETS = 30;

/** Milliseconds for the garbage collector and the allocator to come to rest. */
const SETTLE_MS = 2_000;
/** Milliseconds. */
const WORK_LIMIT_MS = 120_000;

/** MiB by metric. */
type Figures = Readonly<Record<string, number>>;

/**
 * VmRSS counts the node binary's clean pages, which all sidecars of a machine share; RssAnon is what the process alone has; the cgroup's
 * figure is what a container's limit counts, page cache included, and is left out where no group can be made.
 */
export async function* memory(): AsyncGenerator<Measurement> {
  await using folder = await temporaryFolder();
  await using world = await openWorld({ embedded: true });
  const subjects = await buildSubjects(folder.path);
  const idle = new Map<string, Figures>();
  const after = new Map<string, Figures>();
  for (const subject of subjects) {
    idle.set(subject.name, await measure(subject, world, "idle"));
    if (subject.name !== "bare") after.set(subject.name, await measure(subject, world, "after"));
  }
  for (const [state, figures] of [
    ["idle", idle],
    ["after", after],
  ] as const)
    for (const [subject, own] of figures)
      for (const peer of peersOf(subject))
        for (const [metric, value] of Object.entries(own)) {
          // A bare process has no work to do: it stays as it was.
          const other = peer && (figures.get(peer) ?? idle.get(peer))?.[metric];
          yield {
            subject,
            metric: `${metric}-${state}`,
            value: round(value),
            unit: "MiB",
            peer,
            ratio: typeof other === "number" ? round(value / other) : null,
          };
        }
}

async function measure(subject: Subject, world: World, state: "idle" | "after"): Promise<Figures> {
  await using folder = await temporaryFolder("/dev/shm");
  await using cgroup = await openCgroup(`${subject.name}-${state}`);
  // An idle sidecar has published its secrets and waits.
  const refreshInterval = state === "idle" ? "24h" : "1s";
  const env = await environment(subject, world, folder.path, refreshInterval);
  await using running = await start(subject, env, cgroup);
  if (state === "after" && subject.name === "libraries") await workOfLibraries(running);
  if (state === "after" && subject.name === "sidecar") await workOfSidecar(running, world);
  await sleep(SETTLE_MS);
  return {
    ...(await processFigures(running.pid)),
    ...(cgroup === undefined ? {} : { cgroup: (await cgroup.bytes()) / 2 ** 20 }),
  };
}

async function environment(
  subject: Subject,
  world: World,
  folder: string,
  refreshInterval: string,
): Promise<Readonly<Record<string, string>>> {
  if (subject.name === "bare") return {};
  const caFile = join(folder, "ca.crt");
  await writeFile(caFile, world.ca ?? "");
  if (subject.name === "libraries") {
    return { BENCH_URL: `${world.url}/v1/sys/health`, BENCH_CA_FILE: caFile };
  }
  const names = Array.from({ length: SECRETS }, (_, index) => `s${index}`);
  for (const name of names)
    await world.configure("POST", `${world.names.kv}/data/web/${name}`, {
      data: { user: name, password: "not a real one" },
    });
  const path = (name: string): string => `${world.names.kv}/data/web/${name}`;
  const env = await prepareEnvironment(world, folder, {
    refreshInterval,
    secrets: Object.fromEntries(names.map((name) => [name, { request: path(name) }])),
  });
  return { ...env, EDGESYNC_VAULT_CA_FILE: caFile };
}

async function workOfLibraries(running: Running): Promise<void> {
  for (let done = 0; done < REQUESTS; done++) {
    await running.get("/request");
    if (done % (REQUESTS / SCRAPES) === 0) await running.get("/metrics");
  }
}

/** The sidecar works by itself: it logs in at Vault and reads its secrets over and over; it is scraped meanwhile. */
async function workOfSidecar(running: Running, world: World): Promise<void> {
  const count = (): number => world.embedded?.control.requests.length ?? 0;
  const before = count();
  const deadline = performance.now() + WORK_LIMIT_MS;
  for (let scrapes = 0; scrapes < SCRAPES || count() - before < REQUESTS; scrapes++) {
    await running.get("/metrics");
    if (performance.now() > deadline)
      throw new Error(`the sidecar made ${count() - before} requests only`);
    await sleep(200);
  }
}

async function processFigures(pid: number): Promise<Figures> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  const mib = (field: string): number => {
    const kib = new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(status)?.[1];
    if (kib === undefined) throw new Error(`/proc/${pid}/status has no ${field}`);
    return Number(kib) / 1024;
  };
  return { rss: mib("VmRSS"), "rss-anon": mib("RssAnon") };
}
