/**
 * A sample of sites of real code through a roll-out, on compressed time: what the model is checked against. Each site has a clock of its
 * own that passes when it sleeps and at no other time, so that a busy machine does not make the sites slower.
 */
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import type { Clock } from "#core/clock.ts";
import type { Rollout } from "#core/channel-document.ts";
import { isoSeconds } from "../../publisher/metadata.ts";
import { randomFrom } from "./model.ts";
import type { Fleet } from "./model.ts";
import { openBenchSite, until } from "./site.ts";
import type { BenchSite } from "./site.ts";
import { FROM, NEW } from "./wire.ts";
import type { Wire } from "./wire.ts";

const SITES = 24;
const POLL_MS = 900_000;
const HOUR_MS = 3_600_000;
/** Turns of the event loop in which what was begun shows that it needs no time. */
const IDLE_TURNS = 5;
/** Milliseconds after which the sidecar gives an unused connection up. */
const KEPT_MS = 4_000;

export interface Sample {
  /** The same fleet, for the model. */
  readonly fleet: Fleet;
  readonly requests: number;
  readonly bytes: number;
  /** Sites that have the release, by the hour since it was announced. */
  readonly installed: readonly number[];
}

/** Lets no site's time pass a limit. */
interface Barrier {
  /** Milliseconds of a site's time. */
  limit: number;
  /** Sites that have come to it. */
  readonly waiting: Set<() => void>;
}

export async function runSample(wire: Wire): Promise<Sample> {
  const epoch = Date.now();
  const barrier: Barrier = { limit: 0, waiting: new Set() };
  await using cleanup = new AsyncDisposableStack();
  const sites: BenchSite[] = [];
  const passTo = async (limit: number): Promise<void> => {
    barrier.limit = limit;
    const waiting = [...barrier.waiting];
    barrier.waiting.clear();
    for (const wake of waiting) wake();
    await until("the time of all sites", () => barrier.waiting.size === sites.length);
  };
  for (let index = 0; index < SITES; index++) {
    const slot: { site?: BenchSite } = {};
    const site = await openBenchSite({
      wire,
      payload: join(wire.world.folder, nameOf(index)),
      site: nameOf(index),
      pollMs: POLL_MS,
      clock: compressed(epoch, barrier, slot),
      random: randomFrom(index + 1),
    });
    slot.site = cleanup.use(site);
    sites.push(site);
    await until("the first release", () => barrier.waiting.size === sites.length);
  }
  const totals = (): { requests: number; bytes: number } => ({
    requests: sites.reduce((sum, site) => sum + site.requests(), 0),
    bytes: wire.bytes(),
  });
  // The look after an installation is past, and the sites are apart.
  const from = 2 * HOUR_MS;
  await passTo(from);
  const before = totals();
  const announced = from + 2 * HOUR_MS;
  await passTo(announced);
  const start = isoSeconds(epoch + announced + HOUR_MS);
  const rollout: Rollout = {
    start,
    duration: (4 * HOUR_MS) / 1_000,
    percent: 100,
    paused: false,
    salt: "2",
    from: FROM,
  };
  await wire.announce(rollout);
  const installed: number[] = [];
  for (let hour = 1; hour <= 6; hour++) {
    await passTo(announced + hour * HOUR_MS);
    const there = sites.filter((site) => site.agent.status().release?.version === NEW);
    installed.push(there.length);
  }
  const after = totals();
  const fleet: Fleet = {
    app: "web",
    channel: "stable",
    sites: SITES,
    name: nameOf,
    intervalMs: POLL_MS,
    from: epoch + from,
    to: epoch + announced + 6 * HOUR_MS,
    firstLook: (random) => random() * POLL_MS,
    renewMs: null,
    publishedAt: epoch + announced,
    rollout,
    outage: null,
  };
  return {
    fleet,
    requests: after.requests - before.requests,
    bytes: after.bytes - before.bytes,
    installed,
  };
}

function nameOf(index: number): string {
  return `sample-${index}`;
}

function compressed(epoch: number, barrier: Barrier, slot: { readonly site?: BenchSite }): Clock {
  let passed = 0;
  return {
    now: () => epoch + passed,
    monotonic: () => passed,
    async sleep(ms, signal) {
      signal.throwIfAborted();
      if (slot.site?.agent.status().phase === "downloading" && ms > KEPT_MS)
        // The look beside a download: this one is over long before it would come.
        await aborted(signal);
      // In a site's time the server has closed the connection by then.
      if (ms > KEPT_MS && slot.site?.agent.status().phase === "committed") slot.site.hangUp();
      // What needs no time comes first, and may end the wait.
      for (let count = 0; count < IDLE_TURNS; count++) await turn(undefined, { signal });
      const end = passed + ms;
      while (end > barrier.limit)
        await new Promise<void>((resolve, reject) => {
          const abort = (): void => {
            barrier.waiting.delete(resolve);
            reject(signal.reason as Error);
          };
          barrier.waiting.add(resolve);
          signal.addEventListener("abort", abort, { once: true });
        });
      passed = end;
    },
  };
}

async function aborted(signal: AbortSignal): Promise<never> {
  return await new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
  });
}
