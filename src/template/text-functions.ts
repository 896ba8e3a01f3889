/** Functions of texts and lists of texts. As in Consul Template the text comes last, so that it can come through a pipe. */
import { createHash, createHmac } from "node:crypto";
import type { GoFunction, ParameterType, Surroundings } from "./function.ts";
import { plain } from "./format.ts";
import { quote } from "./quote.ts";
import { isAscii, isSpace, runesOf, toLower, toUpper, trimRunes } from "./runes.ts";
import { goInt, goMap, goStrings, isKind, isTrue, typeOf } from "./values.ts";
import type { GoValue } from "./values.ts";

const text = (value: GoValue): string => (typeof value === "string" ? value : "");

interface Texts {
  readonly form: string;
  readonly help: string;
  readonly from?: GoFunction["from"];
}

/** Of texts alone. */
function ofTexts(
  count: number,
  { form, help, from = "Consul Template" }: Texts,
  call: (texts: readonly string[], around: Surroundings) => GoValue,
): GoFunction {
  const parameters = Array.from({ length: count }, (): ParameterType => "string");
  return {
    form,
    help,
    from,
    parameters,
    call(args, around) {
      const texts = args.map(text);
      for (const one of texts) around.reserve(one.length);
      return call(texts, around);
    },
  };
}

function fromBase64(bytes: string, alphabet: "base64" | "base64url", around: Surroundings): string {
  const packed = bytes.replaceAll(/[\r\n]/g, "");
  const form = alphabet === "base64" ? /^[A-Za-z0-9+/]*={0,2}$/ : /^[A-Za-z0-9_-]*={0,2}$/;
  if (packed.length % 4 !== 0 || !form.test(packed))
    return around.fail(
      `the text is not ${alphabet === "base64" ? "base64" : "base64 for URLs"} with padding`,
    );
  return Buffer.from(packed, alphabet).toString("latin1");
}

function toBase64Url(bytes: string): string {
  return Buffer.from(bytes, "latin1").toString("base64").replaceAll("+", "-").replaceAll("/", "_");
}

function trimmed(cutset: string, bytes: string): string {
  const set = new Set([...runesOf(cutset)].map(({ code }) => code));
  return trimRunes(bytes, (code) => set.has(code));
}

/** Before one text is looked for in another: in the worst case each byte is compared with each. */
function search(pattern: string, bytes: string, around: Surroundings): void {
  around.reserve(Math.ceil((pattern.length * bytes.length) / 256));
}

function trimSpace(bytes: string): string {
  return trimRunes(bytes, isSpace);
}

/** Characters, each a text. */
function exploded(bytes: string): string[] {
  const parts: string[] = [];
  let at = 0;
  for (const { size } of runesOf(bytes)) {
    parts.push(bytes.slice(at, at + size));
    at += size;
  }
  return parts;
}

function split(separator: string, bytes: string, around: Surroundings): readonly string[] {
  const inner = trimSpace(bytes);
  if (inner === "") return [];
  search(separator, inner, around);
  const parts = separator === "" ? exploded(inner) : inner.split(separator);
  around.reserve(parts.length * 16);
  return parts;
}

function replaced(from: string, to: string, bytes: string, around: Surroundings): string {
  if (from === "") {
    const parts = exploded(bytes);
    around.reserve((parts.length + 1) * (to.length + 1));
    return to + parts.map((part) => part + to).join("");
  }
  search(from, bytes, around);
  const parts = bytes.split(from);
  around.reserve(parts.length * (to.length + 1));
  return parts.join(to);
}

function indented(spaces: number, bytes: string, around: Surroundings): string {
  if (spaces < 0) return around.fail("the indentation must not be negative");
  const lines = bytes.split("\n");
  around.reserve(bytes.length + lines.filter((line) => line !== "").length * spaces);
  const prefix = " ".repeat(Math.min(spaces, bytes.length === 0 ? 0 : spaces));
  return lines.map((line) => (line === "" ? "" : prefix + line)).join("\n");
}

/** Where words begin, in ASCII: an apostrophe, a point or an underscore between letters is within a word. */
function title(bytes: string, around: Surroundings): string {
  if (!isAscii(bytes)) return around.fail("toTitle is for texts of ASCII only");
  return bytes.replaceAll(/[A-Za-z0-9_]+(?:['.:][A-Za-z0-9_]+)*/g, (word) =>
    word.replace(/[A-Za-z]/, (letter) => letter.toUpperCase()),
  );
}

function whole(bytes: string, type: "int64" | "uint64", around: Surroundings): GoValue {
  if (bytes === "") return goInt(0, type);
  const form = type === "int64" ? /^[+-]?[0-9]{1,100}$/ : /^[0-9]{1,100}$/;
  if (!form.test(bytes)) return around.fail("the text is not a whole number");
  const value = BigInt(bytes.replace("+", ""));
  const fits = type === "int64" ? BigInt.asIntN(64, value) : BigInt.asUintN(64, value);
  return fits === value ? goInt(value, type) : around.fail("the number does not fit into 64 bits");
}

function float(bytes: string, around: Surroundings): GoValue {
  if (bytes === "") return 0;
  if (!/^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$/.test(bytes))
    return around.fail("the text is not a decimal number");
  const value = Number(bytes);
  return Number.isFinite(value) ? value : around.fail("the number is too large");
}

function bool(bytes: string, around: Surroundings): GoValue {
  if (["1", "t", "T", "TRUE", "true", "True"].includes(bytes)) return true;
  if (["", "0", "f", "F", "FALSE", "false", "False"].includes(bytes)) return false;
  return around.fail("the text is not true or false");
}

/** Whether a list has an element, or a text a part. */
function isIn(list: GoValue, value: GoValue, around: Surroundings): boolean {
  const comparesTexts = (one: GoValue): boolean => {
    if (value === null || value === undefined) return around.fail("nothing cannot be looked for");
    return typeOf(one) === typeOf(value);
  };
  const string = (one: GoValue): string => (isKind(one, "number") ? one.text : text(one));
  if (typeof list === "string" || isKind(list, "number")) {
    if (!comparesTexts(list)) return false;
    search(string(value), string(list), around);
    return string(list).includes(string(value));
  }
  if (!isKind(list, "list")) return false;
  around.reserve(list.items.length + string(value).length);
  return list.items.some((item) => {
    if (isKind(item, "int"))
      return (
        isKind(value, "int") &&
        item.type !== "uint8" &&
        item.type !== "uint64" &&
        item.value === value.value
      );
    if (typeof item === "number") return item === value;
    if (typeof item !== "string" && !isKind(item, "number")) return false;
    return comparesTexts(item) && string(item) === string(value);
  });
}

/** @param found what ends the search @param result what it then is */
function contains(help: string, found: boolean, result: boolean): GoFunction {
  return {
    form: "list in",
    help,
    from: "Consul Template",
    parameters: ["[]interface {}", "any"],
    call: ([values, list], around) => {
      const items = isKind(values, "list") ? values.items : [];
      return items.some((item) => isIn(list, item, around) === found) ? result : !result;
    },
  };
}

function otherwise(from: GoFunction["from"]): GoFunction {
  return {
    form: "default value",
    help: "The value, or the default when it is empty, zero, false or missing.",
    from,
    parameters: ["any"],
    more: "any",
    call: ([fallback, given]) =>
      given !== undefined && (isTrue(given) || isKind(given, "struct")) ? given : fallback,
  };
}

function cased(
  from: GoFunction["from"],
  change: (bytes: string) => string,
  help: string,
): GoFunction {
  return ofTexts(1, { form: "text", help, from }, ([bytes = ""]) => change(bytes));
}

const UPPER = "In capital letters.";
const LOWER = "In small letters.";

export const TEXT_FUNCTIONS: Readonly<Record<string, GoFunction>> = {
  base64Encode: ofTexts(1, { form: "text", help: "Base64 with padding." }, ([bytes = ""]) =>
    Buffer.from(bytes, "latin1").toString("base64"),
  ),
  base64Decode: ofTexts(
    1,
    { form: "text", help: "The bytes, also such as are no text." },
    ([bytes = ""], around) => fromBase64(bytes, "base64", around),
  ),
  base64URLEncode: ofTexts(
    1,
    { form: "text", help: "Base64 for URLs, with padding." },
    ([bytes = ""]) => toBase64Url(bytes),
  ),
  base64URLDecode: ofTexts(
    1,
    { form: "text", help: "The bytes, also such as are no text." },
    ([bytes = ""], around) => fromBase64(bytes, "base64url", around),
  ),
  trim: ofTexts(
    2,
    { form: "characters text", help: "Without these characters at both ends." },
    ([cutset = "", bytes = ""]) => trimmed(cutset, bytes),
  ),
  trimPrefix: ofTexts(
    2,
    { form: "prefix text", help: "Without the prefix." },
    ([prefix = "", bytes = ""]) => (bytes.startsWith(prefix) ? bytes.slice(prefix.length) : bytes),
  ),
  trimSuffix: ofTexts(
    2,
    { form: "suffix text", help: "Without the suffix." },
    ([suffix = "", bytes = ""]) =>
      bytes.endsWith(suffix) ? bytes.slice(0, bytes.length - suffix.length) : bytes,
  ),
  trimSpace: ofTexts(
    1,
    { form: "text", help: "Without white space at both ends." },
    ([bytes = ""]) => trimSpace(bytes),
  ),
  indent: {
    form: "spaces text",
    help: "Each line that is not empty moved to the right.",
    from: "Consul Template",
    parameters: ["int", "string"],
    call: ([spaces, value], around) =>
      indented(isKind(spaces, "int") ? Number(spaces.value) : 0, text(value), around),
  },
  join: {
    form: "separator list",
    help: "One text of a list of texts, such as split makes; a list of a secret is none.",
    from: "Consul Template",
    parameters: ["string", "[]string"],
    call([separator, list], around) {
      const items = isKind(list, "list") ? list.items.map(text) : [];
      for (const item of items) around.reserve(item.length + text(separator).length);
      return items.join(text(separator));
    },
  },
  split: ofTexts(
    2,
    {
      form: "separator text",
      help: "A list of the parts; white space at both ends is left out first.",
    },
    ([separator = "", bytes = ""], around) => goStrings(split(separator, bytes, around)),
  ),
  splitToMap: ofTexts(
    3,
    { form: "separator1 separator2 text", help: "A map of parts such as `k=v`." },
    ([outer = "", inner = "", bytes = ""], around) => {
      const pairs = split(outer, bytes, around).flatMap((part) => {
        const at = part.indexOf(inner);
        return at === -1 ? [] : [[part.slice(0, at), part.slice(at + inner.length)] as const];
      });
      return goMap(new Map(pairs), "map[string]string");
    },
  ),
  replaceAll: ofTexts(
    3,
    { form: "old new text", help: "With every `old` replaced." },
    ([from = "", to = "", bytes = ""], around) => replaced(from, to, bytes, around),
  ),
  toUpper: cased("Consul Template", toUpper, UPPER),
  toLower: cased("Consul Template", toLower, LOWER),
  toTitle: ofTexts(
    1,
    { form: "text", help: "With a capital letter at the beginning of each word, of ASCII." },
    ([bytes = ""], around) => title(bytes, around),
  ),
  upper: cased("edgesync", toUpper, UPPER),
  lower: cased("edgesync", toLower, LOWER),
  sprig_upper: cased("Sprig", toUpper, UPPER),
  sprig_lower: cased("Sprig", toLower, LOWER),
  sprig_trim: cased("Sprig", trimSpace, "Without white space at both ends."),
  sprig_b64enc: cased(
    "Sprig",
    (bytes) => Buffer.from(bytes, "latin1").toString("base64"),
    "Base64 with padding.",
  ),
  sprig_quote: {
    form: "value…",
    help: "In quotes, as Go writes texts; what is missing is left out.",
    from: "Sprig",
    parameters: [],
    more: "any",
    call(args, around) {
      const given = args.filter((value) => value !== null && value !== undefined);
      return given.map((value) => quote(plain(value, around))).join(" ");
    },
  },
  default: otherwise("edgesync"),
  sprig_default: otherwise("Sprig"),
  contains: {
    form: "value in",
    help: "Whether a list has this element, or a text this part.",
    from: "Consul Template",
    parameters: ["any", "any"],
    call: ([value, list], around) => isIn(list, value, around),
  },
  in: {
    form: "in value",
    help: "As contains, with its arguments the other way round.",
    from: "Consul Template",
    parameters: ["any", "any"],
    call: ([list, value], around) => isIn(list, value, around),
  },
  containsAll: contains("Whether every element of the list is in the other.", false, false),
  containsAny: contains("Whether some element of the list is in the other.", true, true),
  containsNone: contains("Whether no element of the list is in the other.", true, false),
  containsNotAll: contains("Whether some element of the list is not in the other.", false, true),
  parseBool: ofTexts(
    1,
    { form: "text", help: "true or false; nothing is false." },
    ([bytes = ""], around) => bool(bytes, around),
  ),
  parseInt: ofTexts(
    1,
    { form: "text", help: "A whole number of 64 bits; nothing is 0." },
    ([bytes = ""], around) => whole(bytes, "int64", around),
  ),
  parseUint: ofTexts(
    1,
    { form: "text", help: "As parseInt, without a sign." },
    ([bytes = ""], around) => whole(bytes, "uint64", around),
  ),
  parseFloat: ofTexts(
    1,
    { form: "text", help: "A decimal number; nothing is 0." },
    ([bytes = ""], around) => float(bytes, around),
  ),
  loop: {
    form: "[from] to",
    help: "The numbers from 0, or the first, to before the last, for range.",
    from: "Consul Template",
    parameters: [],
    more: "any",
    call(args, around) {
      if (args.length < 1 || args.length > 2) return around.fail("loop takes one or two numbers");
      const [begin, end] = (args.length === 1 ? [goInt(0), args[0]] : args).map((value) => {
        if (isKind(value, "int")) return value.value;
        const digits = isKind(value, "number") ? value.text : value;
        const read = typeof digits === "string" ? whole(digits, "int64", around) : undefined;
        return isKind(read, "int")
          ? read.value
          : around.fail(`expected a whole number; got ${typeOf(value)}`);
      });
      return { kind: "channel", next: begin ?? 0n, end: end ?? 0n };
    },
  },
  sha256Hex: ofTexts(1, { form: "text", help: "SHA-256 in hexadecimal digits." }, ([bytes = ""]) =>
    createHash("sha256").update(bytes, "latin1").digest("hex"),
  ),
  md5sum: ofTexts(1, { form: "text", help: "MD5 in hexadecimal digits." }, ([bytes = ""]) =>
    createHash("md5").update(bytes, "latin1").digest("hex"),
  ),
  hmacSHA256Hex: ofTexts(
    2,
    { form: "message key", help: "HMAC with SHA-256 in hexadecimal digits." },
    ([message = "", key = ""]) =>
      createHmac("sha256", Buffer.from(key, "latin1")).update(message, "latin1").digest("hex"),
  ),
};
