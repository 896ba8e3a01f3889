/** The functions that Go's text/template has itself; `and` and `or` are the evaluator's, as they stop early. */
import type { Sink } from "./format.ts";
import { plain } from "./format.ts";
import type { GoFunction } from "./function.ts";
import { sprint, sprintf, sprintln } from "./printf.ts";
import { escapeHtml, escapeJs, escapeQuery } from "./quote.ts";
import { goInt, isKind, isTrue, stringKind, typeOf } from "./values.ts";
import type { GoValue } from "./values.ts";

/** Of a text alone itself; of everything else what print makes of it. */
function shown(args: readonly GoValue[], sink: Sink): string {
  const [only] = args;
  if (args.length === 1 && typeof only === "string") return only;
  return sprint(args.map(printable), sink);
}

/** What an action prints of a value: of an address what is there, of nothing `<no value>`. */
export function printable(value: GoValue): GoValue {
  if (value === undefined || value === null) return "<no value>";
  return isKind(value, "struct") ? { ...value, isPointer: false } : value;
}

/** What is written for an action. */
export function printed(value: GoValue, sink: Sink): string {
  if (isKind(value, "channel")) return sink.fail("what loop makes can only be ranged over");
  return plain(printable(value), sink);
}

function escaping(help: string, escape: (bytes: string) => string): GoFunction {
  return {
    form: "value…",
    help,
    from: "Go",
    parameters: [],
    more: "any",
    call(args, around) {
      const bytes = shown(args, around);
      around.reserve(bytes.length * 6);
      return escape(bytes);
    },
  };
}

function position(index: GoValue, length: number, around: Sink): number {
  if (!isKind(index, "int"))
    return around.fail(`expected a whole number as index; got ${typeOf(index)}`);
  if (index.value < 0n || index.value > BigInt(length))
    return around.fail("the index is out of range");
  return Number(index.value);
}

function indexed(item: GoValue, index: GoValue, around: Sink): GoValue {
  if (item === null || item === undefined) return around.fail("nothing cannot be indexed");
  const text = stringKind(item);
  if (text !== undefined || isKind(item, "list")) {
    const length =
      text === undefined && isKind(item, "list") ? item.items.length : (text ?? "").length;
    const at = position(index, length, around);
    if (at >= length) return around.fail("the index is out of range");
    if (text !== undefined) return goInt(text.charCodeAt(at), "uint8");
    return isKind(item, "list") ? item.items[at] : undefined;
  }
  if (!isKind(item, "map")) return around.fail(`a value of type ${typeOf(item)} cannot be indexed`);
  if (typeof index !== "string")
    return around.fail(`expected a text as key of a map; got ${typeOf(index)}`);
  return item.entries.has(index) ? item.entries.get(index) : zeroOf(item.type);
}

/** What a map gives for a key that it does not have. */
export function zeroOf(type: "map[string]interface {}" | "map[string]string"): GoValue {
  return type === "map[string]string" ? "" : null;
}

function sliced(item: GoValue, indexes: readonly GoValue[], around: Sink): GoValue {
  const text = stringKind(item);
  const length = text === undefined ? (isKind(item, "list") ? item.items.length : -1) : text.length;
  if (length === -1) return around.fail(`a value of type ${typeOf(item)} cannot be sliced`);
  if (indexes.length > (text === undefined ? 3 : 2))
    return around.fail("slice has too many indexes");
  const [begin = 0, end = length, most = length] = indexes.map((index) =>
    position(index, length, around),
  );
  if (begin > end || end > most) return around.fail("the indexes of slice go backwards");
  if (isKind(item, "list"))
    return { kind: "list", type: item.type, items: item.items.slice(begin, end) };
  const part = (text ?? "").slice(begin, end);
  return isKind(item, "number") ? { kind: "number", text: part } : part;
}

function lengthOf(item: GoValue, around: Sink): GoValue {
  const text = stringKind(item);
  if (text !== undefined) return goInt(text.length);
  if (isKind(item, "list")) return goInt(item.items.length);
  if (isKind(item, "map")) return goInt(item.entries.size);
  if (isKind(item, "channel")) return goInt(0);
  return around.fail(`a value of type ${typeOf(item)} has no length`);
}

type Basic = "bool" | "float" | "int" | "text" | "none";

function basicOf(value: GoValue): Basic {
  if (typeof value === "boolean") return "bool";
  if (typeof value === "number") return "float";
  if (isKind(value, "int")) return "int";
  return stringKind(value) === undefined ? "none" : "text";
}

function isNothing(value: GoValue): boolean {
  if (value === undefined || value === null || isKind(value, "nil")) return true;
  return (isKind(value, "list") || isKind(value, "map")) && value.isNil === true;
}

function isEqual(a: GoValue, b: GoValue, around: Sink): boolean {
  const [kindA, kindB] = [basicOf(a), basicOf(b)];
  const isMissing = (value: GoValue): boolean => value === undefined || value === null;
  if (kindA !== kindB)
    return isMissing(a) || isMissing(b)
      ? false
      : around.fail(`values of type ${typeOf(a)} and ${typeOf(b)} cannot be compared`);
  if (kindA === "int") return isKind(a, "int") && isKind(b, "int") && a.value === b.value;
  if (kindA === "text") {
    around.reserve((stringKind(a) ?? "").length);
    return stringKind(a) === stringKind(b);
  }
  if (kindA !== "none") return a === b;
  if (isNothing(a) || isNothing(b)) return isNothing(a) === isNothing(b);
  return around.fail(`values of type ${typeOf(b)} cannot be compared`);
}

function isLess(a: GoValue, b: GoValue, around: Sink): boolean {
  const textA = stringKind(a);
  const textB = stringKind(b);
  if (textA !== undefined && textB !== undefined) return textA < textB;
  if (typeof a === "number" && typeof b === "number") return a < b;
  if (isKind(a, "int") && isKind(b, "int")) return a.value < b.value;
  return around.fail(`values of type ${typeOf(a)} and ${typeOf(b)} have no order`);
}

function comparison(
  help: string,
  compare: (a: GoValue, b: GoValue, around: Sink) => boolean,
): GoFunction {
  return {
    form: "a b",
    help,
    from: "Go",
    parameters: ["value", "value"],
    call: ([a, b], around) => {
      around.reserve((stringKind(a) ?? "").length);
      return compare(a, b, around);
    },
  };
}

function printing(
  help: string,
  print: (args: readonly GoValue[], sink: Sink) => string,
): GoFunction {
  return { form: "value…", help, from: "Go", parameters: [], more: "any", call: print };
}

export const BUILTIN_FUNCTIONS: Readonly<Record<string, GoFunction>> = {
  and: {
    form: "a b…",
    help: "The first that is empty, or the last; those behind it are not looked at.",
    from: "Go",
    parameters: ["value"],
    more: "value",
    call: (args) => args.find((value) => !isTrue(value)) ?? args.at(-1),
  },
  or: {
    form: "a b…",
    help: "The first that is not empty, or the last; those behind it are not looked at.",
    from: "Go",
    parameters: ["value"],
    more: "value",
    call: (args) => args.find(isTrue) ?? args.at(-1),
  },
  not: {
    form: "a",
    help: "Whether it is empty.",
    from: "Go",
    parameters: ["value"],
    call: ([value]) => !isTrue(value),
  },
  eq: {
    form: "a b…",
    help: 'Whether the first equals one of the others. A number of a secret equals a text: `eq .port "5432"`.',
    from: "Go",
    parameters: ["value"],
    more: "value",
    call: ([first, ...others], around) => {
      if (others.length === 0) return around.fail("eq needs two values");
      return others.some((other) => isEqual(first, other, around));
    },
  },
  ne: comparison("Whether they differ.", (a, b, around) => !isEqual(a, b, around)),
  lt: comparison("Whether a is less.", isLess),
  le: comparison(
    "Whether a is less, or both are equal.",
    (a, b, around) => isLess(a, b, around) || isEqual(a, b, around),
  ),
  gt: comparison(
    "Whether a is greater.",
    (a, b, around) => !isLess(a, b, around) && !isEqual(a, b, around),
  ),
  ge: comparison(
    "Whether a is greater, or both are equal.",
    (a, b, around) => !isLess(a, b, around),
  ),
  len: {
    form: "value",
    help: "Bytes of a text, elements of a list or map.",
    from: "Go",
    parameters: ["value"],
    call: ([value], around) => lengthOf(value, around),
  },
  index: {
    form: "value key…",
    help: 'The element of a list or map, also of one within it: `index .Data.data "my-key"`.',
    from: "Go",
    parameters: ["value"],
    more: "value",
    call: ([value, ...keys], around) => {
      if (value === undefined || value === null) return around.fail("nothing cannot be indexed");
      return keys.reduce<GoValue>((item, key) => indexed(item, key, around), value);
    },
  },
  slice: {
    form: "value [from [to]]",
    help: "A part of a text, by bytes, or of a list.",
    from: "Go",
    parameters: ["value"],
    more: "value",
    call: ([value, ...indexes], around) => sliced(value, indexes, around),
  },
  print: printing("As Go's fmt.Sprint.", sprint),
  println: printing("As print, with a space between all, and a line end.", sprintln),
  printf: {
    form: '"format" value…',
    help: "As Go's fmt.Sprintf, with its verbs and flags. Numbers of a secret are texts: `%s`.",
    from: "Go",
    parameters: ["string"],
    more: "any",
    call: ([format, ...values], around) =>
      sprintf(typeof format === "string" ? format : "", values, around),
  },
  html: escaping("With angle brackets, `&` and quotes escaped for HTML.", escapeHtml),
  js: escaping("Escaped for a text in JavaScript.", escapeJs),
  urlquery: escaping("Escaped for the query of a URL.", escapeQuery),
};
