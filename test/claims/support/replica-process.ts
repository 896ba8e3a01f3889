/** One pod of several on a claim: a real agent in a process of its own, with a workload whose starts are written down where the test reads them. */
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import { SIDECAR_METRICS } from "#core/metrics.ts";
import { fromEnv } from "#core/settings.ts";
import { createMetrics } from "#core/telemetry.ts";
import type { LogFields } from "#core/telemetry.ts";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { realClock } from "../../support/real-clock.ts";
import { faultyDisk } from "../../update/support/faulty-disk.ts";
import { openClaimAgent } from "../../../sidecar/claim/claim.ts";
import { openHttp } from "../../../sidecar/network/http.ts";
import type { Workload } from "../../../sidecar/application/workload.ts";

export interface ReplicaOptions {
  readonly pod: string;
  /** The folder of the pod: its emptyDir, with the claim mounted at `.volume`. */
  readonly folder: string;
  readonly url: string;
  readonly root: string;
  /** One line for each thing that happened to a workload, of all pods. */
  readonly events: string;
  readonly leaseMs: number;
  readonly forgetMs?: number;
  /** The process kills itself before it does this for the `nth` time. */
  readonly kill?: { readonly operation: string; readonly path: string; readonly nth: number };
}

export interface WorkloadEvent {
  readonly at: number;
  readonly pod: string;
  readonly event: "swap" | "started" | "healthy" | "unhealthy" | "killed" | "follows";
  readonly bank: string;
}

const options = JSON.parse(process.argv[2] ?? "") as ReplicaOptions;
const { pod, folder, kill, leaseMs } = options;
mkdirSync(folder, { recursive: true });

function tell(event: WorkloadEvent["event"], bank: string): void {
  const line: WorkloadEvent = { at: Date.now(), pod, event, bank };
  appendFileSync(options.events, `${JSON.stringify(line)}\n`);
}

/** The workload outlives its sidecar: what it was started from is in a file of its own. */
const running = join(folder, "running");
const linked = (): string => readlinkSync(join(folder, "current"));

function workload(): Workload {
  return {
    delivery: "restart",
    sinceRestartMs: () => null,
    backOffMs: () => 0,
    trouble: () => ({ failure: null, reached: true }),
    healthPeriodMs: 40,
    healthFailureThreshold: 3,
    async restart(signal) {
      signal.throwIfAborted();
      tell("swap", linked());
      await delay(100, undefined, { signal });
      writeFileSync(running, linked());
      tell("started", linked());
    },
    async check() {
      const bank = existsSync(running) ? readFileSync(running, "utf8") : "";
      const health = readFileSync(join(folder, bank, "health"), "utf8").trim();
      tell(health === "good" ? "healthy" : "unhealthy", bank);
      return health === "good" ? "healthy" : "unhealthy";
    },
    starts: () => 0,
  };
}

let seen = 0;
await using faulty = faultyDisk((operation, path) => {
  if (kill?.operation !== operation || !new RegExp(kill.path).test(path)) return;
  seen += 1;
  if (seen !== kill.nth) return;
  tell("killed", "");
  process.kill(process.pid, "SIGKILL");
});
const registry = new Registry();
const record = (level: string) => (fields: LogFields, message: string) => {
  const { err, ...rest } = fields;
  const detail = err instanceof Error ? err.message : undefined;
  process.stderr.write(
    `${Date.now()} ${pod} ${level} ${message} ${JSON.stringify(rest)} ${detail}\n`,
  );
};
const settings = fromEnv({
  EDGESYNC_CHANNEL: "web/stable",
  EDGESYNC_REPOSITORY: options.url,
  EDGESYNC_PAYLOAD_LINK_DIR: folder,
  EDGESYNC_PAYLOAD_DIR: join(folder, ".volume"),
  EDGESYNC_TRUST_ROOT_FILE: options.root,
  EDGESYNC_HEALTH: "tcp:1",
  EDGESYNC_POD_UID: `uid-${pod}`,
  EDGESYNC_POD_NAME: pod,
  EDGESYNC_NODE_NAME: "node",
});
const agent = await openClaimAgent({
  settings: { ...settings, pollInterval: 100, trialDuration: 150, trialTimeout: 20_000 },
  clock: realClock,
  random: Math.random,
  log: {
    debug: record("debug"),
    info: record("info"),
    warn: record("warn"),
    error: record("error"),
  },
  metrics: createMetrics(SIDECAR_METRICS, { Counter, Gauge, Histogram }, registry),
  http: openHttp({ idleTimeoutMs: 2_000, unavailable: "ORIGIN_UNAVAILABLE" }),
  workload: workload(),
  platform: "linux-x64",
  disk: faulty.disk,
  times: { leaseMs, forgetMs: options.forgetMs ?? 60_000 },
  held: () => !existsSync(running),
});
// The kubelet starts the workload when there is something to start.
const kubelet = setInterval(() => {
  if (!agent.installed()) return;
  clearInterval(kubelet);
  if (existsSync(running)) return;
  writeFileSync(running, linked());
  tell("started", linked());
}, 10);
const stop = new AbortController();
process.once("SIGTERM", () => stop.abort(new Error("SIGTERM")));
/** Asked for a line at a time: what it says of itself. */
process.stdin.on("data", () => process.stdout.write(`${JSON.stringify(agent.status())}\n`));
try {
  await agent.run(stop.signal);
} catch (error) {
  if (!stop.signal.aborted) throw error;
}
process.exit(0);
