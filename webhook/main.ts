/** The webhook as a process: `edgesync webhook` serves, `edgesync webhook certificate` makes its certificate. */
import { randomUUID } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { isIP } from "node:net";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { pino } from "pino";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { sleepBy } from "#core/clock.ts";
import type { Clock } from "#core/clock.ts";
import { codeOf, EdgeSyncError, ERRORS } from "#core/errors.ts";
import type { OfflineCommand } from "#core/inject/commands.ts";
import { PLAIN_FACTS } from "#core/inject/facts.ts";
import { WEBHOOK_METRICS } from "#core/metrics.ts";
import { createMetrics } from "#core/telemetry.ts";
import type { Log, WebhookMetrics } from "#core/telemetry.ts";
import * as v from "#core/values.ts";
import { makeCertificate } from "./certificate.ts";
import { watchCertificate } from "./certificate-files.ts";
import { openClusterApi } from "./cluster-api.ts";
import type { ClusterApi } from "./cluster-api.ts";
import { openClusterState } from "./cluster-state.ts";
import type { ClusterState } from "./cluster-state.ts";
import { clusterOptions, webhookConfig } from "./config.ts";
import type { WebhookConfig } from "./config.ts";
import { openEvents } from "./events.ts";
import type { Events } from "./events.ts";
import { openKeeper } from "./keep-certificate.ts";
import { openLeader } from "./leader.ts";
import { openLogLines } from "./log-lines.ts";
import { openServer } from "./server.ts";
import type { Server } from "./server.ts";
import description from "../package.json" with { type: "json" };

const USAGE = `edgesync webhook
  Serves the admission webhook; settings come from EDGESYNC_* variables (docs/webhook.md).

edgesync webhook certificate --out <folder> --namespace <name> --service <name> [--name <host or address>]...
  Writes ca.crt, tls.crt and tls.key for the webhook's Service. --name adds further names.
`;

export const clock: Clock = {
  now: Date.now,
  monotonic: () => performance.now(),
  sleep: sleepBy(sleep),
};

/** Milliseconds for which the first reading of the cluster is waited for. */
const STATE_WAIT_MS = 10_000;

/** `edgesync inject` and `edgesync explain`. @returns the exit status */
export async function offline(command: OfflineCommand, args: readonly string[]): Promise<number> {
  // Whoever reads the output may have read enough, as `head` does; that is no failure.
  process.stdout.on("error", () => {});
  const { runOffline } = await import("./offline.ts");
  const read = async (file: string): Promise<string> => {
    try {
      return file === "-" ? await text(process.stdin) : await readFile(file, "utf8");
    } catch (cause) {
      throw new EdgeSyncError("USAGE", `${file} cannot be read; expected a file with objects`, {
        cause,
      });
    }
  };
  try {
    return await runOffline(command, args, {
      read,
      out: (output) => void process.stdout.write(output),
      note: (output) => void process.stderr.write(output),
      now: () => clock.now(),
      image: `edgesync:${description.version}`,
    });
  } catch (error) {
    return report(error);
  }
}

/** @returns the exit status */
export async function main(args: readonly string[]): Promise<number> {
  try {
    const [command, ...rest] = args;
    if (command === undefined) return await serve();
    if (command === "certificate") return await writeCertificate(rest);
    if (command === "--help" || command === "-h") {
      process.stdout.write(USAGE);
      return 0;
    }
    throw new EdgeSyncError("USAGE", `webhook: ${JSON.stringify(command)} is not known`);
  } catch (error) {
    return report(error);
  }
}

function report(error: unknown): number {
  const code = codeOf(error);
  const message = error instanceof EdgeSyncError ? error.message : String(error);
  const { remedy, exit } = ERRORS[code];
  process.stderr.write(`edgesync: ${code}: ${message.replaceAll(/\s+/g, " ")}. ${remedy}\n`);
  return exit;
}

async function serve(): Promise<number> {
  const config = webhookConfig(process.env);
  const stop = new AbortController();
  const out = pino.destination({ dest: process.stdout.fd, sync: false });
  const lines = openLogLines(out, clock, stop.signal);
  process.once("exit", () => {
    lines.flush();
    out.flushSync();
  });
  const log = pino(
    {
      level: config.logLevel,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      // Its word, as in the sidecar's log and in the setting.
      formatters: { level: (label: string) => ({ level: label }) },
    },
    lines,
  );
  const registry = new Registry();
  const metrics = createMetrics(WEBHOOK_METRICS, { Counter, Gauge, Histogram }, registry);
  metrics.set("edgesync_build_info", { version: description.version, node: process.version }, 1);
  for (const name of ["SIGTERM", "SIGINT"] as const)
    process.once(name, () => {
      log.info({ signal: name }, "shutting down");
      stop.abort(new Error(name));
    });
  const { random } = Math;
  let state: ClusterState | undefined;
  let events: Events | undefined;
  const native = { auto: undefined, always: true, never: false }[config.nativeSidecars];
  await using server = await openServer({
    config,
    cluster: clusterOptions(config),
    facts(namespace, nodeName) {
      const facts = state?.facts(namespace, nodeName) ?? { ...PLAIN_FACTS, now: clock.now() };
      return { ...facts, nativeSidecars: native ?? facts.nativeSidecars };
    },
    tell: (event) => events?.send(event),
    clock,
    log,
    metrics,
    scrape: async () => ({ contentType: registry.contentType, text: await registry.metrics() }),
  });
  log.info({ port: server.port }, "admission server listening");
  log.info({ port: server.metricsPort }, "metrics server listening");
  const api =
    config.certificates === "files"
      ? undefined
      : openClusterApi(config.kubeconfig, { clock, random });
  if (api !== undefined) {
    events = openEvents({ api, clock, log }, stop.signal);
    state = openClusterState({ api, namespace: config.namespace, clock, random, log });
  }
  const watching = state?.run(stop.signal);
  // It is ready with the certificate. An answer must not be another one only because this replica is new; but one that cannot read must
  // not wait for ever either.
  if (state !== undefined)
    await Promise.race([state.tried, clock.sleep(STATE_WAIT_MS, stop.signal).catch(() => {})]);
  await keepCertificate(config, api, server, { log, metrics }, stop.signal);
  // A second signal ends the process by itself; until then nothing may cut the drain short.
  await server.drain(new AbortController().signal);
  await watching;
  log.info({}, "stopped");
  return 0;
}

/** Serves a certificate, the newest at all times, until the signal aborts. */
async function keepCertificate(
  config: WebhookConfig,
  api: ClusterApi | undefined,
  server: Server,
  { log, metrics }: { readonly log: Log; readonly metrics: WebhookMetrics },
  signal: AbortSignal,
): Promise<void> {
  const judge = (problem: string | undefined): void => server.judge(problem);
  if (api === undefined)
    return await watchCertificate(
      {
        folder: config.tlsDir,
        pollMs: config.tlsPollInterval,
        clock,
        log,
        use: (certificate) => server.use(certificate),
        judge,
      },
      signal,
    );
  const { namespace } = config;
  const { random } = Math;
  const leader = openLeader({
    api,
    namespace,
    name: config.lease,
    identity: config.podName ?? randomUUID(),
    leaseMs: config.leaseDuration,
    clock,
    log,
    metrics,
    elected: () => keeper.wake(),
  });
  const owned = config.certificates === "own";
  const keeper = openKeeper({
    api,
    namespace,
    service: config.service,
    secret: config.tlsSecret,
    configuration: config.webhookConfiguration,
    lifetimeMs: config.certificateLifetime,
    times: { settleMs: config.certificateSettle, keepMs: config.certificateKeep },
    leader: owned ? leader : undefined,
    clock,
    random,
    log,
    metrics,
    serve({ certificate, key }) {
      server.use({ cert: certificate, key });
      log.info({}, "serving certificate loaded");
    },
    judge,
  });
  await Promise.all([keeper.run(signal), ...(owned ? [leader.run(signal)] : [])]);
}

async function writeCertificate(args: readonly string[]): Promise<number> {
  const options = readOptions(args);
  if (options === undefined) {
    process.stdout.write(USAGE);
    return 0;
  }
  const { out, namespace, service, name } = options;
  const files = await makeCertificate({ namespace, service, names: name }, clock.now());
  await mkdir(out, { recursive: true }).catch((cause: unknown) => {
    throw new EdgeSyncError("USAGE", `--out: ${out} cannot be made a folder`, { cause });
  });
  const write = async (file: string, text: string, mode: number): Promise<void> => {
    try {
      await writeFile(join(out, file), text, { mode, flag: "wx" });
    } catch (cause) {
      throw new EdgeSyncError(
        "USAGE",
        `cannot write ${join(out, file)}; expected a folder without one that can be written to`,
        { cause },
      );
    }
  };
  await write("tls.key", files.key, 0o600);
  await write("tls.crt", files.certificate, 0o644);
  await write("ca.crt", files.ca, 0o644);
  process.stdout.write(
    `Wrote ca.crt, tls.crt and tls.key to ${out}; they are good for 30 days. The webhook's Secret:
  kubectl -n ${namespace} create secret tls ${service}-tls --cert ${join(out, "tls.crt")} --key ${join(out, "tls.key")}
and ca.crt, in base64, is the caBundle of each entry of the MutatingWebhookConfiguration.
`,
  );
  return 0;
}

interface CertificateOptions {
  readonly out: string;
  readonly namespace: string;
  readonly service: string;
  readonly name: readonly string[];
}

/** `undefined` when only help is wanted. @throws EdgeSyncError USAGE */
function readOptions(args: readonly string[]): CertificateOptions | undefined {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        out: { type: "string" },
        namespace: { type: "string" },
        service: { type: "string" },
        name: { type: "string", multiple: true, default: [] },
        help: { type: "boolean", short: "h", default: false },
      },
    });
    if (values.help) return undefined;
    const { out, namespace = "", service = "", name } = values;
    if (out === undefined) throw new Error("--out is missing");
    if (v.dnsLabel.parse(namespace) === undefined)
      throw new Error(`--namespace must be ${v.dnsLabel.allowed}`);
    if (v.dnsLabel.parse(service) === undefined)
      throw new Error(`--service must be ${v.dnsLabel.allowed}`);
    for (const host of name)
      if (isIP(host) === 0 && v.objectName.parse(host) === undefined)
        throw new Error(
          `--name is ${JSON.stringify(host)}; expected a lower-case host name or an IP address`,
        );
    return { out, namespace, service, name };
  } catch (cause) {
    const text = cause instanceof Error ? cause.message : String(cause);
    throw new EdgeSyncError("USAGE", `webhook certificate: ${text}`, { cause });
  }
}
