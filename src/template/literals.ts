/** Texts and numbers as Go writes them. */
import { encodeRune, runeAt } from "./runes.ts";
import { goInt } from "./values.ts";
import type { GoInt } from "./values.ts";

const SIMPLE: Readonly<Record<string, string>> = {
  a: "\x07",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
  "\\": "\\",
};

const ESCAPE =
  /\\(?:([abfnrtv\\'"])|([0-3][0-7]{2})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))/y;

interface Unquoted {
  readonly text: string;
  /** Of an escape of a byte, `\xff`, or of a character. */
  readonly code: number;
  readonly end: number;
}

/** strconv.UnquoteChar; `undefined` for what is no escape of Go. */
function unquoteOne(token: string, at: number, quote: string): Unquoted | undefined {
  if (token[at] !== "\\") {
    const { code, size } = runeAt(token, at);
    return { text: token.slice(at, at + size), code, end: at + size };
  }
  ESCAPE.lastIndex = at;
  const match = ESCAPE.exec(token);
  if (match === null) return undefined;
  const [all, simple, octal, byte, short, long] = match;
  const end = at + all.length;
  if (simple !== undefined) {
    if (simple === "'" || simple === '"')
      return simple === quote ? { text: simple, code: simple.charCodeAt(0), end } : undefined;
    const text = SIMPLE[simple] ?? "";
    return { text, code: text.charCodeAt(0), end };
  }
  const raw = octal === undefined ? byte : octal;
  if (raw !== undefined) {
    const code = Number.parseInt(raw, octal === undefined ? 16 : 8);
    return { text: String.fromCharCode(code), code, end };
  }
  const code = Number.parseInt(short ?? long ?? "", 16);
  if (code > 0x10_ffff || (code >= 0xd800 && code <= 0xdfff)) return undefined;
  return { text: encodeRune(code), code, end };
}

/** A text with its quotes, `"…"` or a raw one; `undefined` when it is none. */
export function unquote(token: string): string | undefined {
  const inner = token.slice(1, -1);
  if (token.startsWith("`")) return inner.replaceAll("\r", "");
  let text = "";
  for (let at = 0; at < inner.length;) {
    const one = unquoteOne(inner, at, '"');
    if (one === undefined) return undefined;
    text += one.text;
    at = one.end;
  }
  return text;
}

export interface NumberLiteral {
  readonly value: GoInt | number;
  readonly int: GoInt | undefined;
}

const INT64 = 1n << 63n;

/** `'x'`: the number of one character. */
export function characterLiteral(token: string): NumberLiteral | undefined {
  const inner = token.slice(1, -1);
  const one = inner === "" || inner === "'" ? undefined : unquoteOne(inner, 0, "'");
  if (one === undefined || one.end !== inner.length) return undefined;
  return { value: goInt(one.code), int: goInt(one.code) };
}

const INTEGER =
  /^([+-]?)(?:(0[xX](?:_?[0-9a-fA-F])+)|(0[bB](?:_?[01])+)|0[oO]((?:_?[0-7])+)|(0(?:_?[0-7])*)|([1-9](?:_?[0-9])*))$/;
const FLOAT = /^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$/;

/** `undefined` for what is no number of Go, or no int and no float64. */
export function numberLiteral(token: string): NumberLiteral | undefined {
  const match = INTEGER.exec(token);
  if (match !== null) {
    const [, sign, hex, binary, octal, old, decimal] = match;
    const digits = (hex ?? binary ?? decimal ?? `0o${octal ?? old?.slice(1) ?? ""}`).replaceAll(
      "_",
      "",
    );
    const size = BigInt(digits === "0o" ? "0" : digits);
    const value = sign === "-" ? -size : size;
    if (value >= INT64 || value < -INT64) return undefined;
    return { value: goInt(value), int: goInt(value) };
  }
  if (!FLOAT.test(token) || !/[.eE]/.test(token)) return undefined;
  const value = Number(token);
  if (!Number.isFinite(value)) return undefined;
  const whole = Number.isInteger(value) && value >= -(2 ** 63) && value < 2 ** 63;
  return { value, int: whole ? goInt(BigInt(value)) : undefined };
}
