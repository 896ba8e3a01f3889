/**
 * What the webhook tells the sidecar, one environment variable for each thing: `toEnv` and `fromEnv` are inverses.
 * The annotations that concern the sidecar are taken from their own table; only what the webhook adds is listed here.
 */
import { ANNOTATIONS } from "./annotations.ts";
import { EdgeSyncError } from "./errors.ts";
import { PAYLOADS_VARIABLE, differences, payloadsText, readPayloads } from "./payload-settings.ts";
import { MAIN_PAYLOAD, isPerPayload } from "./payloads.ts";
import { camel, readText } from "./pod-options.ts";
import type { Camel, PodOptions, SecretOptions } from "./pod-options.ts";
import { appProbes } from "./probe.ts";
import { readSecret, secretText } from "./secret-settings.ts";
import * as v from "./values.ts";
import type { TypeOf, Value } from "./values.ts";

/**
 * Raised when the meaning of a variable changes, so that a sidecar never misreads an older or newer webhook. Version 2 has payloads
 * beside `main`, and is stated only where there are some: a sidecar of version 1 would leave them out and say nothing.
 */
export const SETTINGS_VERSION = 2;

export function settingsVersion(payloads: readonly unknown[]): number {
  return payloads.length === 0 ? 1 : SETTINGS_VERSION;
}

/** Linux refuses a single argument or variable of this many bytes (MAX_ARG_STRLEN). */
export const VARIABLE_LIMIT = 131_072;

const anyPath: Value<string> = {
  allowed: "an absolute path",
  parse: (input) => (/^\/[^\0]{1,4095}$/.test(input) ? input : undefined),
  format: (value) => value,
};

function printable(limit: number): Value<string> {
  return {
    allowed: `a text of 1 to ${limit} printable characters`,
    parse: (input) => (input.length <= limit && /^[\x21-\x7e]+$/.test(input) ? input : undefined),
    format: (value) => value,
  };
}

const shortText = printable(253);
const ownerText = printable(1_024);

const MAX_PORTS = 64;

const portList: Value<readonly number[]> = {
  allowed: `a comma-separated list of at most ${MAX_PORTS} ports; or none`,
  parse(input) {
    if (input === "none") return [];
    const port = v.integer(1, 65_535);
    const ports = input.split(",", MAX_PORTS + 1).map((one) => port.parse(one));
    if (ports.length > MAX_PORTS) return undefined;
    return ports.every((one) => one !== undefined) ? ports : undefined;
  },
  format: (value) => (value.length === 0 ? "none" : value.join(",")),
};

interface Row<T> {
  readonly help: string;
  readonly value: Value<T>;
  readonly default?: string;
  /** Stated even at its default: the reader's default may be another one, or Kubernetes may set the variable for a Service. */
  readonly always?: true;
  /** Each payload may have its own; see the same of an annotation, and `default` for what all have from `main`. */
  readonly payload?: "own" | "repository" | "default" | "pod";
  readonly daemon?: Value<T>;
  /** Comes from Kubernetes, and has no meaning elsewhere. */
  readonly podOnly?: true;
}

export const SETTINGS = {
  "settings-version": {
    help: "Version of the meaning of these variables.",
    podOnly: true,
    value: v.integer(1, 1_000_000),
    default: "1",
    always: true,
  },
  "pod-name": { help: "Name of the pod, from the downward API.", podOnly: true, value: shortText },
  "pod-namespace": {
    help: "Namespace of the pod, from the downward API.",
    podOnly: true,
    value: shortText,
  },
  "pod-uid": { help: "UID of the pod, from the downward API.", podOnly: true, value: shortText },
  "node-name": {
    help: "Name of the node, from the downward API.",
    podOnly: true,
    value: shortText,
  },
  "payload-dir": {
    help: "Where the payload volume is mounted in the sidecar.",
    value: anyPath,
    payload: "own",
  },
  "payload-link-dir": {
    help: "Where the pod's own link lies, above the payload volume; set where other pods may share the volume.",
    podOnly: true,
    value: anyPath,
    payload: "own",
  },
  "secrets-dir": {
    help: "Where the memory volume for secrets is mounted in the sidecar.",
    value: anyPath,
  },
  "mounted-dir": {
    help: "Where the Secrets are mounted that mounted:<name> names: a folder for each, with a file for each key.",
    value: anyPath,
  },
  "templates-dir": {
    help: "Where the ConfigMaps are mounted that template.<name> names: a folder for each, with a file for each key.",
    value: anyPath,
  },
  "trust-root-file": { help: "The first trusted TUF root.", value: anyPath, payload: "repository" },
  "repository-ca-file": {
    help: "Certificates that the repository's must chain to.",
    value: anyPath,
    payload: "repository",
  },
  "import-dir": {
    help: "Where offline bundles may appear: tar files, or folders into which they were unpacked.",
    value: anyPath,
    payload: "default",
  },
  "hold-dir": {
    help: "Folder in which the application may put *.hold files; the sidecar only reads it.",
    value: anyPath,
  },
  "seed-dir": {
    help: "Where a seed may lie: bundles, and files that need not be fetched.",
    value: anyPath,
    payload: "own",
  },
  "ephemeral-storage": {
    help: "Bytes of the node's storage that the payload may take with all that is beside it in the pod: past them the kubelet evicts the pod.",
    value: v.bytes("1", "16Ti"),
    payload: "own",
    podOnly: true,
  },
  "repository-credentials-dir": {
    help: "Folder with the credentials of the repository: token, or username and password, or .dockerconfigjson.",
    value: anyPath,
    payload: "repository",
  },
  "vault-ca-file": { help: "Certificates that Vault's must chain to.", value: anyPath },
  "vault-tls-dir": {
    help: "Folder with the certificate that is shown to Vault, tls.crt, and its private key, tls.key.",
    value: anyPath,
  },
  "vault-approle-dir": {
    help: "Folder with the credentials of approle: role_id, and secret_id, which may be wrapped, where the role needs one.",
    value: anyPath,
  },
  "token-file": {
    help: "The sidecar's service-account token, or another JWT for the login.",
    value: anyPath,
  },
  "offline-key-dir": {
    help: "Folder whose file `key` holds the key that the offline set of secrets is sealed with.",
    value: anyPath,
  },
  "sealed-key-dir": {
    help: "Folder whose file `key` holds the private key that opens the sealed files of releases.",
    value: anyPath,
  },
  workload: {
    help: "Owner and service account of the pod, to which the offline set of secrets is bound.",
    podOnly: true,
    value: ownerText,
  },
  "secrets-mode": {
    help: "Mode of secret files that have none of their own.",
    value: v.fileMode,
    default: "0444",
  },
  port: {
    help: "Port of the probes, the status and the metrics, on the pod's network.",
    value: v.integer(1, 65535),
    default: "19465",
    always: true,
  },
  "listen-address": {
    help: "Address at which that port is listened on.",
    value: v.ipAddress,
  },
  app: {
    help: "The application's containers whose probes go through the sidecar.",
    podOnly: true,
    value: appProbes,
    default: "[]",
  },
  "rotate-containers": {
    help: "Those of them that have the secrets; without it, all.",
    podOnly: true,
    value: v.containerNames,
  },
  "secrets-ports": {
    help: "TCP ports of the containers with the secrets: when none of them is used any more, what Vault has issued is revoked at the end.",
    podOnly: true,
    value: portList,
  },
  "pod-network": {
    help: "Whether the pod's network is its own, or shared with what outlives the application: a mesh's proxy, another sidecar, or the node.",
    podOnly: true,
    value: v.oneOf("own", "shared"),
    default: "own",
  },
  "workload-containers": {
    help: "Those of them that have the payload; without it, all.",
    podOnly: true,
    value: v.containerNames,
    payload: "own",
  },
} as const satisfies Record<string, Row<never> | Row<unknown>>;

type Setting<R> = R extends { value: infer V; default: string }
  ? TypeOf<V>
  : R extends { value: infer V }
    ? TypeOf<V> | undefined
    : never;
type FromAnnotations = {
  [
    K in keyof typeof ANNOTATIONS as (typeof ANNOTATIONS)[K]["sidecar"] extends true
      ? Camel<K>
      : never
  ]: PodOptions[Camel<K> & keyof PodOptions];
};

type FlatSettings = Readonly<FromAnnotations> & {
  readonly [K in keyof typeof SETTINGS as Camel<K>]: Setting<(typeof SETTINGS)[K]>;
};

/** All that the sidecar is told; what concerns updates is payload `main`'s. */
export type Settings = FlatSettings & {
  readonly secrets: readonly SecretOptions[];
  /** Payloads beside `main`. */
  readonly payloads: readonly PayloadSettings[];
};

export interface PayloadSettings {
  readonly name: string;
  /** Where it differs from `main`, by the same names. */
  readonly own: Partial<FlatSettings>;
}

/** A payload's settings as what differs from `main`'s. */
export function payloadSettings(name: string, settings: Settings, main: Settings): PayloadSettings {
  return { name, own: differences(settings, main, PAYLOAD_ROWS) };
}

/** The payloads that the sidecar follows, `main` first if there is one. */
export function payloadNames(settings: Settings): readonly string[] {
  const others = settings.payloads.map(({ name }) => name);
  return settings.channel === undefined ? others : [MAIN_PAYLOAD, ...others];
}

/** The settings of one payload, as if it were the only one: `app` holds the containers that have it. */
export function settingsOf(settings: Settings, name: string): Settings {
  const own = settings.payloads.find((payload) => payload.name === name)?.own ?? {};
  const merged = { ...settings, ...own, payloads: [] };
  const having = merged.workloadContainers;
  const app = merged.app.filter(({ container }) => having?.includes(container) !== false);
  return { ...merged, app };
}

/** The settings that each payload has of its own, by their keys. */
export function payloadRows(): readonly (readonly [key: string, row: Row<unknown>])[] {
  return [
    ...Object.entries(ANNOTATIONS).filter(([, row]) => row.sidecar && isPerPayload(row)),
    ...Object.entries(SETTINGS).filter(([, row]) => "payload" in row),
  ];
}

/** Every setting by its key: those of the annotations that the sidecar needs, then those that the webhook adds. */
export function settingRows(): readonly (readonly [key: string, row: Row<unknown>])[] {
  const annotated = Object.entries(ANNOTATIONS).filter(([, row]) => row.sidecar);
  return [...annotated, ...Object.entries(SETTINGS)];
}

export function variableOf(key: string): string {
  return `EDGESYNC_${key.toUpperCase().replaceAll(/[-.]/g, "_")}`;
}

/** Both once more, with what no pod changes. */
const ROWS = settingRows().map(([key, row]) => ({
  key,
  setting: camel(key),
  variable: variableOf(key),
  row,
  unstated: unstated(row),
}));
const PAYLOAD_ROWS = payloadRows();

/** The value whose text would be left out; undefined for none. */
function unstated({ value, default: text, always }: Row<unknown>): unknown {
  const fallback = text === undefined || always === true ? undefined : value.parse(text);
  return fallback !== undefined && value.format(fallback) === text ? fallback : undefined;
}

const SECRET_PREFIX = "EDGESYNC_SECRET_";

/** How the variables end that Kubernetes sets for a Service, such as one of the name edgesync-secret-store. */
const SERVICE_VARIABLE =
  /_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$/;

/**
 * The variables for some settings. What is undefined is left out, and mostly what stands at its default.
 *
 * @throws EdgeSyncError ANNOTATION_INVALID when a value is larger than a variable may be
 */
export function toEnv(settings: Settings): Readonly<Record<string, string>> {
  const env: Record<string, string> = {};
  const values: Readonly<Record<string, unknown>> = settings;
  for (const { key, setting, variable, row, unstated } of ROWS) {
    const value = values[setting];
    if (value === undefined || value === unstated) continue;
    const text = row.value.format(value);
    if (row.always === true || text !== row.default) put(env, variable, text, key);
  }
  for (const secret of settings.secrets) {
    put(env, secretVariable(secret.name), secretText(secret), `secret.${secret.name}`);
  }
  if (settings.payloads.length > 0)
    put(
      env,
      PAYLOADS_VARIABLE,
      payloadsText(settings.payloads, PAYLOAD_ROWS),
      "payloads beside main",
    );
  return env;
}

/** Secret names are lower-case labels, so this cannot make two names equal. */
function secretVariable(name: string): string {
  return SECRET_PREFIX + name.toUpperCase().replaceAll("-", "_");
}

function nameOf(variable: string): string {
  return variable.slice(SECRET_PREFIX.length).toLowerCase().replaceAll("_", "-");
}

function put(env: Record<string, string>, variable: string, text: string, key: string): void {
  const size = variable.length + 1 + Buffer.byteLength(text) + 1;
  if (size > VARIABLE_LIMIT)
    throw new EdgeSyncError(
      "ANNOTATION_INVALID",
      `${key} takes ${size} bytes as a variable; at most ${VARIABLE_LIMIT} are allowed`,
    );
  env[variable] = text;
}

/**
 * The settings in an environment, and every problem at once. Variables that are not ours are ignored.
 *
 * @throws EdgeSyncError CONFIG_INVALID
 */
export function fromEnv(env: Readonly<Record<string, string | undefined>>): Settings {
  const problems: string[] = [];
  const values: Record<string, unknown> = {};
  for (const [key, row] of settingRows()) {
    const text = env[variableOf(key)] ?? row.default;
    values[camel(key)] =
      text === undefined ? undefined : readText(variableOf(key), row, text, problems);
  }
  if (typeof values["settingsVersion"] === "number" && values["settingsVersion"] > SETTINGS_VERSION)
    problems.push(
      `${variableOf("settings-version")} is ${values["settingsVersion"]}; this sidecar knows up to ${SETTINGS_VERSION}: its image is older than the webhook's`,
    );
  const secrets = Object.keys(env)
    .filter((variable) => variable.startsWith(SECRET_PREFIX))
    // A secret may be named so too; then its value is an object, and Kubernetes lets it stand.
    .filter((variable) => !SERVICE_VARIABLE.test(variable) || env[variable]?.startsWith("{"))
    .map((variable) => readSecret(variable, nameOf(variable), env[variable] ?? "", problems))
    .filter((secret) => secret !== undefined)
    // By name, as they were: "-" sorts before digits and letters, the "_" that stands for it behind them.
    .toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const payloads = readPayloads(env[PAYLOADS_VARIABLE] ?? "{}", PAYLOAD_ROWS, problems);
  if (problems.length > 0) throw new EdgeSyncError("CONFIG_INVALID", problems.join("; "));
  // Every member of the mapped types is assigned by the loop over the same tables.
  return { ...values, secrets, payloads } as unknown as Settings;
}
