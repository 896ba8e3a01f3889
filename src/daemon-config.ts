/**
 * The configuration of a daemon: `edgesync agent --config <file>` outside of Kubernetes. One flat JSON object whose keys are those of the
 * annotations and of the sidecar's settings, as in `channel`, `poll-interval.models`, `secret.db`, `payload-dir`. Strict: who runs a
 * fleet of unattended machines wants to hear of a misspelt key when it is rolled out and not when it would have mattered.
 */
import { normalize } from "node:path";
import { ANNOTATIONS, SECRET_ANNOTATIONS } from "./annotations.ts";
import { EdgeSyncError } from "./errors.ts";
import { isObject } from "./json.ts";
import { callsBack } from "./own-ports.ts";
import { nearName } from "./near-name.ts";
import { MAX_PAYLOADS, isInherited, keyFor, payloadName } from "./payloads.ts";
import {
  camel,
  mountedSecrets,
  templateConfigMaps,
  needsVault,
  usesSealed,
  readSecrets,
  readText,
} from "./pod-options.ts";
import { payloadNames, payloadRows, settingRows, settingsOf } from "./settings.ts";
import type { Settings } from "./settings.ts";
import { formatDuration } from "./values.ts";
import type { Value } from "./values.ts";

/** Bytes. */
export const CONFIG_LIMIT = 1 << 20;

interface DaemonRow {
  readonly help: string;
  readonly value: Value<unknown>;
  readonly default?: string;
  readonly payload?: string;
}

/** What has no default that would do outside of a pod, or another one. */
const DEFAULTS: Readonly<Record<string, string | undefined>> = {
  "listen-address": "127.0.0.1",
  // A pod's restart, probe and login are Kubernetes'.
  "on-update": undefined,
  health: undefined,
  "vault-auth": "jwt",
  // A machine has more users than a pod.
  "secrets-mode": "0440",
};

/** Every key but those of secrets, with what it may be in a daemon. */
export function daemonRows(): readonly (readonly [key: string, row: DaemonRow])[] {
  return settingRows()
    .filter(([, row]) => row.podOnly !== true)
    .map(([key, row]) => {
      const { help, payload, value, daemon = value } = row;
      const text = key in DEFAULTS ? DEFAULTS[key] : row.default;
      return [
        key,
        {
          help,
          value: daemon,
          ...(text === undefined ? {} : { default: text }),
          ...(payload === undefined ? {} : { payload }),
        },
      ];
    });
}

/**
 * The settings in a configuration, and every problem at once.
 *
 * @throws EdgeSyncError CONFIG_INVALID
 */
export function parseDaemonConfig(text: string): Settings {
  const problems: string[] = [];
  const texts = textsOf(text, problems);
  const rows = new Map(daemonRows());
  const ofPayloads = new Map(payloadRows().filter(([key]) => rows.has(key)));
  const values: Record<string, unknown> = {};
  for (const [key, row] of rows)
    values[camel(key)] = parsed(key, row, texts[key] ?? row.default, problems);
  const secrets = readSecrets(texts, "", problems);
  const named = new Map<string, string>();
  for (const key of Object.keys(texts).toSorted()) {
    if (rows.has(key) || isSecretKey(key)) continue;
    const found = splitPayload(key, ofPayloads);
    if (found === undefined) problems.push(`${quoted(key)} is not known${hint(key, rows)}`);
    else if (payloadName.parse(found.payload) === undefined)
      problems.push(`${quoted(key)} names no payload; allowed: ${payloadName.allowed}`);
    else if (!named.has(found.payload)) named.set(found.payload, key);
  }
  const payloads = [...named].map(([name, given]) => {
    const textOf = (key: string): string | undefined => texts[keyFor(key, name)];
    const sameRepository = textOf("repository") === undefined;
    const own: Record<string, unknown> = {};
    for (const key of ofPayloads.keys()) {
      const row = rows.get(key);
      if (row === undefined || (textOf(key) === undefined && isInherited(row, sameRepository)))
        continue;
      own[camel(key)] = parsed(keyFor(key, name), row, textOf(key) ?? row.default, problems);
    }
    if (textOf("channel") === undefined)
      problems.push(`${keyFor("channel", name)} is missing; ${given} refines it`);
    return { name, own };
  });
  // Every member of the mapped type is assigned by the loops over the same tables, or has no meaning here.
  const settings = { ...NOT_HERE, ...values, secrets, payloads } as unknown as Settings;
  problems.push(...demands(settings, new Set(Object.keys(texts))));
  if (problems.length > 0)
    throw new EdgeSyncError("CONFIG_INVALID", [...new Set(problems)].join("; "));
  // Where there is no payload `main`, nobody has been asked what there is no default for.
  return {
    ...settings,
    ...(values["onUpdate"] === undefined && { onUpdate: NONE }),
    ...(values["health"] === undefined && { health: NONE }),
  };
}

const NONE = { kind: "none" } as const;

/** What only a pod has. */
const NOT_HERE = {
  settingsVersion: 1,
  podName: undefined,
  podNamespace: undefined,
  podUid: undefined,
  nodeName: undefined,
  app: [],
  workloadContainers: undefined,
  rotateContainers: undefined,
  ephemeralStorage: undefined,
};

function parsed(
  key: string,
  row: DaemonRow,
  text: string | undefined,
  problems: string[],
): unknown {
  return text === undefined ? undefined : readText(key, row, text, problems);
}

/** The texts of a flat JSON object; numbers and booleans count as their text. */
function textsOf(text: string, problems: string[]): Readonly<Record<string, string>> {
  let object: unknown;
  try {
    object = JSON.parse(text);
  } catch (cause) {
    const why = cause instanceof Error ? `: ${cause.message.replaceAll(/\s+/g, " ")}` : "";
    throw new EdgeSyncError("CONFIG_INVALID", `the configuration is not JSON${why}`, { cause });
  }
  if (!isObject(object))
    throw new EdgeSyncError("CONFIG_INVALID", "the configuration is not a JSON object");
  const seen = new Set<string>();
  // In an object without others inside, what a colon follows is a key: of two that are the same JSON keeps the last.
  for (const [, key = ""] of text.matchAll(/("(?:[^"\\]|\\.)*")\s*(?=:)|"(?:[^"\\]|\\.)*"/g)) {
    if (key !== "" && seen.has(key)) problems.push(`${key} is there twice`);
    if (key !== "") seen.add(key);
  }
  const texts = Object.entries(object).flatMap(([key, value]) => {
    if (["string", "number", "boolean"].includes(typeof value)) return [[key, String(value)]];
    problems.push(`${quoted(key)} is ${value === null ? "null" : typeof value}; allowed: a text`);
    return [];
  });
  return Object.fromEntries(texts);
}

function quoted(key: string): string {
  return JSON.stringify(key.length > 80 ? `${key.slice(0, 77)}...` : key);
}

function isSecretKey(key: string): boolean {
  return Object.hasOwn(SECRET_ANNOTATIONS, key.slice(0, Math.max(0, key.indexOf("."))));
}

/** Characters; more than the longest key with the longest name. */
const MAX_KEY = 128;

function splitPayload(
  key: string,
  rows: ReadonlyMap<string, unknown>,
): { readonly payload: string } | undefined {
  for (let dot = key.lastIndexOf("."); dot > 0; dot = key.lastIndexOf(".", dot - 1)) {
    if (key.length > MAX_KEY) return undefined;
    if (rows.has(key.slice(0, dot))) return { payload: key.slice(dot + 1) };
  }
  return undefined;
}

function hint(key: string, rows: ReadonlyMap<string, unknown>): string {
  if (key.length > MAX_KEY) return "";
  const [head = "", ...suffix] = key.split(".");
  if (rows.has(head)) return `; ${head} holds for all payloads`;
  const known = [...rows.keys(), ...Object.keys(SECRET_ANNOTATIONS)];
  const near = nearName(key, known) ?? nearName(head, known);
  if (near !== undefined) {
    const meant = near.includes(".") ? [near] : [near, ...suffix];
    return `; did you mean ${meant.join(".")}?`;
  }
  const inPod = Object.hasOwn(ANNOTATIONS, key) || key === "app" || key.startsWith("pod-");
  return inPod ? "; it has a meaning in a pod only" : "; docs/settings.md lists all that are";
}

/** What a daemon cannot do without, and what does not go together. */
function demands(settings: Settings, given: ReadonlySet<string>): readonly string[] {
  const names = payloadNames(settings);
  const problems = names.flatMap((name) => payloadDemands(settings, name, given));
  if (names.length === 0 && settings.secrets.length === 0)
    problems.push("there is neither channel nor secret.<name>; at least one is needed");
  if (names.length > MAX_PAYLOADS)
    problems.push(`there are ${names.length} payloads; at most ${MAX_PAYLOADS} are allowed`);
  const folders = [
    ...names.map((name) => [keyFor("payload-dir", name), settingsOf(settings, name).payloadDir]),
    ["secrets-dir", settings.secretsDir],
    ["hold-dir", settings.holdDir],
  ].flatMap(([key, path]) => (key === undefined || path === undefined ? [] : [{ key, path }]));
  for (const { key, path } of folders)
    if (path.split("/").includes(".."))
      problems.push(`${key} is ${path}; expected a path without ..`);
  problems.push(...portProblems(settings, names));
  for (const [index, one] of folders.entries())
    for (const other of folders.slice(index + 1))
      if (isWithin(one.path, other.path) || isWithin(other.path, one.path))
        problems.push(
          `${one.key} ${one.path} and ${other.key} ${other.path} must not lie in each other`,
        );
  for (const { key, path } of programsOf(settings)) {
    const folder = foreignFolders(settings).find((one) =>
      isWithin(normalize(path), normalize(one)),
    );
    if (folder !== undefined)
      problems.push(`${key} names a program in ${folder}; nothing that is brought there is run`);
  }
  const login = {
    kubernetes: [],
    jwt: ["vault-role", "token-file"],
    cert: ["vault-tls-dir"],
    approle: ["vault-approle-dir"],
  } as const;
  const { vaultAuth }: Partial<Settings> = settings;
  const keys = [
    ...(settings.secrets.length > 0 ? (["secrets-dir"] as const) : []),
    ...(needsVault(settings)
      ? (["vault-address", ...login[vaultAuth ?? "kubernetes"]] as const)
      : []),
    ...(mountedSecrets(settings).length > 0 ? (["mounted-dir"] as const) : []),
    ...(templateConfigMaps(settings).length > 0 ? (["templates-dir"] as const) : []),
    ...(usesSealed(settings) ? (["sealed-key-dir"] as const) : []),
    ...(typeof settings.offlineSecrets === "number" ? (["offline-key-dir"] as const) : []),
  ];
  for (const key of keys)
    if (settings[camel(key)] === undefined && !given.has(key))
      problems.push(`${key} is needed for secrets`);
  if (needsVault(settings) && vaultAuth === "kubernetes")
    problems.push("vault-auth is kubernetes; allowed outside of Kubernetes: jwt, cert, approle");
  return problems;
}

/** Ports at which the agent itself answers. */
function portProblems(settings: Settings, names: readonly string[]): readonly string[] {
  const { port, controlPort, listenAddress: address } = settings;
  // Elsewhere than on this machine's own addresses another may have the same port.
  const isLocal = address === undefined || /^(127\.|0\.0\.0\.0$|::1?$)/.test(address);
  const owners = new Map<unknown, string>();
  if (names.length > 0 && controlPort !== undefined) owners.set(controlPort, "control-port");
  if (isLocal && port !== undefined) owners.set(port, "port");
  const calls = names.flatMap((name) =>
    callsBack(settingsOf(settings, name), owners).map(
      ({ key, owner }) => `${key} names ${owner}, where the agent answers, for payload ${name}`,
    ),
  );
  return names.length > 0 && isLocal && port !== undefined && port === controlPort
    ? [`port and control-port are both ${port}`, ...calls]
    : calls;
}

function payloadDemands(
  settings: Settings,
  name: string,
  given: ReadonlySet<string>,
): readonly string[] {
  const own = settingsOf(settings, name);
  const rows = new Map(daemonRows());
  const same = !given.has(keyFor("repository", name));
  const problems: string[] = [];
  for (const key of [
    "repository",
    "payload-dir",
    "trust-root-file",
    "on-update",
    "health",
  ] as const) {
    const value: unknown = own[camel(key)];
    const row = rows.get(key) ?? {};
    // Where it is given and could not be read another problem tells.
    const unread = given.has(keyFor(key, name)) || (given.has(key) && isInherited(row, same));
    if (value === undefined && !unread) problems.push(`${keyFor(key, name)} is needed`);
  }
  const { trialDuration, trialTimeout }: Partial<Settings> = own;
  const [timeout = "", duration = ""] = ["trial-timeout", "trial-duration"].map((key) =>
    given.has(keyFor(key, name)) ? keyFor(key, name) : key,
  );
  if (trialDuration !== undefined && trialTimeout !== undefined && trialTimeout <= trialDuration)
    problems.push(
      `${timeout} is ${formatDuration(trialTimeout)}; it must be longer than ${duration}, ${formatDuration(trialDuration)}`,
    );
  return problems;
}

function isWithin(path: string, folder: string): boolean {
  const withSlash = (text: string): string => normalize(`${text}/`);
  return withSlash(path).startsWith(withSlash(folder));
}

/** Programs that a configuration names by their paths, each with the key that does. */
function programsOf(
  settings: Settings,
): readonly { readonly key: string; readonly path: string }[] {
  return payloadNames(settings).flatMap((name) => {
    const own: Readonly<Record<string, unknown>> = settingsOf(settings, name);
    return daemonRows().flatMap(([key]) => {
      const value = own[camel(key)];
      if (!isObject(value)) return [];
      const { kind, path, argv } = value;
      const program: unknown =
        kind === "exec" ? path : kind === "command" && Array.isArray(argv) ? argv[0] : undefined;
      return typeof program === "string" && program.startsWith("/")
        ? [{ key: keyFor(key, name), path: program }]
        : [];
    });
  });
}

/** Files that must be there before a daemon can do its work, each with the key that names it. */
export function filesOf(
  settings: Settings,
): readonly { readonly key: string; readonly path: string }[] {
  const roots = payloadNames(settings).map((name) => ({
    key: keyFor("trust-root-file", name),
    path: settingsOf(settings, name).trustRootFile,
  }));
  return [
    ...roots,
    { key: "token-file", path: settings.tokenFile },
    ...filesIn("vault-tls-dir", settings.vaultTlsDir, ["tls.crt", "tls.key"]),
    ...filesIn("vault-approle-dir", settings.vaultApproleDir, ["role_id"]),
    ...programsOf(settings),
  ].flatMap(({ key, path }) => (path === undefined ? [] : [{ key, path }]));
}

function filesIn(
  key: string,
  folder: string | undefined,
  names: readonly string[],
): readonly { readonly key: string; readonly path: string }[] {
  return folder === undefined ? [] : names.map((name) => ({ key, path: `${folder}/${name}` }));
}

/** Folders of a daemon whose contents others put there: releases, credentials, bundles, holds. Nothing in them is a program of the machine's. */
export function foreignFolders(settings: Settings): readonly string[] {
  const all = payloadNames(settings).flatMap((name) => {
    const { payloadDir, payloadLinkDir, importDir, seedDir } = settingsOf(settings, name);
    return [payloadDir, payloadLinkDir, importDir, seedDir];
  });
  return [
    ...new Set(
      [...all, settings.secretsDir, settings.holdDir].filter((path) => path !== undefined),
    ),
  ];
}
