/**
 * What the webhook tells the sidecar, one environment variable for each thing: `toEnv` and `fromEnv` are inverses.
 * The annotations that concern the sidecar are taken from their own table; only what the webhook adds is listed here.
 */
import { ANNOTATIONS } from "./annotations.ts";
import { EdgeSyncError } from "./errors.ts";
import { camel } from "./pod-options.ts";
import type { Camel, PodOptions, SecretOptions } from "./pod-options.ts";
import { parseAppProbes } from "./probe.ts";
import type { AppProbes } from "./probe.ts";
import * as v from "./values.ts";
import type { TypeOf, Value } from "./values.ts";

/** Raised when the meaning of a variable changes, so that a sidecar never misreads an older or newer webhook. */
export const SETTINGS_VERSION = 1;

/** Linux refuses a single argument or variable of this many bytes (MAX_ARG_STRLEN). */
export const VARIABLE_LIMIT = 131_072;

const anyPath: Value<string> = {
  allowed: "an absolute path",
  parse: (input) => (/^\/[^\0]{1,4095}$/.test(input) ? input : undefined),
  format: (value) => value,
};

const shortText: Value<string> = {
  allowed: "a text of 1 to 253 printable characters",
  parse: (input) => (/^[\x21-\x7e]{1,253}$/.test(input) ? input : undefined),
  format: (value) => value,
};

const appProbes: Value<readonly AppProbes[]> = {
  allowed: "a JSON list of containers and their probes, as the webhook writes it",
  parse(input) {
    try {
      return parseAppProbes(JSON.parse(input));
    } catch {
      // Not JSON: the caller names the variable and what it may hold.
      return undefined;
    }
  },
  format: (value) => JSON.stringify(value),
};

interface Row<T> {
  readonly help: string;
  readonly value: Value<T>;
  readonly default?: string;
  /** Stated even at its default: the reader's default may be another one, or Kubernetes may set the variable for a Service. */
  readonly always?: true;
}

export const SETTINGS = {
  "settings-version": {
    help: "Version of the meaning of these variables.",
    value: v.integer(1, 1_000_000),
    default: String(SETTINGS_VERSION),
    always: true,
  },
  "pod-name": { help: "Name of the pod, from the downward API.", value: shortText },
  "pod-namespace": { help: "Namespace of the pod, from the downward API.", value: shortText },
  "pod-uid": { help: "UID of the pod, from the downward API.", value: shortText },
  "node-name": { help: "Name of the node, from the downward API.", value: shortText },
  "payload-dir": { help: "Where the payload volume is mounted in the sidecar.", value: anyPath },
  "secrets-dir": {
    help: "Where the memory volume for secrets is mounted in the sidecar.",
    value: anyPath,
  },
  "trust-root-file": { help: "The first trusted TUF root.", value: anyPath },
  "repository-ca-file": {
    help: "Certificates that the repository's must chain to.",
    value: anyPath,
  },
  "import-dir": {
    help: "Where offline bundles may appear: tar files, or folders into which they were unpacked.",
    value: anyPath,
  },
  "repository-credentials-dir": {
    help: "Folder with the credentials of the repository: token, or username and password, or .dockerconfigjson.",
    value: anyPath,
  },
  "vault-ca-file": { help: "Certificates that Vault's must chain to.", value: anyPath },
  "token-file": { help: "The sidecar's service-account token.", value: anyPath },
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
  app: {
    help: "The application's containers whose probes go through the sidecar.",
    value: appProbes,
    default: "[]",
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

/** All that the sidecar is told. */
export type Settings = Readonly<FromAnnotations> & {
  readonly [K in keyof typeof SETTINGS as Camel<K>]: Setting<(typeof SETTINGS)[K]>;
} & { readonly secrets: readonly SecretOptions[] };

/** Every setting by its key: those of the annotations that the sidecar needs, then those that the webhook adds. */
export function settingRows(): readonly (readonly [key: string, row: Row<unknown>])[] {
  const annotated = Object.entries(ANNOTATIONS).filter(([, row]) => row.sidecar);
  return [...annotated, ...Object.entries(SETTINGS)];
}

export function variableOf(key: string): string {
  return `EDGESYNC_${key.toUpperCase().replaceAll(/[-.]/g, "_")}`;
}

const SECRET_PREFIX = "EDGESYNC_SECRET_";

/** How the variables end that Kubernetes sets for a Service, such as one of the name edgesync-secret-store. */
const SERVICE_VARIABLE =
  /_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$/;

const secretFields = {
  request: v.secretRequest,
  format: v.secretFormat,
  file: v.fileName,
  mode: v.fileMode,
} as const;

/**
 * The variables for some settings. What is undefined is left out, and mostly what stands at its default.
 *
 * @throws EdgeSyncError ANNOTATION_INVALID when a value is larger than a variable may be
 */
export function toEnv(settings: Settings): Readonly<Record<string, string>> {
  const env: Record<string, string> = {};
  const values: Readonly<Record<string, unknown>> = settings;
  for (const [key, row] of settingRows()) {
    const value = values[camel(key)];
    const text = value === undefined ? undefined : row.value.format(value);
    if (text !== undefined && (row.always === true || text !== row.default))
      put(env, variableOf(key), text, key);
  }
  for (const secret of settings.secrets) {
    const { name, request, format, file, mode } = secret;
    const text = JSON.stringify({
      request: secretFields.request.format(request),
      format: secretFields.format.format(format),
      file,
      ...(mode === undefined ? {} : { mode: secretFields.mode.format(mode) }),
    });
    put(env, secretVariable(name), text, `secret.${name}`);
  }
  return env;
}

/** Secret names are lower-case labels, so this cannot make two names equal. */
function secretVariable(name: string): string {
  return SECRET_PREFIX + name.toUpperCase().replaceAll("-", "_");
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
      text === undefined ? undefined : read(variableOf(key), row.value, text, problems);
  }
  if (typeof values["settingsVersion"] === "number" && values["settingsVersion"] > SETTINGS_VERSION)
    problems.push(
      `${variableOf("settings-version")} is ${values["settingsVersion"]}; this sidecar knows up to ${SETTINGS_VERSION}: its image is older than the webhook's`,
    );
  const secrets = Object.keys(env)
    .filter((variable) => variable.startsWith(SECRET_PREFIX))
    // A secret may be named so too; then its value is an object, and Kubernetes lets it stand.
    .filter((variable) => !SERVICE_VARIABLE.test(variable) || env[variable]?.startsWith("{"))
    .map((variable) => readSecret(variable, env[variable] ?? "", problems))
    .filter((secret) => secret !== undefined)
    // By name, as they were: "-" sorts before digits and letters, the "_" that stands for it behind them.
    .toSorted((a, b) => (a.name < b.name ? -1 : 1));
  if (problems.length > 0) throw new EdgeSyncError("CONFIG_INVALID", problems.join("; "));
  // Every member of the mapped types is assigned by the loop over the same tables.
  return { ...values, secrets } as unknown as Settings;
}

function read<T>(
  variable: string,
  value: Value<T>,
  text: string,
  problems: string[],
): T | undefined {
  const parsed = value.parse(text);
  if (parsed === undefined) {
    const shown = JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}...` : text);
    problems.push(`${variable} is ${shown}; allowed: ${value.allowed}`);
  }
  return parsed;
}

function readSecret(variable: string, text: string, problems: string[]): SecretOptions | undefined {
  const name = variable.slice(SECRET_PREFIX.length).toLowerCase().replaceAll("_", "-");
  const fields = jsonStrings(text);
  if (fields === undefined || v.dnsLabel.parse(name) === undefined) {
    problems.push(`${variable} is not a secret; allowed: what the webhook writes`);
    return undefined;
  }
  const field = <T>(key: keyof typeof secretFields, value: Value<T>): T | undefined =>
    read(`${variable} (${key})`, value, fields[key] ?? "", problems);
  const request = field("request", secretFields.request);
  const format = field("format", secretFields.format);
  const file = field("file", secretFields.file);
  const mode = fields["mode"] === undefined ? undefined : field("mode", secretFields.mode);
  if (request === undefined || format === undefined || file === undefined) return undefined;
  return { name, request, format, file, mode };
}

function jsonStrings(text: string): Readonly<Record<string, string>> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
    const entries = Object.entries(value).filter(
      ([key, item]) => key !== "" && typeof item === "string",
    );
    return Object.fromEntries(entries);
  } catch {
    // Not JSON: the caller names the variable.
    return undefined;
  }
}
