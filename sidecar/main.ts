/**
 * The sidecar as a process: `edgesync agent`. Nothing that it does wrong may end it, because without it the pod is not ready
 * and, past the restart window, the kubelet restarts the application; so whatever fails is logged and tried again.
 */
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { pino } from "pino";
import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from "prom-client";
import type { Clock } from "#core/clock.ts";
import { ERRORS, EdgeSyncError, codeOf } from "#core/errors.ts";
import { SETTINGS, fromEnv, variableOf } from "#core/settings.ts";
import type { Settings } from "#core/settings.ts";
import { SIDECAR_METRICS } from "#core/metrics.ts";
import { createMetrics } from "#core/telemetry.ts";
import type { Log, SidecarMetrics } from "#core/telemetry.ts";
import { openHttp } from "./http.ts";
import type { Http, HttpOptions } from "./http.ts";
import { openProxies } from "./proxy.ts";
import { openSecretsAgent } from "./secrets-agent.ts";
import { openServer } from "./server.ts";
import type { Server, ServerDeps } from "./server.ts";
import { openStatus, stuckStatus } from "./status.ts";
import type { Agents, Part, Status } from "./status.ts";
import { supervise } from "./supervise.ts";
import { openUpdateAgent } from "./update-agent.ts";
import { openWorkload } from "./workload.ts";
import type { Workload } from "./workload.ts";

const USAGE = `edgesync agent
  Runs the sidecar; settings come from EDGESYNC_* variables, as the webhook writes them (docs/settings.md).
`;

/** Milliseconds without a byte. A stalled mobile link comes back within a minute or not at all; Vault's answers are short. */
const ORIGIN_IDLE_MS = 60_000;
const VAULT_IDLE_MS = 30_000;

/** A native sidecar has about two seconds from its SIGTERM, whatever the pod's grace period (cluster-facts 5 of the research). */
const SHUTDOWN_MS = 1_500;

/** Another process may still hold the port, as on a host's network. */
const LISTEN_RETRY_MS = 1_000;

/** Bytes of log that wait for a reader; what comes after them is dropped. */
const LOG_BACKLOG = 1 << 20;

const clock: Clock = {
  now: Date.now,
  monotonic: () => performance.now(),
  async sleep(ms, signal) {
    try {
      await sleep(ms, undefined, { signal });
    } catch {
      // Node wraps the reason of an abort in an error of its own, and there is no other way to get here.
      throw signal.reason;
    }
  },
};

/** @returns the exit status, 0 after SIGTERM and SIGINT */
export async function main(args: readonly string[]): Promise<number> {
  if (args.length > 0) return usage(args);
  // Modes are part of what is published: they must not depend on how the process was started.
  process.umask(0o022);
  const log = openLog(process.env);
  const stop = new AbortController();
  for (const name of ["SIGTERM", "SIGINT"] as const)
    process.once(name, () => {
      log.info({ signal: name }, "shutting down");
      stop.abort(new Error(name));
    });
  process.on("uncaughtException", (err) => log.error({ err }, "uncaught exception"));
  process.on("unhandledRejection", (err) => log.error({ err }, "unhandled rejection"));

  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const metrics = createMetrics(SIDECAR_METRICS, { Counter, Gauge, Histogram }, registry);
  const serve = (port: number, status: Status, lever: ServerDeps["lever"]): ServerDeps => ({
    port,
    log,
    metrics,
    start: () => status.start(),
    ready: () => status.ready(),
    status: () => status.document(),
    lever,
    async scrape() {
      status.record();
      return { contentType: registry.contentType, text: await registry.metrics() };
    },
  });

  const config = configure(process.env, log);
  if (config === undefined) {
    const status = stuckStatus("config_invalid", metrics);
    // Where the application runs already, it is not to be restarted for this.
    const deps = serve(portOf(process.env), status, () => 200);
    await using _ = await listen(deps, stop.signal);
    await aborted(stop.signal);
  } else {
    await run(config, { log, metrics, serve }, stop.signal);
  }
  log.info({}, "stopped");
  endSoon();
  return 0;
}

/** `edgesync tuf-client`, which shares the sidecar's trust and nothing else of it. */
export async function tufClient(args: readonly string[]): Promise<number> {
  const { runTufClient } = await import("./tuf-client.ts");
  const say = (text: string): void => void process.stderr.write(text);
  return runTufClient(args, { now: Date.now(), say }, new AbortController().signal);
}

function usage(args: readonly string[]): number {
  if (args[0] === "--help" || args[0] === "-h") {
    process.stdout.write(USAGE);
    return 0;
  }
  const { exit, remedy } = ERRORS.USAGE;
  const given = JSON.stringify(args[0]);
  process.stderr.write(`edgesync: USAGE: agent takes nothing, given was ${given}. ${remedy}\n`);
  return exit;
}

interface Config {
  readonly settings: Settings;
  readonly repository: Http;
  readonly vault: Http;
}

interface Shell {
  readonly log: Log;
  readonly metrics: SidecarMetrics;
  serve(port: number, status: Status, lever: ServerDeps["lever"]): ServerDeps;
}

async function run(config: Config, shell: Shell, signal: AbortSignal): Promise<void> {
  const { settings, repository, vault } = config;
  const { log, metrics } = shell;
  const common = { settings, clock, random: Math.random, log, metrics };
  const agents: Agents = { invalid: new Set(), failed: new Map() };
  using workload = openWorkload(common);
  const status = openStatus({ ...common, workload, agents });
  const lever: ServerDeps["lever"] = (container, probe) => workload.answer(container, probe);
  await using _ = await listen(shell.serve(settings.port, status, lever), signal);

  const keepRunning = <A extends { run(signal: AbortSignal): Promise<void> }>(
    part: Part,
    open: () => Promise<A>,
    adopt: (agent: A) => void,
  ): Promise<void> => {
    const once = async (signal: AbortSignal): Promise<void> => {
      try {
        const agent = await open();
        agents.invalid.delete(part);
        agents.failed.delete(part);
        adopt(agent);
        await agent.run(signal);
      } catch (error) {
        if (codeOf(error) === "CONFIG_INVALID") agents.invalid.add(part);
        if (!signal.aborted) agents.failed.set(part, codeOf(error));
        throw error;
      }
    };
    return supervise(part, once, common, signal);
  };
  const platform = `${process.platform}-${process.arch}`;
  const held = (): boolean => status.held();
  const updateDeps = { ...common, http: repository, workload, platform, held };
  const updates =
    settings.channel &&
    keepRunning(
      "update agent",
      () => openUpdateAgent(updateDeps),
      (agent) => (agents.update = agent),
    );
  const secretsDeps = { ...common, http: vault };
  const secrets =
    settings.secrets.length > 0
      ? keepRunning(
          "secrets agent",
          () => openSecretsAgent(secretsDeps),
          (agent) => (agents.secrets = agent),
        )
      : undefined;

  await aborted(signal);
  const deadline = AbortSignal.timeout(SHUTDOWN_MS);
  const orderly = Promise.all([
    updates,
    // The agent must not renew what is being revoked.
    secrets?.then(() => revoke(agents, workload, log, deadline)),
  ]);
  await Promise.race([orderly, aborted(deadline)]);
  repository.close();
  vault.close();
}

/** Native sidecars are stopped last: only when the application has ended are its credentials of no more use. */
async function revoke(
  { secrets }: Agents,
  workload: Workload,
  log: Log,
  signal: AbortSignal,
): Promise<void> {
  try {
    if (secrets !== undefined && (await workload.ended(signal))) await secrets.revoke(signal);
  } catch (err) {
    log.warn({ err, code: codeOf(err) }, "credentials not revoked; they end with their leases");
  }
}

/** `undefined` when the settings are not valid; what is wrong is then in the log. */
function configure(env: NodeJS.ProcessEnv, log: Log): Config | undefined {
  try {
    const settings = fromEnv(env);
    return {
      settings,
      repository: client("ORIGIN_UNAVAILABLE", ORIGIN_IDLE_MS, "repositoryCaFile", settings, {
        proxies: openProxies(env),
      }),
      vault: client("VAULT_UNAVAILABLE", VAULT_IDLE_MS, "vaultCaFile", settings),
    };
  } catch (err) {
    log.error({ err, code: codeOf(err) }, "settings are not valid; the application is not started");
    return undefined;
  }
}

function client(
  unavailable: HttpOptions["unavailable"],
  idleTimeoutMs: number,
  setting: "repositoryCaFile" | "vaultCaFile",
  settings: Settings,
  more: Pick<HttpOptions, "proxies"> = {},
): Http {
  const path = settings[setting];
  const options = { ...more, unavailable, idleTimeoutMs };
  if (path === undefined) return openHttp(options);
  const variable = setting === "vaultCaFile" ? "vault-ca-file" : "repository-ca-file";
  try {
    return openHttp({ ...options, ca: readFileSync(path, "utf8") });
  } catch (cause) {
    throw new EdgeSyncError(
      "CONFIG_INVALID",
      `${variableOf(variable)} is ${path}; expected a file of PEM certificates`,
      { cause },
    );
  }
}

/** When the settings as a whole are not valid, this one may be all the same. */
function portOf(env: NodeJS.ProcessEnv): number {
  const { value, default: otherwise } = SETTINGS.port;
  return value.parse(env[variableOf("port")] ?? otherwise) ?? Number(otherwise);
}

function openLog(env: NodeJS.ProcessEnv): Log {
  const level = env[variableOf("log-level")] ?? "";
  const options = {
    level: ["debug", "info", "warn", "error"].includes(level) ? level : "info",
    base: {
      pod: env[variableOf("pod-name")],
      namespace: env[variableOf("pod-namespace")],
    },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    // The second net. The first is that no value of a secret is ever given to the log.
    redact: ["token", "password", "data", "auth"].flatMap((name) => [
      name,
      `*.${name}`,
      `err.*.${name}`,
      `err.cause.*.${name}`,
    ]),
  };
  // Not written by the thread that answers probes: a log that nobody takes must not cost the application its liveness.
  return pino(options, pino.destination({ dest: 1, sync: false, maxLength: LOG_BACKLOG }));
}

/** Tries until the port is free: a sidecar that cannot be asked is as good as none, and one that exits is worse. */
async function listen(deps: ServerDeps, signal: AbortSignal): Promise<AsyncDisposable> {
  while (!signal.aborted) {
    try {
      const server: Server = await openServer(deps);
      deps.log.info({ port: deps.port }, "listening");
      return server;
    } catch (err) {
      deps.log.error({ err, port: deps.port }, "cannot listen");
      await clock.sleep(LISTEN_RETRY_MS, signal).catch(() => undefined);
    }
  }
  return { [Symbol.asyncDispose]: () => Promise.resolve() };
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise((resolve) => {
    signal.addEventListener("abort", resolve, { once: true });
  });
}

/** A write that hangs on a dead disk must not keep the process; all that matters is on disk or will be done again. */
function endSoon(): void {
  setTimeout(() => process.exit(0), 100).unref();
}
