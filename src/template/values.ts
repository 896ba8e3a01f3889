/**
 * Values as a Go program would hold them, as far as secrets and templates can make them. `null` is an interface that holds nothing,
 * `undefined` is no value at all: Go tells them apart where a field of them is asked for.
 */
import { unreachable } from "../errors.ts";
import { isRawJson } from "../secret-file.ts";
import type { SecretData } from "../secret-file.ts";
import { MAX_DATA_DEPTH } from "./limits.ts";
import { bytesOf } from "./runes.ts";

export interface GoInt {
  readonly kind: "int";
  readonly type: "int" | "int64" | "uint8" | "uint64";
  readonly value: bigint;
}

/** A number of a secret: Go's json.Number is a text. */
export interface GoNumber {
  readonly kind: "number";
  readonly text: string;
}

export interface GoList {
  readonly kind: "list";
  readonly type: "[]interface {}" | "[]string";
  readonly items: readonly GoValue[];
  readonly isNil?: true;
}

export interface GoMap {
  readonly kind: "map";
  readonly type: "map[string]interface {}" | "map[string]string";
  /** In the order of their keys' bytes. */
  readonly entries: ReadonlyMap<string, GoValue>;
  readonly isNil?: true;
}

export interface GoStruct {
  readonly kind: "struct";
  readonly type: "dependency.Secret" | "dependency.PemEncoded";
  /** Whether templates hold its address: Go prints `&` before it. */
  readonly isPointer: boolean;
  readonly fields: readonly (readonly [name: string, value: GoValue])[];
}

export interface GoNil {
  readonly kind: "nil";
  readonly type: "*dependency.SecretAuth" | "*dependency.SecretWrapInfo";
}

/** What `loop` makes: it gives each number once. */
export interface GoChannel {
  readonly kind: "channel";
  next: bigint;
  readonly end: bigint;
}

/** Texts are bytes (see runes.ts); a JavaScript number is a float64. */
export type GoValue =
  | undefined
  | null
  | boolean
  | string
  | number
  | GoInt
  | GoNumber
  | GoList
  | GoMap
  | GoStruct
  | GoNil
  | GoChannel;

export function goInt(value: number | bigint, type: GoInt["type"] = "int"): GoInt {
  return { kind: "int", type, value: BigInt(value) };
}

export function goStrings(items: readonly string[]): GoList {
  return { kind: "list", type: "[]string", items };
}

export function goMap(
  entries: Iterable<readonly [string, GoValue]>,
  type: GoMap["type"] = "map[string]interface {}",
): GoMap {
  const sorted = [...entries].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  return { kind: "map", type, entries: new Map(sorted) };
}

export function typeOf(value: GoValue): string {
  if (value === undefined || value === null) return "nil";
  if (typeof value === "boolean") return "bool";
  if (typeof value === "string") return "string";
  if (typeof value === "number") return "float64";
  switch (value.kind) {
    case "number":
      return "json.Number";
    case "channel":
      return "<-chan int64";
    case "struct":
      return value.isPointer ? `*${value.type}` : value.type;
    case "int":
    case "list":
    case "map":
    case "nil":
      return value.type;
    default:
      return unreachable(value);
  }
}

/** What `if` and `with` go by: whether it is other than the zero of its type. A number of a secret is a text, so `0` is true. */
export function isTrue(value: GoValue): boolean {
  // Not a number is no zero, other than in JavaScript.
  if (typeof value === "number") return value !== 0;
  if (typeof value !== "object" || value === null) return Boolean(value);
  switch (value.kind) {
    case "int":
      return value.value !== 0n;
    case "number":
      return value.text !== "";
    case "list":
      return value.items.length > 0;
    case "map":
      return value.entries.size > 0;
    case "struct":
    case "channel":
      return true;
    case "nil":
      return false;
    default:
      return unreachable(value);
  }
}

/** Text that Go sees in it: of a text itself, or of a number of a secret. */
export function stringKind(value: GoValue): string | undefined {
  if (typeof value === "string") return value;
  return isKind(value, "number") ? value.text : undefined;
}

type Kinds = Exclude<GoValue, undefined | null | boolean | string | number>;

export function isKind<K extends Kinds["kind"]>(
  value: GoValue,
  kind: K,
): value is Extract<Kinds, { readonly kind: K }> {
  return typeof value === "object" && value !== null && value.kind === kind;
}

/**
 * What JSON can hold, read by `parseExactJson`, or by JSON.parse with `numbers` that makes floats of them.
 *
 * @throws RangeError when it is nested too deeply
 */
export function fromJson(value: unknown, numbers: (text: string) => GoValue, depth = 0): GoValue {
  if (depth > MAX_DATA_DEPTH) throw new RangeError("nested too deeply");
  if (value === null || value === undefined) return null;
  if (typeof value === "string") return bytesOf(value);
  if (typeof value === "boolean") return value;
  if (typeof value === "number") return numbers(Object.is(value, -0) ? "-0" : String(value));
  if (Array.isArray(value))
    return {
      kind: "list",
      type: "[]interface {}",
      items: value.map((item) => fromJson(item, numbers, depth + 1)),
    };
  if (isRawJson(value)) return numbers(JSON.stringify(value));
  const entries: [string, unknown][] = Object.entries(value);
  return goMap(entries.map(([key, item]) => [bytesOf(key), fromJson(item, numbers, depth + 1)]));
}

export function jsonNumber(text: string): GoNumber {
  return { kind: "number", text };
}

interface SecretParts {
  readonly data: SecretData;
  readonly requestId?: string;
  readonly leaseId?: string;
  readonly leaseDuration?: number;
  readonly renewable?: boolean;
}

/** @throws RangeError when it is nested too deeply */
export function secretValue(parts: SecretParts): GoStruct {
  const data = fromJson(parts.data, jsonNumber);
  const empty = isKind(data, "map") && data.entries.size === 0;
  return {
    kind: "struct",
    type: "dependency.Secret",
    isPointer: true,
    fields: [
      ["RequestID", bytesOf(parts.requestId ?? "")],
      ["LeaseID", bytesOf(parts.leaseId ?? "")],
      ["LeaseDuration", goInt(Math.trunc(parts.leaseDuration ?? 0))],
      ["Renewable", parts.renewable ?? false],
      ["Data", empty ? { ...data, isNil: true } : data],
      ["Warnings", { ...goStrings([]), isNil: true }],
      ["Auth", { kind: "nil", type: "*dependency.SecretAuth" }],
      ["WrapInfo", { kind: "nil", type: "*dependency.SecretWrapInfo" }],
    ],
  };
}

/** Of `pki/issue`'s answer: the leaf, its key, and the authority that signed it, each with one line end. */
export function pemValue({ data }: SecretParts): GoStruct {
  const pem = (name: string): string => {
    const value = Object.hasOwn(data, name) ? data[name] : undefined;
    return typeof value === "string" && value.trim() !== "" ? bytesOf(`${value.trim()}\n`) : "";
  };
  return {
    kind: "struct",
    type: "dependency.PemEncoded",
    isPointer: false,
    fields: [
      ["Cert", pem("certificate")],
      ["Key", pem("private_key")],
      ["CA", pem("issuing_ca")],
    ],
  };
}
