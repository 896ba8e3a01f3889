/** One value for one verb of printf, as Go's fmt prints it. */
import { unreachable } from "../errors.ts";
import { formatFloat } from "./decimal.ts";
import { canBackquote, quote, quoteRune } from "./quote.ts";
import { RUNE_ERROR, encodeRune, isPrint, runeCount, runesOf } from "./runes.ts";
import { stringKind, typeOf } from "./values.ts";
import type { GoInt, GoStruct, GoValue } from "./values.ts";

export interface Flags {
  sharp: boolean;
  zero: boolean;
  plus: boolean;
  minus: boolean;
  space: boolean;
  /** `%#v`: as Go's source has it. */
  sharpV: boolean;
  /** `%+v`: with the names of fields. */
  plusV: boolean;
  width: number | undefined;
  precision: number | undefined;
}

export function plainFlags(): Flags {
  return {
    sharp: false,
    zero: false,
    plus: false,
    minus: false,
    space: false,
    sharpV: false,
    plusV: false,
    width: undefined,
    precision: undefined,
  };
}

/** Collects what is printed. Both end in an error of the template, at the place where it prints. */
export interface Sink {
  /** Counts bytes before they are made. @throws EdgeSyncError when there were too many */
  reserve(bytes: number): void;
  fail(message: string): never;
}

const UNADDRESSED = "what is printed here would be an address in memory, another each time";

function padding(flags: Flags, count: number, sink: Sink): string {
  if (count <= 0) return "";
  sink.reserve(count);
  return (flags.zero && !flags.minus ? "0" : " ").repeat(count);
}

export function pad(text: string, flags: Flags, sink: Sink): string {
  sink.reserve(text.length);
  const { width } = flags;
  if (width === undefined || width === 0) return text;
  const fill = padding(flags, width - runeCount(text), sink);
  return flags.minus ? text + fill : fill + text;
}

export function formatArgument(value: GoValue, verb: string, flags: Flags, sink: Sink): string {
  if (value === undefined || value === null)
    return verb === "T" || verb === "v"
      ? pad("<nil>", flags, sink)
      : badVerb(null, verb, flags, sink);
  if (verb === "T") return textVerb(typeOf(value), "s", flags, sink);
  if (verb === "p") return sink.fail(UNADDRESSED);
  if (verb === "w") return badVerb(value, verb, flags, sink);
  return format(value, verb, flags, sink, 0);
}

/** As print has it: a text alone as it is, everything else as `%v`. */
export function plain(value: GoValue, sink: Sink): string {
  return formatArgument(value, "v", plainFlags(), sink);
}

function badVerb(value: GoValue, verb: string, flags: Flags, sink: Sink): string {
  if (value === null || value === undefined) return `%!${verb}(<nil>)`;
  return `%!${verb}(${typeOf(value)}=${format(value, "v", flags, sink, 0)})`;
}

function format(value: GoValue, verb: string, flags: Flags, sink: Sink, depth: number): string {
  sink.reserve(1);
  if (value === undefined || value === null) return flags.sharpV ? "interface {}(nil)" : "<nil>";
  if (typeof value === "boolean")
    return verb === "t" || verb === "v"
      ? pad(String(value), flags, sink)
      : badVerb(value, verb, flags, sink);
  if (typeof value === "number") return floatVerb(value, verb, flags, sink);
  const text = stringKind(value);
  if (text !== undefined)
    return "vsxXq".includes(verb)
      ? textVerb(text, verb === "v" && flags.sharpV ? "q" : verb, flags, sink)
      : badVerb(value, verb, flags, sink);
  if (typeof value === "string") return value;
  switch (value.kind) {
    case "int":
      return intVerb(value, verb, flags, sink);
    case "list": {
      if (flags.sharpV && value.isNil === true) return `${value.type}(nil)`;
      const items = value.items.map((item) => format(item, verb, flags, sink, depth + 1));
      return flags.sharpV ? `${value.type}{${items.join(", ")}}` : `[${items.join(" ")}]`;
    }
    case "map": {
      if (flags.sharpV && value.isNil === true) return `${value.type}(nil)`;
      const items = [...value.entries].map(
        ([key, item]) =>
          `${format(key, verb, flags, sink, depth + 1)}:${format(item, verb, flags, sink, depth + 1)}`,
      );
      return flags.sharpV ? `${value.type}{${items.join(", ")}}` : `map[${items.join(" ")}]`;
    }
    case "struct":
      return structVerb(value, verb, flags, sink, depth);
    case "nil":
      if (verb === "v") return flags.sharpV ? `(${value.type})(nil)` : pad("<nil>", flags, sink);
      return badVerb(value, verb, flags, sink);
    case "channel":
      return sink.fail(UNADDRESSED);
    case "number":
      return value.text;
    default:
      return unreachable(value);
  }
}

function structVerb(
  value: GoStruct,
  verb: string,
  flags: Flags,
  sink: Sink,
  depth: number,
): string {
  if (value.isPointer && depth > 0) return sink.fail(UNADDRESSED);
  const fields = value.fields.map(([name, field]) => {
    const text = format(field, verb, flags, sink, depth + 1);
    return flags.plusV || flags.sharpV ? `${name}:${text}` : text;
  });
  const inner = `{${fields.join(flags.sharpV ? ", " : " ")}}`;
  return `${value.isPointer ? "&" : ""}${flags.sharpV ? value.type : ""}${inner}`;
}

function truncated(text: string, { precision }: Flags): string {
  if (precision === undefined) return text;
  let at = 0;
  let count = 0;
  for (const { size } of runesOf(text)) {
    if (++count > precision) return text.slice(0, at);
    at += size;
  }
  return text;
}

function textVerb(text: string, verb: string, flags: Flags, sink: Sink): string {
  if (verb === "x" || verb === "X") return hexText(text, verb, flags, sink);
  const cut = truncated(text, flags);
  if (verb !== "q") return pad(cut, flags, sink);
  if (flags.sharp && canBackquote(cut)) return pad(`\`${cut}\``, flags, sink);
  sink.reserve(cut.length);
  return pad(quote(cut, flags.plus), flags, sink);
}

function hexText(text: string, verb: string, flags: Flags, sink: Sink): string {
  const cut = text.slice(0, flags.precision ?? text.length);
  if (cut === "") return padding(flags, flags.width ?? 0, sink);
  sink.reserve(cut.length * 5);
  const pairs = Array.from(cut, (char) => char.charCodeAt(0).toString(16).padStart(2, "0"));
  const joined = pairs.join(flags.space ? (flags.sharp ? " 0x" : " ") : "");
  const lower = (flags.sharp ? "0x" : "") + joined;
  const made = verb === "X" ? lower.toUpperCase() : lower;
  const counted = 2 * cut.length + hexExtras(cut.length, flags);
  const fill = padding(flags, (flags.width ?? 0) - counted, sink);
  return flags.minus ? made + fill : fill + made;
}

function hexExtras(length: number, { space, sharp }: Flags): number {
  if (!space) return sharp ? 2 : 0;
  return (sharp ? 2 * length : 0) + length - 1;
}

const BASES: Readonly<Record<string, number>> = { v: 10, d: 10, b: 2, o: 8, O: 8, x: 16, X: 16 };

function intVerb(int: GoInt, verb: string, flags: Flags, sink: Sink): string {
  const { value, type } = int;
  const isUnsigned = type === "uint8" || type === "uint64";
  const rune = value > 0x10_ffffn || value < 0n ? RUNE_ERROR : Number(value);
  if (verb === "c") return pad(encodeRune(rune), flags, sink);
  if (verb === "q") return pad(quoteRune(rune, flags.plus), flags, sink);
  if (verb === "U") return unicode(BigInt.asUintN(64, value), flags, sink);
  if (verb === "v" && flags.sharpV && isUnsigned)
    return digitsOf(value, 16, "v", { ...flags, sharp: true }, sink);
  const base = BASES[verb];
  return base === undefined
    ? badVerb(int, verb, flags, sink)
    : digitsOf(value, base, verb, flags, sink);
}

function digitsOf(value: bigint, base: number, verb: string, flags: Flags, sink: Sink): string {
  const negative = value < 0n;
  const unpadded = { ...flags, zero: false };
  let precision = flags.precision ?? 0;
  if (flags.precision === 0 && value === 0n) return padding(unpadded, flags.width ?? 0, sink);
  if (flags.precision === undefined && flags.zero && !flags.minus && flags.width !== undefined)
    precision = flags.width - (negative || flags.plus || flags.space ? 1 : 0);
  sink.reserve(precision);
  let digits = (negative ? -value : value).toString(base);
  if (verb === "X") digits = digits.toUpperCase();
  digits = digits.padStart(precision, "0");
  if (flags.sharp) {
    if (base === 2) digits = `0b${digits}`;
    if (base === 8 && !digits.startsWith("0")) digits = `0${digits}`;
    if (base === 16) digits = `0${verb === "X" ? "X" : "x"}${digits}`;
  }
  if (verb === "O") digits = `0o${digits}`;
  return pad((negative ? "-" : flags.plus ? "+" : flags.space ? " " : "") + digits, unpadded, sink);
}

function unicode(value: bigint, flags: Flags, sink: Sink): string {
  const precision = Math.max(flags.precision ?? 4, 4);
  sink.reserve(precision);
  const shown =
    flags.sharp && value <= 0x10_ffffn && isPrint(Number(value))
      ? ` '${encodeRune(Number(value))}'`
      : "";
  const digits = value.toString(16).toUpperCase().padStart(precision, "0");
  return pad(`U+${digits}${shown}`, { ...flags, zero: false }, sink);
}

function floatVerb(value: number, verb: string, flags: Flags, sink: Sink): string {
  if ("bxX".includes(verb)) return sink.fail(`printf %${verb} of a float is not supported`);
  if (!"vgGfFeE".includes(verb)) return badVerb(value, verb, flags, sink);
  const shown = verb === "v" ? "g" : verb === "F" ? "f" : verb;
  const otherwise = shown === "g" || shown === "G" ? -1 : 6;
  const precision = flags.precision ?? otherwise;
  sink.reserve(Math.max(precision, 0) + 400);
  const form = shown === "e" || shown === "E" || shown === "f" || shown === "G" ? shown : "g";
  const text = formatFloat(value, { verb: form, precision });
  const hasSign = text.startsWith("-") || text.startsWith("+");
  let sign = text.startsWith("-") ? "-" : "+";
  let digits = hasSign ? text.slice(1) : text;
  if (flags.space && sign === "+" && !flags.plus) sign = " ";
  if (digits === "Inf" || digits === "NaN") {
    const bare = digits === "NaN" && !flags.space && !flags.plus;
    return pad(bare ? digits : sign + digits, { ...flags, zero: false }, sink);
  }
  if (flags.sharp) digits = sharpened(digits, form, precision);
  if (sign === "+" && !flags.plus) return pad(digits, flags, sink);
  if (flags.zero && !flags.minus) {
    const fill = padding(flags, (flags.width ?? 0) - digits.length - 1, sink);
    return sign + fill + digits;
  }
  return pad(sign + digits, flags, sink);
}

/** `%#g`: with a point, and with the zeros that `%g` leaves out. */
function sharpened(digits: string, form: string, precision: number): string {
  const at = digits.search(/[eE]/);
  const tail = at === -1 ? "" : digits.slice(at);
  let head = at === -1 ? digits : digits.slice(0, at);
  let missing = form === "g" || form === "G" ? (precision === -1 ? 6 : precision) : 0;
  missing -= head.replace(".", "").replace(/^0+/, "").length;
  if (!head.includes(".")) {
    if (head === "0") missing--;
    head += ".";
  }
  return head + "0".repeat(Math.max(missing, 0)) + tail;
}
