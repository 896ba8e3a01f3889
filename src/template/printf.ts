/** Go's format strings: what printf, print and println write. */
import { formatArgument, pad, plainFlags } from "./format.ts";
import type { Flags, Sink } from "./format.ts";
import { encodeRune, runeAt } from "./runes.ts";
import { isKind, stringKind, typeOf } from "./values.ts";
import type { GoValue } from "./values.ts";

/** Go's own bound for a width or a precision. */
const MOST = 1_000_000;

/** fmt.Sprint: a space between two of which neither is a text. */
export function sprint(values: readonly GoValue[], sink: Sink): string {
  let text = "";
  let wasText = true;
  for (const [index, value] of values.entries()) {
    const isText = stringKind(value) !== undefined;
    if (index > 0 && !isText && !wasText) text += " ";
    text += formatArgument(value, "v", plainFlags(), sink);
    wasText = isText;
  }
  return text;
}

/** fmt.Sprintln: a space between all. */
export function sprintln(values: readonly GoValue[], sink: Sink): string {
  return `${values.map((value) => formatArgument(value, "v", plainFlags(), sink)).join(" ")}\n`;
}

/** fmt.Sprintf. A verb that does not fit writes `%!verb(type=value)`, as in Go, and is no error. */
export function sprintf(format: string, values: readonly GoValue[], sink: Sink): string {
  let text = "";
  let at = 0;
  let argument = 0;
  let reordered = false;
  let isGood = true;
  /** Whether there may be a `]` ahead: looked for once and not for every `[`. */
  let isClosed = true;

  /** `[n]` behind a `%`: which argument is next. */
  function index(): boolean {
    if (format[at] !== "[") return false;
    reordered = true;
    const close = isClosed ? format.indexOf("]", at + 1) : -1;
    isClosed = close !== -1;
    if (close === -1 || at + 3 > format.length) {
      isGood = false;
      at += 1;
      return false;
    }
    const inner = format.slice(at + 1, close);
    at = close + 1;
    const isNumber = /^[0-9]{1,7}$/.test(inner);
    if (isNumber && Number(inner) >= 1 && Number(inner) <= values.length)
      argument = Number(inner) - 1;
    else isGood = false;
    return isNumber;
  }

  function digits(): number | undefined {
    const begin = at;
    let number = 0;
    for (; at < format.length && isDigit(format.charAt(at)); at++) {
      if (number > MOST) {
        at = format.length;
        return undefined;
      }
      number = number * 10 + Number(format.charAt(at));
    }
    return at === begin ? undefined : number;
  }

  /** Of `*`: the next argument, an int. */
  function star(): number | undefined {
    at++;
    const value = values[argument];
    if (argument >= values.length) return undefined;
    argument++;
    if (!isKind(value, "int") || value.value > MOST || value.value < -MOST) return undefined;
    return Number(value.value);
  }

  function flagsOf(): Flags {
    const flags = plainFlags();
    for (; at < format.length; at++) {
      const char = format.charAt(at);
      if (char === "#") flags.sharp = true;
      else if (char === "0") flags.zero = true;
      else if (char === "+") flags.plus = true;
      else if (char === "-") flags.minus = true;
      else if (char === " ") flags.space = true;
      else break;
    }
    return flags;
  }

  function widths(flags: Flags): void {
    let after = index();
    if (format[at] === "*") {
      const width = star();
      if (width === undefined) text += "%!(BADWIDTH)";
      flags.width = width === undefined ? undefined : Math.abs(width);
      if (width !== undefined && width < 0) [flags.minus, flags.zero] = [true, false];
      after = false;
    } else {
      flags.width = digits();
      if (after && flags.width !== undefined) isGood = false;
    }
    if (format[at] === "." && at + 1 < format.length) {
      at++;
      if (after) isGood = false;
      after = index();
      if (format[at] === "*") {
        const precision = star();
        flags.precision = precision === undefined || precision < 0 ? undefined : precision;
        if (flags.precision === undefined) text += "%!(BADPREC)";
        after = false;
      } else flags.precision = digits() ?? 0;
    }
    if (!after) index();
  }

  while (at < format.length) {
    isGood = true;
    const percent = format.indexOf("%", at);
    text += format.slice(at, percent === -1 ? format.length : percent);
    if (percent === -1) break;
    at = percent + 1;
    const flags = flagsOf();
    widths(flags);
    if (at >= format.length) {
      text += "%!(NOVERB)";
      break;
    }
    const { code, size } = runeAt(format, at);
    const verb = encodeRune(code);
    at += size;
    if (verb === "%") text += "%";
    else if (!isGood) text += `%!${verb}(BADINDEX)`;
    else if (argument >= values.length) text += `%!${verb}(MISSING)`;
    else text += one(values[argument++], verb, flags, sink);
    sink.reserve(1);
  }
  return reordered || argument >= values.length ? text : text + extra(values.slice(argument), sink);
}

function one(value: GoValue, verb: string, flags: Flags, sink: Sink): string {
  if (verb === "v" || verb === "w") {
    [flags.sharpV, flags.sharp] = [flags.sharp, false];
    [flags.plusV, flags.plus] = [flags.plus, false];
  }
  return formatArgument(value, verb, flags, sink);
}

function extra(values: readonly GoValue[], sink: Sink): string {
  const shown = values.map((value) =>
    value === undefined || value === null
      ? pad("<nil>", plainFlags(), sink)
      : `${typeOf(value)}=${formatArgument(value, "v", plainFlags(), sink)}`,
  );
  return `%!(EXTRA ${shown.join(", ")})`;
}

function isDigit(char: string): boolean {
  return char >= "0" && char <= "9";
}
