/**
 * The sidecar as a process: `edgesync agent`. Nothing that it does wrong may end it, because without it the pod is not ready
 * and, past the restart window, the kubelet restarts the application; so whatever fails is logged and tried again.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { pino } from "pino";
import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from "prom-client";
import { sleepBy } from "#core/clock.ts";
import type { Clock } from "#core/clock.ts";
import { ANNOTATIONS } from "#core/annotations.ts";
import { foreignFolders } from "#core/daemon-config.ts";
import { ERRORS, EdgeSyncError, codeOf } from "#core/errors.ts";
import { SETTINGS, fromEnv, payloadNames, settingsOf, variableOf } from "#core/settings.ts";
import type { Settings } from "#core/settings.ts";
import { SIDECAR_METRICS } from "#core/metrics.ts";
import { createMetrics } from "#core/telemetry.ts";
import type { Log } from "#core/telemetry.ts";
import { aborted } from "./aborted.ts";
import { runAgents } from "./agents.ts";
import type { Shell } from "./agents.ts";
import { openClients } from "./clients.ts";
import type { ClientDeps } from "./clients.ts";
import { checkFiles, readConfigFile } from "./config-file.ts";
import { openFolderLocks } from "./disk/folder-lock.ts";
import type { FolderLocks } from "./disk/folder-lock.ts";
import { openPrograms } from "./application/programs.ts";
import { openProxies } from "./network/proxy.ts";
import { openServer } from "./server.ts";
import type { Server, ServerDeps } from "./server.ts";
import { stuckStatus } from "./status.ts";
import type { Status } from "./status.ts";

const USAGE = `edgesync agent [--once | --wait]
  Runs the sidecar; settings come from EDGESYNC_* variables, as the webhook writes them (docs/settings.md). With --once it ends when
  the application may start; with --wait it does nothing but wait until the sidecar beside it says so.
edgesync agent --config <file> [--check]
  Runs as a daemon, outside of Kubernetes; settings come from a JSON file. With --check they, and the files that they name, are only looked at.
`;

/** Another process may still hold the port, as on a host's network. */
const LISTEN_RETRY_MS = 1_000;

/** How long an agent that is about to end is waited for; a service manager tries again anyway. */
const LOCK_ATTEMPTS = 10;
const LOCK_RETRY_MS = 300;

/** Bytes of log that wait for a reader; what comes after them is dropped. */
const LOG_BACKLOG = 1 << 20;

export const clock: Clock = {
  now: Date.now,
  monotonic: () => performance.now(),
  sleep: sleepBy(sleep),
};

/** @returns the exit status, 0 after SIGTERM and SIGINT */
export async function main(args: readonly string[]): Promise<number> {
  const [option, file, check, ...more] = args;
  if (option === "--wait" && args.length === 1) return wait();
  const once = option === "--once" && args.length === 1;
  const isDaemon = option === "--config" && file !== undefined;
  if (
    args.length > 0 &&
    !once &&
    !(isDaemon && (check ?? "--check") === "--check" && more.length === 0)
  )
    return usage(args);
  let stated: Settings | undefined;
  if (isDaemon) {
    try {
      stated = await readConfigFile(file, process.getuid?.() ?? 0);
      // What it names is wrong now or never: whoever has started it hears of that as well.
      openClients(stated, openProxies(process.env), undefined).close();
      if (check !== undefined)
        for (const warning of await checkFiles(file, stated))
          process.stderr.write(`edgesync: warning: ${warning}\n`);
    } catch (error) {
      return refuse(error);
    }
    if (check !== undefined) return 0;
  }
  // Modes are part of what is published: they must not depend on how the process was started.
  process.umask(0o022);
  const log = openLog(process.env, stated?.logLevel);
  const locks = openFolderLocks({ pid: process.pid, now: Date.now, log });
  try {
    if (stated !== undefined) await takeFolders(locks, stated);
  } catch (error) {
    return refuse(error);
  }
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
  const serve = (
    at: Pick<ServerDeps, "port" | "address">,
    status: Status,
    lever: ServerDeps["lever"],
  ): ServerDeps => ({
    ...at,
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

  const config = configure(process.env, stated, { clock, log, metrics });
  if (config === undefined) {
    const status = stuckStatus("config_invalid", metrics);
    // Where the application runs already, it is not to be restarted for this.
    const deps = serve({ port: portOf(process.env) }, status, () => 200);
    await using _ = await listen(deps, stop.signal);
    await aborted(stop.signal);
  } else {
    const { port, listenAddress: address } = config.settings;
    const shell = {
      ...config,
      clock,
      random: Math.random,
      log,
      metrics,
      platform: `${process.platform}-${process.arch}`,
      // In a pod nothing but the application's own answers.
      ...(isDaemon && {
        programs: openPrograms({
          owner: process.getuid?.() ?? 0,
          never: foreignFolders(config.settings),
          kill: (pid) => void process.kill(pid, "SIGKILL"),
        }),
        lock: (folder: string) => locks.take(folder),
      }),
      own: {
        pid: process.pid,
        signal: (pid: number, signal: NodeJS.Signals) => void process.kill(pid, signal),
      },
      once,
      listen(status: Status, lever: ServerDeps["lever"]) {
        if (once)
          void opened(() => Promise.resolve(status.start() === "ok")).then(() => stop.abort());
        return listen(serve({ port, address }, status, lever), stop.signal);
      },
    };
    await runAgents(shell, stop.signal);
  }
  log.info({}, "stopped");
  endSoon();
  return 0;
}

/** Resolves when the gate is open, however long that takes: a machine may be cut off for days. */
async function opened(isOpen: () => Promise<boolean>): Promise<void> {
  while (!(await isOpen())) await sleep(LISTEN_RETRY_MS / 2);
}

/** The start hook of a sidecar that is no native one. It must not fail: the kubelet would go on and start the application. */
async function wait(): Promise<number> {
  const { get } = await import("node:http");
  const port = portOf(process.env);
  const host = process.env[variableOf("listen-address")] ?? "localhost";
  await opened(
    () =>
      new Promise((resolve) => {
        const signal = AbortSignal.timeout(5_000);
        get({ host, port, path: "/startup", agent: false, signal }, (response) =>
          resolve(response.resume().statusCode === 200),
        ).on("error", () => resolve(false));
      }),
  );
  return 0;
}

/** `edgesync tuf-client`, which shares the sidecar's trust and nothing else of it. */
export async function tufClient(args: readonly string[]): Promise<number> {
  const { runTufClient } = await import("./channel/tuf-client.ts");
  const say = (text: string): void => void process.stderr.write(text);
  return runTufClient(args, { now: Date.now(), say }, new AbortController().signal);
}

/** `edgesync status` and `edgesync update …`, which are no part of what stays in memory. @returns the exit status */
export async function control(args: readonly string[]): Promise<number> {
  const { runCommand } = await import("./command/command.ts");
  const port = ANNOTATIONS["control-port"].value.parse(
    process.env[variableOf("control-port")] ?? "",
  );
  const print = (text: string): void => void process.stdout.write(text);
  const progress = {
    isTerminal: process.stderr.isTTY,
    columns: process.stderr.columns,
    write: (text: string): void => void process.stderr.write(text),
  };
  return await runCommand(args, { port, clock, print, progress }, new AbortController().signal);
}

function usage(args: readonly string[]): number {
  if (args[0] === "--help" || args[0] === "-h") {
    process.stdout.write(USAGE);
    return 0;
  }
  const given = JSON.stringify(args.join(" "));
  const message = `agent takes --config <file> or nothing, given was ${given}`;
  return refuse(new EdgeSyncError("USAGE", message));
}

/** A daemon whose configuration is wrong ends, so that whoever has started it hears of it; its application runs on. */
function refuse(error: unknown): number {
  const code = codeOf(error);
  const { exit, remedy } = ERRORS[code];
  const message = error instanceof Error ? error.message : String(error);
  process.stderr.write(`edgesync: ${code}: ${message}. ${remedy}\n`);
  return exit;
}

/**
 * Before anything else is touched. A folder that is not there yet is taken when it is.
 *
 * @throws EdgeSyncError AGENT_RUNNING
 */
async function takeFolders(locks: FolderLocks, settings: Settings): Promise<void> {
  let attempts = 0;
  const isTaken = async (folder: string): Promise<boolean> => {
    try {
      await locks.take(folder);
    } catch (error) {
      if (codeOf(error) !== "AGENT_RUNNING") return true;
      attempts += 1;
      if (attempts > LOCK_ATTEMPTS) throw error;
      await sleep(LOCK_RETRY_MS);
      return false;
    }
    return true;
  };
  const folders = payloadNames(settings).map((name) => settingsOf(settings, name).payloadDir);
  for (const folder of folders.filter((path) => path !== undefined))
    while (!(await isTaken(folder)));
}

/** `undefined` when the settings are not valid; what is wrong is then in the log. */
function configure(
  env: NodeJS.ProcessEnv,
  stated: Settings | undefined,
  deps: ClientDeps,
): Pick<Shell, "settings" | "clients"> | undefined {
  try {
    const settings = stated ?? fromEnv(env);
    return { settings, clients: openClients(settings, openProxies(env), deps) };
  } catch (err) {
    deps.log.error(
      { err, code: codeOf(err) },
      "settings are not valid; the application is not started",
    );
    return undefined;
  }
}

/** When the settings as a whole are not valid, this one may be all the same. */
function portOf(env: NodeJS.ProcessEnv): number {
  const { value, default: otherwise } = SETTINGS.port;
  return value.parse(env[variableOf("port")] ?? otherwise) ?? Number(otherwise);
}

function openLog(env: NodeJS.ProcessEnv, stated: string | undefined): Log {
  const level = stated ?? env[variableOf("log-level")] ?? "";
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

/** A write that hangs on a dead disk must not keep the process; all that matters is on disk or will be done again. */
function endSoon(): void {
  setTimeout(() => process.exit(0), 100).unref();
}
