/** JSON Patch (RFC 6902): the operations that turn one JSON value into another. The same two values always give the same bytes. */

export type Json = unknown;

export type Operation =
  | { readonly op: "add" | "replace"; readonly path: string; readonly value: Json }
  | { readonly op: "remove"; readonly path: string };

type JsonObject = Readonly<Record<string, Json>>;

/**
 * Small rather than minimal: objects are compared key by key; of a list, the items that are in both and in the same order stay, all
 * others are removed and added. Items are known by their `name`, by their `mountPath`, or by their value. A property that is undefined
 * counts as absent.
 */
export function diff(before: Json, after: Json): readonly Operation[] {
  const operations: Operation[] = [];
  compare("", before, after, operations);
  return operations;
}

/** Whether two JSON values are equal; the order of an object's keys does not matter. */
export function sameJson(a: Json, b: Json): boolean {
  if (Object.is(a, b)) return true;
  if (Array.isArray(a) && Array.isArray(b))
    return a.length === b.length && a.every((item, index) => sameJson(item, b[index]));
  if (!isObject(a) || !isObject(b)) return a === b;
  const keys = keysOf(a);
  return (
    keys.length === keysOf(b).length &&
    keys.every((key) => Object.hasOwn(b, key) && sameJson(a[key], b[key]))
  );
}

function isObject(value: Json): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function keysOf(object: JsonObject): readonly string[] {
  return Object.keys(object).filter((key) => object[key] !== undefined);
}

function has(object: JsonObject, key: string): boolean {
  return Object.hasOwn(object, key) && object[key] !== undefined;
}

/** A reference token of a JSON Pointer (RFC 6901, section 3). */
function escape(token: string): string {
  return /[~/]/.test(token) ? token.replaceAll("~", "~0").replaceAll("/", "~1") : token;
}

function compare(path: string, before: Json, after: Json, out: Operation[]): void {
  // Most of a pod is in both the very same object.
  if (before === after) return;
  // What is equal in them shows on the way.
  if (isObject(before) && isObject(after)) compareObjects(path, before, after, out);
  else if (sameJson(before, after)) return;
  else if (Array.isArray(before) && Array.isArray(after)) compareLists(path, before, after, out);
  else out.push({ op: "replace", path, value: after });
}

function compareObjects(
  path: string,
  before: JsonObject,
  after: JsonObject,
  out: Operation[],
): void {
  for (const key of keysOf(before))
    if (!has(after, key)) out.push({ op: "remove", path: `${path}/${escape(key)}` });
  for (const key of keysOf(after)) {
    if (before[key] === after[key] && has(before, key)) continue;
    const at = `${path}/${escape(key)}`;
    if (has(before, key)) compare(at, before[key], after[key], out);
    else out.push({ op: "add", path: at, value: after[key] });
  }
}

function compareLists(
  path: string,
  before: readonly Json[],
  after: readonly Json[],
  out: Operation[],
): void {
  const [left, right] = identities(before, after);
  const kept = longestCommon(left, right);
  if (kept.size === 0) {
    out.push({ op: "replace", path, value: after });
    return;
  }
  const stays = new Set(kept.values());
  // From the end, so that the places of those before do not move.
  for (let index = before.length - 1; index >= 0; index--)
    if (!stays.has(index)) out.push({ op: "remove", path: `${path}/${index}` });
  for (const [index, item] of after.entries()) {
    const old = kept.get(index);
    if (old === undefined) out.push({ op: "add", path: `${path}/${index}`, value: item });
    else compare(`${path}/${index}`, before[old], item, out);
  }
}

/** A text for each item of both lists; equal texts mean the same item, and no text is twice in one list. */
function identities(
  before: readonly Json[],
  after: readonly Json[],
): readonly [readonly string[], readonly string[]] {
  for (const field of ["name", "mountPath"]) {
    const [left, right] = [before, after].map((list) => list.map((item) => named(item, field)));
    if (left !== undefined && right !== undefined && areUnique(left) && areUnique(right))
      return [left, right];
  }
  return [byValue(before), byValue(after)];
}

function named(item: Json, field: string): string | undefined {
  const value = isObject(item) && Object.hasOwn(item, field) ? item[field] : undefined;
  return typeof value === "string" ? value : undefined;
}

function areUnique(texts: readonly (string | undefined)[]): texts is readonly string[] {
  return !texts.includes(undefined) && new Set(texts).size === texts.length;
}

function byValue(list: readonly Json[]): readonly string[] {
  const seen = new Map<string, number>();
  return list.map((item) => {
    const text = canonical(item);
    const count = seen.get(text) ?? 0;
    seen.set(text, count + 1);
    return `${count} ${text}`;
  });
}

function canonical(value: Json): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`;
  if (!isObject(value)) return JSON.stringify(value) ?? "null";
  const fields = [...keysOf(value)]
    .sort()
    .map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`);
  return `{${fields.join()}}`;
}

/** The longest run of items that both lists have in the same order: place in `right` to place in `left`. */
function longestCommon(
  left: readonly string[],
  right: readonly string[],
): ReadonlyMap<number, number> {
  const places = new Map(left.map((text, index) => [text, index]));
  const pairs = right.flatMap((text, index) => {
    const old = places.get(text);
    return old === undefined ? [] : [[index, old] as const];
  });
  // Each text is in a list once, so this is the longest increasing subsequence of the old places (patience sorting).
  const tails: number[] = [];
  const previous: (number | undefined)[] = [];
  for (const [at, [, old]] of pairs.entries()) {
    let low = 0;
    let high = tails.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const tail = pairs[tails[middle] ?? 0];
      if (tail !== undefined && tail[1] < old) low = middle + 1;
      else high = middle;
    }
    previous.push(low === 0 ? undefined : tails[low - 1]);
    tails[low] = at;
  }
  const kept = new Map<number, number>();
  for (let at = tails.at(-1); at !== undefined; at = previous[at]) {
    const pair = pairs[at];
    if (pair !== undefined) kept.set(...pair);
  }
  return kept;
}
