/** From the data of a secret to the bytes of its file. Errors never quote what is in the data, not even its field names. */
import { EdgeSyncError, unreachable } from "./errors.ts";
import type { SecretFormat } from "./secret-format.ts";

/**
 * Fields by name: anything that JSON can hold, numbers perhaps as `JSON.rawJSON` so that no digit is lost; and bytes that are no
 * text, of a mounted Secret.
 */
export type SecretData = Readonly<Record<string, unknown>>;

/** An object of any fields: to valibot's own `record` a list is one too, and it drops fields that are named like an object's own. */
export function isSecretData(value: unknown): value is SecretData {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !isRawJson(value);
}

/** The fields of a secret as Vault answers it: those in the version of KV version 2, where it is one. */
export function fieldsOf(data: SecretData): SecretData {
  const { data: inner, metadata, ...more } = data;
  const isVersion =
    isSecretData(metadata) &&
    typeof metadata["version"] === "number" &&
    typeof metadata["created_time"] === "string" &&
    typeof metadata["destroyed"] === "boolean";
  return isVersion && isSecretData(inner) && Object.keys(more).length === 0 ? inner : data;
}

/** Forms of files that this file makes: a key store takes a library, and is the caller's. */
export type PlainFormat = Exclude<SecretFormat, { readonly kind: "pkcs12" }>;

/**
 * @throws EdgeSyncError SECRET_INVALID when the data cannot be put in that form; the message names the field that the format
 *   asked for
 */
export function secretFile(data: SecretData, format: PlainFormat): Uint8Array {
  switch (format.kind) {
    case "json":
      return encode(`${JSON.stringify(sorted(data))}\n`);
    case "env":
      return encode(envFile(data));
    case "pem":
      return encode(
        pemParts(data)
          .map((part) => `${part}\n`)
          .join(""),
      );
    case "raw":
      return rawField(data, format.field);
    default:
      return unreachable(format);
  }
}

function encode(text: string): Uint8Array {
  return Buffer.from(text, "utf8");
}

/**
 * In one order, so that equal data is equal bytes whatever order a server chose: that of names, behind those that are whole numbers,
 * which JavaScript's objects have first. Bytes are as Kubernetes writes them.
 */
function sorted(value: unknown): unknown {
  if (value instanceof Uint8Array) return Buffer.from(value).toString("base64");
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null || isRawJson(value)) return value;
  const entries: [string, unknown][] = Object.entries(value);
  return Object.fromEntries(
    entries.toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([key, item]) => [key, sorted(item)]),
  );
}

function rawField(data: SecretData, field: string): Uint8Array {
  const value = presentField(data, field);
  return value instanceof Uint8Array ? value : encode(plainText(value));
}

/** @throws EdgeSyncError SECRET_INVALID */
export function presentField(data: SecretData, field: string): unknown {
  const value = Object.hasOwn(data, field) ? data[field] : undefined;
  if (value === undefined || value === null)
    throw new EdgeSyncError("SECRET_INVALID", `the secret has no field ${JSON.stringify(field)}`);
  return value;
}

/** By the names that Vault's PKI engine gives them, and those of a Secret of type kubernetes.io/tls. */
const PEM_FIELDS = [
  ["private_key", "certificate", "ca_chain"],
  ["tls.key", "tls.crt"],
] as const;

/**
 * The key, its certificate and the chain above it, as haproxy, and nginx with one file for both, read them: the certificate before
 * those that have signed it. A root that a chain ends with is the reader's own to have, but does no harm.
 *
 * @returns each part once: PEM texts without a line break at the end
 * @throws EdgeSyncError SECRET_INVALID
 */
export function pemParts(data: SecretData): readonly string[] {
  const fields = PEM_FIELDS.find(([key]) => Object.hasOwn(data, key));
  if (fields === undefined)
    throw new EdgeSyncError(
      "SECRET_INVALID",
      'the secret has no private key; expected "private_key" or "tls.key"',
    );
  const parts = fields.flatMap((field): readonly string[] => {
    const value = Object.hasOwn(data, field) ? data[field] : undefined;
    const isChain = field === "ca_chain";
    const texts: readonly unknown[] = Array.isArray(value) ? value : [value];
    if (texts.every((text) => typeof text === "string" && text.startsWith("-----BEGIN ")))
      return texts.map((text) => String(text).trimEnd());
    // Of a root that signs by itself there is no chain.
    if (isChain && (value === undefined || value === null)) return issuerOf(data);
    throw new EdgeSyncError("SECRET_INVALID", `the field ${JSON.stringify(field)} is not PEM`);
  });
  return [...new Set(parts)];
}

function issuerOf({ issuing_ca: issuer }: SecretData): readonly string[] {
  return typeof issuer === "string" && issuer.startsWith("-----BEGIN ") ? [issuer.trimEnd()] : [];
}

const VARIABLE = /^[A-Za-z_][A-Za-z0-9_]*$/;

/**
 * For a shell's `.` and systemd's EnvironmentFile, which read alike what is in single quotes; but behind `'\''` systemd takes the next
 * quote as it is, so what holds one is in double quotes.
 */
function envFile(data: SecretData): string {
  const lines = Object.entries(data)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => {
      if (!VARIABLE.test(key))
        throw new EdgeSyncError(
          "SECRET_INVALID",
          "a field of the secret has a name that no variable can have; allowed: letters, digits and '_'",
        );
      return `${key}=${quoted(value === null ? "" : plainText(value))}\n`;
    });
  return lines.join("");
}

function quoted(value: string): string {
  if (value.includes("\0"))
    throw new EdgeSyncError(
      "SECRET_INVALID",
      "a field of the secret holds a NUL character, which no variable can hold",
    );
  if (/^[A-Za-z0-9_./:@%+,=-]*$/.test(value)) return value;
  return value.includes("'") ? `"${value.replaceAll(/["\\$`]/g, String.raw`\$&`)}"` : `'${value}'`;
}

/** A text as it is, bytes in base64, everything else as JSON. */
function plainText(value: unknown): string {
  const plain = sorted(value);
  return typeof plain === "string" ? plain : JSON.stringify(plain);
}

interface WithRawJson {
  isRawJSON(value: unknown): boolean;
  rawJSON(text: string): unknown;
}

/** ECMAScript 2026; TypeScript's library does not declare it yet. */
const json = JSON as unknown as WithRawJson;

export function isRawJson(value: unknown): boolean {
  return json.isRawJSON(value);
}

/**
 * `JSON.parse` that keeps every number as it is written: a number of more than 15 digits would else lose some.
 *
 * @throws SyntaxError whose message quotes the text: it must not be passed on
 */
export function parseExactJson(text: string): unknown {
  return JSON.parse(text, (_key: string, value: unknown, context?: { readonly source?: string }) =>
    typeof value === "number" && context?.source !== undefined && String(value) !== context.source
      ? json.rawJSON(context.source)
      : value,
  );
}
