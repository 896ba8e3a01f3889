/** How programs record metrics (the tables are in `metrics.ts`) and what their log lines may carry: a new field is a deliberate act. */
import type { SIDECAR_METRICS, WEBHOOK_METRICS } from "./metrics.ts";
import type { Metric } from "./metrics.ts";
import type { Share } from "./plan.ts";

/** Records the metrics of one table; names and labels are checked by the compiler. */
export interface Metrics<Table extends Readonly<Record<string, Metric>>> {
  /** Adds to a counter; 1 without a value. */
  add<N extends keyof Table>(name: N, labels: LabelsOf<Table[N]>, value?: number): void;
  /** Sets a gauge. */
  set<N extends keyof Table>(name: N, labels: LabelsOf<Table[N]>, value: number): void;
  /** Forgets every label value of a gauge, before the ones that hold now are set. */
  clear(name: keyof Table): void;
  /** Adds an observation to a histogram. */
  observe<N extends keyof Table>(name: N, labels: LabelsOf<Table[N]>, value: number): void;
}

/** Of a program that may have several payloads. */
export interface PayloadMetrics<
  Table extends Readonly<Record<string, Metric>>,
> extends Metrics<Table> {
  /** The metrics as one payload records them: what there is one of for each payload carries its name. */
  of(payload: string): Metrics<Table>;
}

type LabelsOf<M> = M extends { labels: readonly (infer L extends string)[] }
  ? Readonly<Record<L, string>>
  : Readonly<Record<string, never>>;

export type WebhookMetrics = Metrics<typeof WEBHOOK_METRICS>;
export type SidecarMetrics = Metrics<typeof SIDECAR_METRICS>;
/** Those of a sidecar with all its payloads. */
export type PodMetrics = PayloadMetrics<typeof SIDECAR_METRICS>;

/** The part of prom-client that is needed; given by the program, because the core depends on no such library. */
interface PromClient<R> {
  readonly Counter: new (c: PromConfig<R>) => { inc(labels: object, value: number): void };
  readonly Gauge: new (c: PromConfig<R>) => {
    set(labels: object, value: number): void;
    remove(labels: object): void;
  };
  readonly Histogram: new (c: PromConfig<R> & { buckets: number[] }) => {
    observe(labels: object, value: number): void;
  };
}
interface PromConfig<R> {
  name: string;
  help: string;
  labelNames: string[];
  registers: R[];
}

/** Registers every metric of a table in `registry`. Recording with the wrong type of metric is an error of ours and throws. */
export function createMetrics<Table extends Readonly<Record<string, Metric>>, R>(
  table: Table,
  prom: PromClient<R>,
  registry: R,
): PayloadMetrics<Table> {
  const counters = new Map<keyof Table, InstanceType<PromClient<R>["Counter"]>>();
  const gauges = new Map<keyof Table, InstanceType<PromClient<R>["Gauge"]>>();
  const histograms = new Map<keyof Table, InstanceType<PromClient<R>["Histogram"]>>();
  for (const [name, metric] of Object.entries(table)) {
    const { type, help, buckets = [] } = metric;
    const config = { name, help, labelNames: [...labelNames(metric)], registers: [registry] };
    if (type === "counter") counters.set(name, new prom.Counter(config));
    else if (type === "gauge") gauges.set(name, new prom.Gauge(config));
    else histograms.set(name, new prom.Histogram({ ...config, buckets: [...buckets] }));
  }
  const recorder = (common: object): Metrics<Table> => {
    /** Labels of each gauge as this recorder has set them, by their text. */
    const recorded = new Map<keyof Table, Map<string, object>>();
    const all = (name: keyof Table, labels: object): object =>
      table[name]?.perPayload === true ? { ...labels, ...common } : labels;
    return {
      add: (name, labels, value = 1) => pick(counters, name).inc(all(name, labels), value),
      set(name, labels, value) {
        const full = all(name, labels);
        const sets = recorded.get(name) ?? new Map<string, object>();
        recorded.set(name, sets.set(JSON.stringify(full), full));
        pick(gauges, name).set(full, value);
      },
      clear(name) {
        // Not `reset`, which would take what other payloads have set as well.
        const gauge = pick(gauges, name);
        for (const labels of recorded.get(name)?.values() ?? []) gauge.remove(labels);
        recorded.delete(name);
      },
      observe: (name, labels, value) => pick(histograms, name).observe(all(name, labels), value),
    };
  };
  return { ...recorder({}), of: (payload) => recorder({ payload }) };
}

/** As they are registered and documented. */
export function labelNames({ labels = [], perPayload }: Metric): readonly string[] {
  return perPayload === true ? [...labels, "payload"] : labels;
}

function pick<K, V>(map: ReadonlyMap<K, V>, name: K): V {
  const metric = map.get(name);
  if (metric === undefined) throw new TypeError(`${String(name)} is not a metric of this type`);
  return metric;
}

/** Fields that log lines may carry; units are at the end of the name. Never the value of a secret. */
export interface LogFields {
  readonly app?: string;
  readonly channel?: string;
  readonly version?: string;
  readonly from?: string;
  readonly sequence?: number;
  /** Of the lead on a shared volume. */
  readonly epoch?: number;
  readonly reason?: string;
  readonly outcome?: string;
  readonly code?: string;
  readonly err?: unknown;
  readonly route?: string;
  readonly secret?: string;
  readonly container?: string;
  readonly part?: string;
  readonly payload?: string;
  /** Of the repository; it never holds credentials. */
  readonly address?: string;
  /** Path of an offline bundle. */
  readonly bundle?: string;
  readonly namespace?: string;
  readonly pod?: string;
  readonly uid?: string;
  readonly port?: number;
  readonly attempt?: number;
  readonly durationMs?: number;
  readonly delayMs?: number;
  readonly sizeBytes?: number;
  readonly savedBytes?: number;
  /** Of a plan: contents and bytes by how they are had, and of those that come whole by the reason. */
  readonly ways?: Readonly<Record<string, Share>>;
  readonly whole?: Readonly<Record<string, Share>>;
  readonly expiresAt?: string;
  readonly hook?: string;
  /** Of a hook. */
  readonly answer?: string;
  /** Of a check of the application that failed, see `failure.ts`. */
  readonly check?: string;
  readonly target?: string;
  readonly result?: string;
  readonly at?: string;
  /** Of a trial that is resumed. */
  readonly stage?: string;
  readonly starts?: number;
  readonly resumed?: number;
  /** Of a hold. */
  readonly owner?: string;
  /** What is waited for: download or swap. */
  readonly moment?: string;
  readonly until?: string;
  /** When a site's turn comes. */
  readonly turn?: string;
  readonly signal?: string;
  readonly warnings?: readonly string[];
  /** What was wrong, in words, where there is no error to log. */
  readonly detail?: string;
}

/** What the programs log through; pino's own shape, object first and a constant message. */
export interface Log {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
}

/** A log whose every line carries some fields more. */
export function withFields(log: Log, common: LogFields): Log {
  return {
    debug: (fields, message) => log.debug({ ...common, ...fields }, message),
    info: (fields, message) => log.info({ ...common, ...fields }, message),
    warn: (fields, message) => log.warn({ ...common, ...fields }, message),
    error: (fields, message) => log.error({ ...common, ...fields }, message),
  };
}
