/** From a pod's annotations to its options: typed by the table of the contract, with every problem reported at once. */
import { ANNOTATIONS, PREFIX, SECRET_ANNOTATIONS } from "./annotations.ts";
import type { Row } from "./annotations.ts";
import { EdgeSyncError } from "./errors.ts";
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

/** The options of one pod, by the camel-case name of their annotation. */
export type PodOptions = {
  readonly [K in AnnotationKey as Camel<K>]: Option<(typeof ANNOTATIONS)[K]>;
} & { readonly secrets: readonly SecretOptions[] };

export interface SecretOptions {
  readonly name: string;
  readonly request: v.SecretRequest;
  readonly format: v.SecretFormat;
  readonly file: string;
  readonly mode: number | undefined;
}

export function camel<K extends string>(key: K): Camel<K> {
  return key.replace(/[-.]([a-z])/g, (_, letter: string) => letter.toUpperCase()) as Camel<K>;
}

function isKey(name: string): name is AnnotationKey {
  return Object.hasOwn(ANNOTATIONS, name);
}

/** Whether a pod carries any annotation of ours, valid or not. */
export function hasAnnotations(annotations: Readonly<Record<string, string>>): boolean {
  return Object.keys(annotations).some((key) => key.startsWith(PREFIX));
}

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

/** As {@link parseAnnotations}, for callers that have more problems to add. */
export function readAnnotations(annotations: Readonly<Record<string, string>>): {
  readonly options: PodOptions;
  readonly problems: Problems;
} {
  const problems: string[] = [];
  const options: Record<string, unknown> = {};
  const rows: readonly (readonly [string, Row<unknown>])[] = Object.entries(ANNOTATIONS);
  for (const [key, row] of rows) {
    const text = annotations[PREFIX + key] ?? row.default;
    options[camel(key)] = text === undefined ? undefined : read(key, row, text, problems);
  }
  const secrets = readSecrets(annotations, problems);
  const unknown = Object.keys(annotations)
    .filter((key) => key.startsWith(PREFIX) && !isKnown(key.slice(PREFIX.length)))
    .toSorted();
  for (const [index, key] of unknown.entries()) {
    const hint = index < MAX_SUGGESTIONS ? suggestion(key.slice(PREFIX.length)) : REFERENCE;
    problems.push(`${key} is not known; ${hint}`);
  }
  // Every member of the mapped type is assigned by the loop over the same table.
  return { options: { ...options, secrets } as unknown as PodOptions, problems };
}

function read<T>(key: string, row: Row<T>, text: string, problems: string[]): T | undefined {
  const value = row.value.parse(text);
  if (value === undefined)
    problems.push(`${PREFIX}${key} is ${quote(text)}; allowed: ${row.value.allowed}`);
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

function isKnown(name: string): boolean {
  return isKey(name) || splitFamily(name) !== undefined;
}

const REFERENCE = "docs/annotations.md lists all that are";

/** To look for near names takes time, and nobody misspells more than a few. */
const MAX_SUGGESTIONS = 20;

function suggestion(name: string): string {
  const known = [
    ...Object.keys(ANNOTATIONS),
    ...Object.keys(SECRET_ANNOTATIONS).map((f) => `${f}.<name>`),
  ];
  const near = known.find((key) => distance(key, name) <= 2);
  return near === undefined ? REFERENCE : `did you mean ${PREFIX}${near}?`;
}

/** Levenshtein's, for short names. */
function distance(a: string, b: string): number {
  if (Math.abs(a.length - b.length) > 2) return 3;
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substituted = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substituted, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

function readSecrets(
  annotations: Readonly<Record<string, string>>,
  problems: string[],
): readonly SecretOptions[] {
  const names = new Set<string>();
  for (const key of Object.keys(annotations)) {
    const found = key.startsWith(PREFIX) ? splitFamily(key.slice(PREFIX.length)) : undefined;
    if (found !== undefined) names.add(found[1]);
  }
  const secrets: SecretOptions[] = [];
  for (const name of [...names].toSorted()) {
    const text = (family: keyof typeof SECRET_ANNOTATIONS): string | undefined =>
      annotations[`${PREFIX}${family}.${name}`];
    if (v.dnsLabel.parse(name) === undefined) {
      problems.push(`${PREFIX}secret.${name} has a bad name; allowed: ${v.dnsLabel.allowed}`);
      continue;
    }
    const asked = text("secret");
    if (asked === undefined) {
      problems.push(`${PREFIX}secret.${name} is missing; another annotation refines it`);
      continue;
    }
    const table = SECRET_ANNOTATIONS;
    const request = read(`secret.${name}`, table.secret, asked, problems);
    const format = read(
      `format.${name}`,
      table.format,
      text("format") ?? table.format.default,
      problems,
    );
    const file = read(`file.${name}`, table.file, text("file") ?? name, problems);
    const modeText = text("mode");
    const mode =
      modeText === undefined ? undefined : read(`mode.${name}`, table.mode, modeText, problems);
    if (request !== undefined && format !== undefined && file !== undefined)
      secrets.push({ name, request, format, file, mode });
  }
  const owners = new Map<string, string>();
  for (const { name, file } of secrets) {
    const owner = owners.get(file);
    if (owner === undefined) owners.set(file, name);
    else
      problems.push(
        `${PREFIX}file.${name} is ${quote(file)}, which is also the file of secret ${owner}`,
      );
  }
  return secrets;
}
