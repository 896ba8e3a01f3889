/** A site that follows its channel until it is killed, and says how things are whenever they have changed, with what it holds then. */
import { readFileSync, readdirSync } from "node:fs";
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import type { Clock } from "#core/clock.ts";
import { realClock } from "../support/real-clock.ts";
import { application, openSite } from "../update/support/site.ts";

export interface SoakOptions {
  readonly payload: string;
  readonly url: string;
  readonly root: string;
}

export interface SoakStatus {
  readonly phase: string;
  /** Sequence number of what is served. */
  readonly sequence: number | null;
  readonly version: string | null;
  /** Sequence number of what is not tried again. */
  readonly blocked: number | null;
  readonly reason: string | null;
  /** Bytes of the heap that are reachable. */
  readonly heap: number;
  /** Bytes that are nobody else's. */
  readonly memory: number;
  /** Open files and sockets. */
  readonly handles: number;
}

/** So many times faster than the machine's own goes the time of the agent: what it leaves alone for a minute comes back in three seconds. */
const SPEED = 20;
const clock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now() * SPEED,
  sleep: (ms, signal) => realClock.sleep(ms / SPEED, signal),
};

const options = JSON.parse(process.argv[2] ?? "") as SoakOptions;
const app = application(options.payload);
await using site = await openSite({
  ...options,
  application: app,
  silent: true,
  clock,
  settings: {
    pollInterval: 15 * SPEED,
    trialDuration: 10 * SPEED,
    // A machine that is busy with something else for some seconds says nothing of a release.
    trialTimeout: 20_000 * SPEED,
    scrubInterval: 0,
  },
});

/** Started with --expose-gc. */
const collect = (globalThis as { readonly gc?: () => void }).gc;

function status(): SoakStatus {
  const { phase, release, blocked } = site.agent.status();
  collect?.();
  const anonymous = /^RssAnon:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"));
  return {
    phase,
    sequence: release?.sequence ?? null,
    version: release?.version ?? null,
    blocked: blocked?.sequence ?? null,
    reason: blocked?.reason ?? null,
    heap: process.memoryUsage().heapUsed,
    memory: Number(anonymous?.[1]) * 1024,
    handles: readdirSync("/proc/self/fd").length,
  };
}

for (let last = ""; ;) {
  if (site.agent.installed() && app.running() === undefined) app.crash();
  const { phase, release, blocked } = site.agent.status();
  const now = [phase, release?.sequence, blocked?.sequence].join();
  if (now !== last) process.stdout.write(`${JSON.stringify(status())}\n`);
  last = now;
  await delay(5);
}
