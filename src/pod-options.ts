/** From a pod's annotations to its options: typed by the table of the contract, with every problem reported at once. */
import { ANNOTATIONS, PREFIX, SECRET_ANNOTATIONS } from "./annotations.ts";
import type { Row } from "./annotations.ts";
import { EdgeSyncError } from "./errors.ts";
import { HOOKS } from "./hook.ts";
import { nearName } from "./near-name.ts";
import {
  MAIN_PAYLOAD,
  MAX_PAYLOADS,
  isInherited,
  isPerPayload,
  keyFor,
  payloadName,
} from "./payloads.ts";
import { refusal } from "./refusal.ts";
import { onceFor, openRecent } from "./remember.ts";
import type { SecretFormat } from "./secret-format.ts";
import type { SecretRequest, TemplateRequest } from "./secret-request.ts";
import * as v from "./values.ts";
import type { TypeOf } from "./values.ts";

export type Camel<S extends string> = S extends `${infer Head}.${infer Tail}`
  ? `${Camel<Head>}${Capitalize<Camel<Tail>>}`
  : S extends `${infer Head}-${infer Tail}`
    ? `${Head}${Capitalize<Camel<Tail>>}`
    : S;

type Option<R> = R extends { value: infer V; default: string }
  ? TypeOf<V>
  : TypeOf<ValueIn<R>> | undefined;
type ValueIn<R> = R extends { value: infer V } ? V : never;

export type AnnotationKey = keyof typeof ANNOTATIONS;

type FlatOptions = {
  readonly [K in AnnotationKey as Camel<K>]: Option<(typeof ANNOTATIONS)[K]>;
};

/** The options of one pod, by the camel-case name of their annotation; those of the updates are payload `main`'s. */
export type PodOptions = FlatOptions & {
  readonly secrets: readonly SecretOptions[];
  /** Payloads beside `main`, by name. */
  readonly payloads: readonly NamedPayload[];
};

export interface NamedPayload {
  readonly name: string;
  /** What it has of its own, also where that is nothing: everything that annotations with its name may state. */
  readonly own: Partial<FlatOptions>;
}

/** One payload, and the pod's options as if it were the only one. */
export interface Payload {
  readonly name: string;
  readonly options: PodOptions;
}

/** Every payload of a pod, `main` first if there is one. */
export const payloadsOf: (options: PodOptions) => readonly Payload[] = onceFor((options) => {
  const alone = options.payloads.length === 0 ? options : { ...options, payloads: [] };
  const main = { name: MAIN_PAYLOAD, options: alone };
  const others = options.payloads.map(({ name, own }) => ({
    name,
    options: { ...main.options, ...own },
  }));
  return options.channel === undefined ? others : [main, ...others];
});

export interface SecretOptions {
  readonly name: string;
  readonly request: SecretRequest | TemplateRequest;
  /** Of no meaning for a template. */
  readonly format: SecretFormat;
  readonly file: string;
  readonly mode: number | undefined;
}

/** Whether any of them is asked of Vault: a pod whose secrets all come from elsewhere needs neither its address nor a login. */
export function needsVault({ secrets }: Pick<PodOptions, "secrets">): boolean {
  return secrets.some(({ request }) => request.kind === "vault" || request.kind === "template");
}

/** Whether a secret comes sealed with a release. */
export function usesSealed({ secrets }: Pick<PodOptions, "secrets">): boolean {
  return secrets.some(({ request }) => request.kind === "sealed");
}

/** The Secrets whose keys are read, each once, in the order of their names. */
export function mountedSecrets({ secrets }: Pick<PodOptions, "secrets">): readonly string[] {
  const names = secrets.flatMap(({ request }) =>
    request.kind === "mounted" ? [request.secret] : [],
  );
  return [...new Set(names)].toSorted();
}

/** The ConfigMaps with templates, in the order of their names, each with the keys that are templates. */
export function templateConfigMaps({
  secrets,
}: Pick<PodOptions, "secrets">): readonly (readonly [name: string, keys: readonly string[]])[] {
  const keys = new Map<string, Set<string>>();
  for (const { request } of secrets)
    if (request.kind === "template" && "configMap" in request)
      keys.set(request.configMap, (keys.get(request.configMap) ?? new Set()).add(request.key));
  return [...keys]
    .map(([name, found]) => [name, [...found].toSorted()] as const)
    .toSorted(([a], [b]) => (a < b ? -1 : 1));
}

/** Made once for each key of the tables: the webhook asks for hundreds with every pod. */
const camels = new Map<string, string>();

/** @param key of a table; the answer is kept for ever */
export function camel<K extends string>(key: K): Camel<K> {
  let name = camels.get(key);
  if (name === undefined) {
    name = key.replace(/[-.]([a-z])/g, (_, letter: string) => letter.toUpperCase());
    camels.set(key, name);
  }
  return name as Camel<K>;
}

function isKey(name: string): name is AnnotationKey {
  return Object.hasOwn(ANNOTATIONS, name);
}

/** Whether a pod carries any annotation of ours, valid or not. */
export function hasAnnotations(annotations: Readonly<Record<string, string>>): boolean {
  return Object.keys(annotations).some((key) => key.startsWith(PREFIX));
}

/** The table once more, with what a pod's annotations do not change. */
const ROWS = Object.entries<Row<unknown>>(ANNOTATIONS).map(([key, row]) => ({
  key,
  annotation: PREFIX + key,
  option: camel(key),
  row,
  perPayload: isPerPayload(row),
  fallback: row.default === undefined ? undefined : row.value.parse(row.default),
}));

/** The options of a pod without annotations. Its fields are those of all: to change one costs less than to add it. */
const FALLBACKS = Object.fromEntries(ROWS.map(({ option, fallback }) => [option, fallback]));

/** A sentence for each thing that is wrong; the order is that of the annotations' names. */
export type Problems = readonly string[];

/**
 * Reads the options from a pod's annotations, and every problem at once.
 *
 * @throws EdgeSyncError ANNOTATION_INVALID whose message holds one sentence for each problem
 */
export function parseAnnotations(annotations: Readonly<Record<string, string>>): PodOptions {
  const { options, problems } = readAnnotations(annotations);
  if (problems.length > 0) throw new EdgeSyncError("ANNOTATION_INVALID", problems.join("; "));
  return options;
}

interface Reading {
  readonly options: PodOptions;
  readonly problems: Problems;
}

/** Pods of one controller have the same annotations, whatever else differs in them. At most a megabyte of keys. */
const readings = openRecent<Reading>(256, 2_048);

/** As {@link parseAnnotations}, for callers that have more problems to add. The same annotations give the same object. */
export function readAnnotations(annotations: Readonly<Record<string, string>>): Reading {
  // The lengths tell apart what the spaces alone would not.
  let stated = "";
  for (const key of Object.keys(annotations))
    if (key.startsWith(PREFIX))
      stated += `${key.length} ${annotations[key]?.length ?? 0} ${key} ${annotations[key] ?? ""} `;
  return readings.get(stated) ?? readings.set(stated, parse(annotations));
}

function parse(annotations: Readonly<Record<string, string>>): Reading {
  const problems: string[] = [];
  const options: Record<string, unknown> = { ...FALLBACKS };
  for (const { annotation, option, row } of ROWS) {
    const text = annotations[annotation];
    if (text !== undefined) options[option] = readText(annotation, row, text, problems);
  }
  const secrets = readSecrets(annotations, PREFIX, problems);
  const payloads = readPayloads(annotations, options, problems);
  const unknown = Object.keys(annotations)
    .filter((key) => key.startsWith(PREFIX) && !isKnown(key.slice(PREFIX.length)))
    .toSorted();
  for (const [index, key] of unknown.entries()) {
    const hint = index < MAX_SUGGESTIONS ? suggestion(key.slice(PREFIX.length)) : REFERENCE;
    problems.push(`${key} is not known; ${hint}`);
  }
  // Every member of the mapped type is assigned by the loop over the same table.
  return { options: { ...options, secrets, payloads } as unknown as PodOptions, problems };
}

/** A value, or a problem that names the key and says what is allowed. */
export function readText<T>(
  key: string,
  { value: kind }: { readonly value: v.Value<T> },
  text: string,
  problems: string[],
): T | undefined {
  const value = kind.parse(text);
  if (value === undefined) problems.push(`${key} is ${quote(text)}; ${refusal(kind, text)}`);
  return value;
}

/** Annotations are other people's text: shown short and without control characters. */
function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}...` : text);
}

function isFamily(name: string): name is keyof typeof SECRET_ANNOTATIONS {
  return Object.hasOwn(SECRET_ANNOTATIONS, name);
}

function splitFamily(name: string): [keyof typeof SECRET_ANNOTATIONS, string] | undefined {
  const dot = name.indexOf(".");
  const family = name.slice(0, dot);
  return dot > 0 && isFamily(family) ? [family, name.slice(dot + 1)] : undefined;
}

/** Characters; more than the longest row with the longest name of a payload. */
const MAX_KEY = 128;

/** The row and the payload of a key with a suffix. Rows may have dots of their own: the longest one that fits is meant. */
function splitPayload(name: string): [key: AnnotationKey, payload: string] | undefined {
  // Names longer than any of ours would be searched for long.
  if (isKey(name) || name.length > MAX_KEY) return undefined;
  for (let dot = name.lastIndexOf("."); dot > 0; dot = name.lastIndexOf(".", dot - 1)) {
    const key = name.slice(0, dot);
    if (isKey(key)) return isPerPayload(ANNOTATIONS[key]) ? [key, name.slice(dot + 1)] : undefined;
  }
  return undefined;
}

function isKnown(name: string): boolean {
  return isKey(name) || splitFamily(name) !== undefined || splitPayload(name) !== undefined;
}

const REFERENCE = "docs/annotations.md lists all that are";

/** To look for near names takes time, and nobody misspells more than a few. */
const MAX_SUGGESTIONS = 20;

function suggestion(name: string): string {
  const [head = "", ...suffix] = name.split(".");
  if (isKey(head)) return `${PREFIX}${head} holds for the whole pod`;
  const known = [
    ...Object.keys(ANNOTATIONS),
    ...Object.keys(SECRET_ANNOTATIONS).map((f) => `${f}.<name>`),
  ];
  const near = nearName(name, known);
  if (near !== undefined) return `did you mean ${PREFIX}${near}?`;
  if (head === "hook") return `hooks are ${Object.keys(HOOKS).join(", ")}`;
  const rows = Object.entries(ANNOTATIONS).filter(([, row]) => isPerPayload(row));
  const own =
    suffix.length === 0
      ? undefined
      : nearName(
          head,
          rows.map(([key]) => key),
        );
  return own === undefined ? REFERENCE : `did you mean ${PREFIX}${[own, ...suffix].join(".")}?`;
}

/** Payloads beside `main`: whatever an annotation names, so that one without a channel is told of. */
function readPayloads(
  annotations: Readonly<Record<string, string>>,
  main: Readonly<Record<string, unknown>>,
  problems: string[],
): readonly NamedPayload[] {
  const named = new Map<string, AnnotationKey>();
  for (const key of Object.keys(annotations).toSorted()) {
    const found = key.startsWith(PREFIX) ? splitPayload(key.slice(PREFIX.length)) : undefined;
    if (found !== undefined && !named.has(found[1])) named.set(found[1], found[0]);
  }
  const payloads: NamedPayload[] = [];
  for (const [name, key] of named) {
    if (payloadName.parse(name) === undefined)
      problems.push(
        `${PREFIX}${key}.${name} names payload ${quote(name)}; allowed: ${payloadName.allowed}`,
      );
    else payloads.push(readPayload(name, key, annotations, main, problems));
  }
  const count = payloads.length + (main["channel"] === undefined ? 0 : 1);
  if (count > MAX_PAYLOADS)
    problems.push(`the pod has ${count} payloads; at most ${MAX_PAYLOADS} are allowed`);
  return payloads.slice(0, MAX_PAYLOADS);
}

function readPayload(
  name: string,
  given: AnnotationKey,
  annotations: Readonly<Record<string, string>>,
  main: Readonly<Record<string, unknown>>,
  problems: string[],
): NamedPayload {
  const textOf = (key: string): string | undefined => annotations[PREFIX + keyFor(key, name)];
  const sameRepository = textOf("repository") === undefined;
  const own: Record<string, unknown> = {};
  for (const { key, option, row, perPayload, fallback } of ROWS) {
    if (!perPayload) continue;
    const text = textOf(key);
    if (text !== undefined) own[option] = readText(PREFIX + keyFor(key, name), row, text, problems);
    else if (isInherited(row, sameRepository)) own[option] = main[option];
    // A second payload at main's path could only hide it.
    else own[option] = key === "payload-path" ? undefined : fallback;
  }
  if (textOf("channel") === undefined)
    problems.push(
      `${PREFIX}${keyFor("channel", name)} is missing; ${PREFIX}${keyFor(given, name)} refines it`,
    );
  if (textOf("payload-path") === undefined)
    problems.push(
      `${PREFIX}${keyFor("payload-path", name)} is missing; each payload beside ${MAIN_PAYLOAD} has a path of its own`,
    );
  return { name, own };
}

/** @param prefix of every key */
export function readSecrets(
  annotations: Readonly<Record<string, string>>,
  prefix: string,
  problems: string[],
): readonly SecretOptions[] {
  const names = new Set<string>();
  for (const key of Object.keys(annotations)) {
    const found = key.startsWith(prefix) ? splitFamily(key.slice(prefix.length)) : undefined;
    if (found !== undefined) names.add(found[1]);
  }
  const secrets: SecretOptions[] = [];
  for (const name of [...names].toSorted()) {
    const text = (family: keyof typeof SECRET_ANNOTATIONS): string | undefined =>
      annotations[`${prefix}${family}.${name}`];
    if (v.dnsLabel.parse(name) === undefined) {
      problems.push(`${prefix}secret.${name} has a bad name; allowed: ${v.dnsLabel.allowed}`);
      continue;
    }
    const [asked, template] = [text("secret"), text("template")];
    if (asked === undefined && template === undefined) {
      problems.push(`${prefix}secret.${name} is missing; another annotation refines it`);
      continue;
    }
    for (const family of ["secret", "format"] as const)
      if (template !== undefined && text(family) !== undefined)
        problems.push(
          `${prefix}${family}.${name} is beside ${prefix}template.${name}, which says all of the file; leave one out`,
        );
    const table = SECRET_ANNOTATIONS;
    const request =
      template === undefined
        ? readText(`${prefix}secret.${name}`, table.secret, asked ?? "", problems)
        : readText(`${prefix}template.${name}`, table.template, template, problems);
    const format = readText(
      `${prefix}format.${name}`,
      table.format,
      text("format") ?? table.format.default,
      problems,
    );
    const file = readText(`${prefix}file.${name}`, table.file, text("file") ?? name, problems);
    const modeText = text("mode");
    const mode =
      modeText === undefined
        ? undefined
        : readText(`${prefix}mode.${name}`, table.mode, modeText, problems);
    if (request !== undefined && format !== undefined && file !== undefined)
      secrets.push({ name, request, format, file, mode });
  }
  const owners = new Map<string, string>();
  for (const { name, file } of secrets) {
    const owner = owners.get(file);
    if (owner === undefined) owners.set(file, name);
    else
      problems.push(
        `${prefix}file.${name} is ${quote(file)}, which is also the file of secret ${owner}`,
      );
  }
  return secrets;
}
