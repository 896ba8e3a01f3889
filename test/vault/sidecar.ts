/** The secrets agent of a sidecar as the tests run it: real files in memory, real TLS, a log and metrics that can be searched. */
import { mkdir, readFile, readlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { Clock } from "#core/clock.ts";
import { codeOf } from "#core/errors.ts";
import { fromEnv } from "#core/settings.ts";
import type { Settings } from "#core/settings.ts";
import { SIDECAR_METRICS } from "#core/metrics.ts";
import { createMetrics } from "#core/telemetry.ts";
import type { Log } from "#core/telemetry.ts";
import { openHttp } from "../../sidecar/network/http.ts";
import type { HttpOptions } from "../../sidecar/network/http.ts";
import { openIdentified } from "../../sidecar/network/identified.ts";
import { openSecretsAgent } from "../../sidecar/secrets/agent.ts";
import type { SecretsAgent } from "../../sidecar/secrets/agent.ts";
import type { MemorySystem } from "../../sidecar/secrets/memory.ts";
import type { RotateHook } from "../../sidecar/secrets/rotation.ts";
import { realClock } from "../support/real-clock.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { AUDIENCE } from "./world.ts";
import type { World } from "./world.ts";

/** One line for each, as `level message {fields}`; errors with their whole chain of causes. */
export interface RecordedLog extends Log {
  readonly lines: readonly string[];
}

export function recordedLog(): RecordedLog {
  const lines: string[] = [];
  const write =
    (level: string) =>
    (fields: object, message: string): void => {
      lines.push(`${level} ${message} ${JSON.stringify(fields, expandErrors)}`);
    };
  return {
    lines,
    debug: write("debug"),
    info: write("info"),
    warn: write("warn"),
    error: write("error"),
  };
}

function expandErrors(_key: string, value: unknown): unknown {
  if (!(value instanceof Error)) return value;
  const { name, message, stack, cause } = value;
  return { name, message, stack, cause, code: codeOf(value) };
}

export interface SidecarOptions {
  readonly auth?: "kubernetes" | "jwt" | "cert" | "approle";
  /** Of the connections to Vault. */
  readonly http?: Partial<HttpOptions>;
  /** By name: what the annotations say. */
  readonly secrets: Readonly<
    Record<
      string,
      {
        request?: string;
        template?: string;
        /** A ConfigMap and its key, in the folder that the variable EDGESYNC_TEMPLATES_DIR names. */
        templateFile?: string;
        format?: string;
        file?: string;
        mode?: string;
      }
    >
  >;
  readonly clock?: Clock;
  readonly random?: () => number;
  readonly refreshInterval?: string;
  readonly role?: string;
  /** Variables beside those that the other options make. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Where the volumes are; a new folder in memory when absent. */
  readonly folder?: string;
  readonly rotate?: RotateHook | undefined;
  /** What is said of mounts and swap; the machine's own words when absent. */
  readonly system?: MemorySystem | undefined;
}

export interface Sidecar extends AsyncDisposable {
  readonly agent: SecretsAgent;
  readonly log: RecordedLog;
  readonly registry: Registry;
  readonly folder: string;
  /** Contents of the published file. */
  file(name: string): Promise<string>;
  /** The version that is published now; `undefined` before the first. */
  version(): Promise<string | undefined>;
  /** Ends `run`, as the sidecar's end does; nothing is revoked. */
  stop(): Promise<void>;
}

/** Makes the volumes in `folder` as the kubelet does, and the settings as the webhook does. */
export async function prepareSettings(
  world: World,
  folder: string,
  options: SidecarOptions,
): Promise<Settings> {
  return fromEnv(await prepareEnvironment(world, folder, options));
}

export async function prepareEnvironment(
  world: World,
  folder: string,
  {
    auth = "kubernetes",
    secrets,
    refreshInterval = "5m",
    role = "web",
    environment,
  }: SidecarOptions,
): Promise<Readonly<Record<string, string>>> {
  const login = join(folder, "login");
  // Vault is asked for it, and may be what is out of order.
  if (auth === "cert" || auth === "approle") await writeLogin(world, login);
  const token = join(folder, "token");
  const audience = auth === "jwt" ? { audience: AUDIENCE } : {};
  await writeFile(token, await world.cluster.token(world.account, audience));
  const volume = join(folder, "volume");
  await mkdir(volume, { recursive: true });
  const declared = Object.entries(secrets).map(([name, secret]) => [
    `EDGESYNC_SECRET_${name.toUpperCase().replaceAll("-", "_")}`,
    JSON.stringify({ format: "json", file: name, ...secret }),
  ]);
  return {
    EDGESYNC_VAULT_ADDRESS: world.url,
    EDGESYNC_VAULT_AUTH: auth,
    EDGESYNC_VAULT_MOUNT: world.names[auth],
    EDGESYNC_VAULT_ROLE: role,
    EDGESYNC_TOKEN_FILE: token,
    ...(auth === "cert" ? { EDGESYNC_VAULT_TLS_DIR: login } : {}),
    ...(auth === "approle" ? { EDGESYNC_VAULT_APPROLE_DIR: login } : {}),
    EDGESYNC_SECRETS_DIR: volume,
    EDGESYNC_SECRETS_REFRESH_INTERVAL: refreshInterval,
    ...environment,
    ...(Object.fromEntries(declared) as Readonly<Record<string, string>>),
  };
}

/** What the sidecar's Secrets would hold, in one folder. */
export async function writeLogin(world: World, folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  const { cert, key } = world.clientIdentity();
  const files = { "tls.crt": cert, "tls.key": key, ...(await world.approle()) };
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
}

export async function startSidecar(world: World, options: SidecarOptions): Promise<Sidecar> {
  await using stack = new AsyncDisposableStack();
  const folder = options.folder ?? stack.use(await temporaryFolder("/dev/shm")).path;
  const settings = await prepareSettings(world, folder, options);
  const log = recordedLog();
  const registry = new Registry();
  const metrics = createMetrics(SIDECAR_METRICS, { Counter, Gauge, Histogram }, registry);
  const connections = {
    ...(world.ca === undefined ? {} : { ca: world.ca }),
    idleTimeoutMs: 5_000,
    unavailable: "VAULT_UNAVAILABLE",
    ...options.http,
  } as const;
  const http =
    options.auth === "cert"
      ? openIdentified(connections, join(folder, "login"))
      : openHttp(connections);
  stack.defer(() => http.close());
  const agent = await openSecretsAgent({
    settings,
    clock: options.clock ?? realClock,
    random: options.random ?? Math.random,
    log,
    metrics,
    http,
    rotate: options.rotate,
    system: options.system,
  });
  const end = new AbortController();
  const running = agent.run(end.signal);
  const stop = async (): Promise<void> => {
    end.abort();
    await running;
  };
  stack.defer(stop);
  const set = join(folder, "volume", "set");
  const owned = stack.move();
  return {
    agent,
    log,
    registry,
    folder,
    file: (name) => readFile(join(set, name), "utf8"),
    version: () => readlink(join(set, "..data")).catch(() => undefined),
    stop,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

interface SavedState {
  readonly token: { readonly token: string; readonly accessor: string };
  readonly secrets: readonly {
    readonly leaseId: string;
    readonly data: { readonly username: string; readonly password: string };
  }[];
  /** Leases that are still to be revoked. */
  readonly retired: readonly { readonly leaseId: string }[];
}

/** What the sidecar left for the next process. */
export async function savedState(folder: string): Promise<SavedState> {
  const path = join(folder, "volume", "state", "state.json");
  return JSON.parse(await readFile(path, "utf8")) as SavedState;
}

/** Waits for something that must come true soon; bounded. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what: string,
  limitMs: number = 15_000,
): Promise<void> {
  const deadline = performance.now() + limitMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not within ${limitMs} ms: ${what}`);
    await delay(10);
  }
}
