import { existsSync, readFileSync, readlinkSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Clock } from "#core/clock.ts";
import { fromEnv } from "#core/settings.ts";
import type { Settings } from "#core/settings.ts";
import { SIDECAR_METRICS } from "#core/metrics.ts";
import { createMetrics } from "#core/telemetry.ts";
import type { LogFields } from "#core/telemetry.ts";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { realClock } from "../../support/real-clock.ts";
import type { Holds } from "../../../sidecar/application/hold.ts";
import { openHooks } from "../../../sidecar/application/hooks.ts";
import { openHttp } from "../../../sidecar/network/http.ts";
import type { Http } from "../../../sidecar/network/http.ts";
import { openUpdateAgent } from "../../../sidecar/update/agent.ts";
import type { UpdateAgent } from "../../../sidecar/update/agent.ts";
import type { UpdateStatus } from "../../../sidecar/update/report.ts";
import type { Disk } from "../../../sidecar/disk/durable.ts";
import type { Workload } from "../../../sidecar/application/workload.ts";
import { PLATFORM } from "./world.ts";

/** The application of a site: it takes what `current` names when it starts, and is as well as the release's file `health` says. */
export interface Application extends Workload {
  /** The bank that the running instance was started from. */
  running(): string | undefined;
  /** Starts by itself, as after a crash. */
  crash(): void;
  restarts(): number;
}

/** How an application reads the payload volume. */
export interface Reading {
  /** Target of a symbolic link. @throws when there is none */
  link(path: string): string;
  /** @throws when it is not there */
  file(path: string): Buffer;
}

const onDisk: Reading = { link: (path) => readlinkSync(path), file: (path) => readFileSync(path) };

export function application(payload: string, reading: Reading = onDisk): Application {
  let bank: string | undefined;
  let starts = 0;
  let restarts = 0;
  const start = (): void => {
    starts += 1;
    bank = reading.link(join(payload, "current"));
  };
  return {
    delivery: "restart",
    sinceRestartMs: () => null,
    backOffMs: () => 0,
    trouble: () => ({ failure: null, reached: true }),
    healthPeriodMs: 5,
    healthFailureThreshold: 3,
    async restart(signal) {
      signal.throwIfAborted();
      restarts += 1;
      start();
    },
    async check() {
      if (bank === undefined) return "unknown";
      const health = reading
        .file(join(payload, bank, "health"))
        .toString()
        .trim();
      if (health === "crashing") start();
      return health === "good" ? "healthy" : "unhealthy";
    },
    starts: () => starts,
    running: () => bank,
    crash: start,
    restarts: () => restarts,
  };
}

export interface Site extends AsyncDisposable {
  readonly payload: string;
  readonly agent: UpdateAgent;
  readonly application: Application;
  readonly log: readonly {
    readonly level: string;
    readonly message: string;
    readonly fields: LogFields;
  }[];
  /** Value of a metric with these labels. */
  metric(name: string, labels?: Readonly<Record<string, string>>): Promise<number>;
  /** Resolves when a look at the channel has come and gone, so that nothing is left of what went before. */
  looked(): Promise<void>;
  /** Resolves when the status is as it should be; fails with the status after a minute, which a busy machine may need. */
  until(what: string, is: (status: UpdateStatus) => boolean): Promise<UpdateStatus>;
}

export interface SiteOptions {
  readonly payload: string;
  readonly url: string;
  readonly root: string;
  readonly settings?: Partial<Settings>;
  readonly disk?: Disk;
  readonly clock?: Clock;
  readonly application?: Application;
  readonly held?: () => boolean;
  readonly holds?: Holds;
  readonly ca?: string;
  /** Milliseconds of the machine's own time without a byte. */
  readonly idleMs?: number;
  readonly random?: () => number;
  /** Whether nothing is kept of the log. */
  readonly silent?: boolean;
  /** What the repository is asked through, where also the disk is in memory; the real client when not given. */
  readonly http?: Http;
  /** Called when the agent has recovered the volume and does nothing yet. */
  readonly recovered?: () => Promise<unknown>;
}

export function siteSettings({ payload, url, root, settings }: SiteOptions): Settings {
  const base = fromEnv({
    EDGESYNC_CHANNEL: "web/stable",
    EDGESYNC_REPOSITORY: url,
    EDGESYNC_PAYLOAD_DIR: payload,
    EDGESYNC_TRUST_ROOT_FILE: root,
    EDGESYNC_HEALTH: "tcp:1",
  });
  // Shorter than an annotation may ask for: tests have less time than sites.
  const quick = { pollInterval: 20, trialDuration: 15, trialTimeout: 5_000 };
  return { ...base, ...quick, ...settings };
}

/** An agent at work on a payload volume until the end of the scope. */
export async function openSite(options: SiteOptions): Promise<Site> {
  const { payload } = options;
  if (options.http === undefined && !existsSync(payload)) await mkdir(payload);
  const registry = new Registry();
  const metrics = createMetrics(SIDECAR_METRICS, { Counter, Gauge, Histogram }, registry);
  const log: { level: string; message: string; fields: LogFields }[] = [];
  const record = (level: string) => (fields: LogFields, message: string) =>
    void (options.silent === true || log.push({ level, message, fields }));
  const client = {
    idleTimeoutMs: options.idleMs ?? 2_000,
    unavailable: "ORIGIN_UNAVAILABLE",
    ...(options.ca === undefined ? {} : { ca: options.ca }),
  } as const;
  const http = options.http ?? openHttp(client);
  const workload = options.application ?? application(payload);
  const common = {
    settings: siteSettings(options),
    clock: options.clock ?? realClock,
    log: {
      debug: record("debug"),
      info: record("info"),
      warn: record("warn"),
      error: record("error"),
    },
    metrics,
  };
  const agent = await openUpdateAgent({
    ...common,
    random: options.random ?? ((): number => 0.5),
    http,
    workload,
    hooks: openHooks(common),
    ...(options.holds === undefined ? {} : { holds: options.holds }),
    platform: PLATFORM,
    ...(options.disk === undefined ? {} : { disk: options.disk }),
    ...(options.held === undefined ? {} : { held: options.held }),
  });
  await options.recovered?.();
  const stop = new AbortController();
  const reason = new Error("the test is over");
  const running = agent.run(stop.signal).catch((error: unknown) => {
    if (error !== reason) throw error;
  });
  const polls = async (): Promise<number> => {
    const values = (await registry.getSingleMetric("edgesync_sidecar_polls_total")?.get())?.values;
    return values?.reduce((sum, item) => sum + item.value, 0) ?? 0;
  };
  return {
    payload,
    agent,
    application: workload,
    async looked() {
      // The one that is under way may have begun before; the next one has not.
      const goal = (await polls()) + 2;
      for (let turn = 0; turn < 12_000 && (await polls()) < goal; turn++) await delay(5);
    },
    log,
    async metric(name, labels = {}) {
      const found = (await registry.getMetricsAsJSON()).find((item) => item.name === name);
      const value = found?.values.find((item) =>
        Object.entries(labels).every(
          ([label, text]) => (item.labels as Record<string, unknown>)[label] === text,
        ),
      );
      return value?.value ?? 0;
    },
    async until(what, is) {
      for (let turn = 0; turn < 12_000; turn++) {
        if (is(agent.status())) return agent.status();
        await delay(5);
      }
      throw new Error(`${what} did not come about: ${JSON.stringify(agent.status())}`);
    },
    async [Symbol.asyncDispose]() {
      stop.abort(reason);
      await running;
      http.close();
    },
  };
}

/** Whether a version is committed and nothing is going on. */
export function committed(version: string): (status: UpdateStatus) => boolean {
  return (status) => status.phase === "committed" && status.release?.version === version;
}
