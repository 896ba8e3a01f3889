/** JSON as Go's encoding/json reads and writes it. */
import { unreachable } from "../errors.ts";
import { hex } from "./quote.ts";
import { RUNE_ERROR, runesOf, textOf } from "./runes.ts";
import type { Sink } from "./format.ts";
import { fromJson } from "./values.ts";
import type { GoValue } from "./values.ts";

export interface JsonForm {
  /** `<`, `>` and `&` as `\u003c`…, as Go does unless told otherwise. */
  readonly escapesHtml: boolean;
  readonly isPretty: boolean;
}

const SHORT: Readonly<Record<string, string>> = {
  '"': '\\"',
  "\\": "\\\\",
  "\b": "\\b",
  "\f": "\\f",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
};

export function toJson(value: GoValue, form: JsonForm, sink: Sink): string {
  return write(value, form, sink, "\n");
}

/** @param line a line's end and the indentation of this level */
function write(value: GoValue, form: JsonForm, sink: Sink, line: string): string {
  sink.reserve(1);
  if (value === undefined || value === null) return "null";
  if (typeof value === "boolean") return String(value);
  if (typeof value === "string") return jsonText(value, form, sink);
  if (typeof value === "number") {
    if (!Number.isFinite(value)) return sink.fail("JSON has no infinite numbers");
    return Object.is(value, -0) ? "-0" : String(value);
  }
  const inner = form.isPretty ? `${line}  ` : "";
  const between = (items: readonly string[]): string => {
    sink.reserve(items.length * (inner.length + 2));
    return items.map((item) => inner + item).join(",") + (form.isPretty ? line : "");
  };
  switch (value.kind) {
    case "int":
      return String(value.value);
    case "number":
      sink.reserve(value.text.length);
      return value.text === "" ? "0" : value.text;
    case "nil":
      return "null";
    case "list":
      if (value.isNil === true) return "null";
      if (value.items.length === 0) return "[]";
      return `[${between(value.items.map((item) => write(item, form, sink, inner)))}]`;
    case "map":
    case "struct": {
      if (value.kind === "map" && value.isNil === true) return "null";
      const entries = value.kind === "map" ? [...value.entries] : value.fields;
      if (entries.length === 0) return "{}";
      const colon = form.isPretty ? ": " : ":";
      const items = entries.map(
        ([key, item]) => jsonText(key, form, sink) + colon + write(item, form, sink, inner),
      );
      return `{${between(items)}}`;
    }
    case "channel":
      return sink.fail("what loop makes cannot be JSON");
    default:
      return unreachable(value);
  }
}

function jsonText(bytes: string, { escapesHtml }: JsonForm, sink: Sink): string {
  sink.reserve(bytes.length);
  if (/^[ !#%'-;=?-[\]-~]*$/.test(bytes)) return `"${bytes}"`;
  let text = '"';
  let at = 0;
  for (const { code, size } of runesOf(bytes)) {
    const char = bytes.slice(at, at + size);
    at += size;
    if (code === RUNE_ERROR && size === 1) text += "\\ufffd";
    else if (SHORT[char] !== undefined) text += SHORT[char];
    else if (code < 0x20 || code === 0x2028 || code === 0x2029) text += `\\u${hex(code, 4)}`;
    else if (escapesHtml && "<>&".includes(char)) text += `\\u${hex(code, 4)}`;
    else text += char;
    sink.reserve(5);
  }
  return `${text}"`;
}

/** Every number becomes a float64, as json.Unmarshal makes them where it is not told a type. */
export function parseJson(bytes: string, sink: Sink): GoValue {
  let isTooLarge = false;
  sink.reserve(bytes.length * 2);
  let read: unknown;
  try {
    read = JSON.parse(textOf(bytes));
  } catch {
    // The parser's message quotes the text.
    return sink.fail("the text is not JSON");
  }
  let value: GoValue;
  try {
    value = fromJson(read, (text) => {
      const number = text === "-0" ? -0 : Number(text);
      if (!Number.isFinite(number)) isTooLarge = true;
      return number;
    });
  } catch (cause) {
    if (cause instanceof RangeError) return sink.fail("the JSON is nested too deeply");
    throw cause;
  }
  return isTooLarge ? sink.fail("a number in the JSON is too large") : value;
}
