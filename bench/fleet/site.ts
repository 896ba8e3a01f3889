/** A site of real code, the sidecar's own, with a clock that is given and its requests counted. */
import { mkdir } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import type { Clock } from "#core/clock.ts";
import { SIDECAR_METRICS } from "#core/metrics.ts";
import { createMetrics } from "#core/telemetry.ts";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { openHttp } from "../../sidecar/network/http.ts";
import { openUpdateAgent } from "../../sidecar/update/agent.ts";
import type { UpdateAgent } from "../../sidecar/update/agent.ts";
import type { Workload } from "../../sidecar/application/workload.ts";
import { siteSettings } from "../../test/update/support/site.ts";
import { PLATFORM } from "../../test/update/support/world.ts";
import type { Wire } from "./wire.ts";

export interface BenchSite extends AsyncDisposable {
  readonly agent: UpdateAgent;
  requests(): number;
  /** As a connection that has not been used for some seconds is: by the next look it is gone. */
  hangUp(): void;
}

export interface BenchSiteOptions {
  readonly wire: Wire;
  readonly payload: string;
  readonly site: string;
  readonly pollMs: number;
  readonly clock: Clock;
  readonly random: () => number;
}

/** As annotated when nothing is said. */
const TRIAL = { trialDuration: 60_000, trialTimeout: 600_000 };

export async function openBenchSite(options: BenchSiteOptions): Promise<BenchSite> {
  const { wire, payload, site, pollMs, clock, random } = options;
  await mkdir(payload, { recursive: true });
  const settings = siteSettings({
    payload,
    url: wire.url,
    root: wire.world.root,
    settings: { site, pollInterval: pollMs, ...TRIAL },
  });
  const http = openHttp({ idleTimeoutMs: 30_000, unavailable: "ORIGIN_UNAVAILABLE", ca: wire.ca });
  let requests = 0;
  const counted = {
    ...http,
    request(...args: Parameters<typeof http.request>) {
      requests += 1;
      return http.request(...args);
    },
  };
  const quiet = (): void => undefined;
  const agent = await openUpdateAgent({
    settings,
    clock,
    random,
    http: counted,
    workload: healthy(),
    platform: PLATFORM,
    log: { debug: quiet, info: quiet, warn: quiet, error: quiet },
    metrics: createMetrics(SIDECAR_METRICS, { Counter, Gauge, Histogram }, new Registry()),
  });
  const stop = new AbortController();
  const running = agent.run(stop.signal).catch((error: unknown) => {
    if (!stop.signal.aborted) throw error;
  });
  return {
    agent,
    requests: () => requests,
    hangUp: () => http.close(),
    async [Symbol.asyncDispose]() {
      stop.abort(new Error("the bench is over"));
      await running;
      http.close();
    },
  };
}

function healthy(): Workload {
  let starts = 1;
  return {
    delivery: "restart",
    sinceRestartMs: () => null,
    backOffMs: () => 0,
    trouble: () => ({ failure: null, reached: true }),
    healthPeriodMs: 10_000,
    healthFailureThreshold: 3,
    restart: () => Promise.resolve(void (starts += 1)),
    check: () => Promise.resolve("healthy"),
    starts: () => starts,
  };
}

/** Waits, in real time and with an end, for what another task brings about. */
export async function until(what: string, is: () => boolean): Promise<void> {
  for (let turn = 0; turn < 12_000; turn++) {
    if (is()) return;
    await sleep(5);
  }
  throw new Error(`${what} did not come about`);
}
