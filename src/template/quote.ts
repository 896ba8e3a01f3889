/** Texts in quotes, and escaped, as Go writes them. */
import { RUNE_ERROR, encodeRune, isPrint, runesOf } from "./runes.ts";

const SHORT: Readonly<Record<number, string>> = {
  7: "\\a",
  8: "\\b",
  9: "\\t",
  10: "\\n",
  11: "\\v",
  12: "\\f",
  13: "\\r",
};

/** strconv.Quote, or strconv.QuoteToASCII. */
export function quote(bytes: string, ascii = false): string {
  let quoted = '"';
  let at = 0;
  for (const { code, size } of runesOf(bytes)) {
    quoted +=
      code === RUNE_ERROR && size === 1
        ? `\\x${hex(bytes.charCodeAt(at), 2)}`
        : escaped(code, '"', ascii);
    at += size;
  }
  return `${quoted}"`;
}

/** strconv.QuoteRune, or strconv.QuoteRuneToASCII. */
export function quoteRune(code: number, ascii: boolean): string {
  const valid = code >= 0 && code <= 0x10_ffff && (code < 0xd800 || code > 0xdfff);
  return `'${escaped(valid ? code : RUNE_ERROR, "'", ascii)}'`;
}

function escaped(code: number, mark: string, ascii: boolean): string {
  if (code === mark.charCodeAt(0) || code === 0x5c) return `\\${String.fromCharCode(code)}`;
  if ((code < 0x80 || !ascii) && isPrint(code)) return encodeRune(code);
  const short = SHORT[code];
  if (short !== undefined) return short;
  if (code < 0x20 || code === 0x7f) return `\\x${hex(code, 2)}`;
  return code < 0x1_0000 ? `\\u${hex(code, 4)}` : `\\U${hex(code, 8)}`;
}

export function hex(code: number, digits: number): string {
  return code.toString(16).padStart(digits, "0");
}

/** strconv.CanBackquote. */
export function canBackquote(bytes: string): boolean {
  for (const { code, size } of runesOf(bytes)) {
    if (code === RUNE_ERROR && size === 1) return false;
    if (code === 0xfeff || code === 0x60 || code === 0x7f) return false;
    if (code < 0x20 && code !== 9) return false;
  }
  return true;
}

const HTML: Readonly<Record<string, string>> = {
  "\0": "\xef\xbf\xbd",
  '"': "&#34;",
  "'": "&#39;",
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
};

export function escapeHtml(bytes: string): string {
  return bytes.replaceAll(/[\0"'&<>]/g, (char) => HTML[char] ?? char);
}

export function escapeJs(bytes: string): string {
  let text = "";
  let at = 0;
  for (const { code, size } of runesOf(bytes)) {
    const char = bytes.slice(at, at + size);
    at += size;
    if (code < 0x20 || "<>&=".includes(char)) text += `\\u${hex(code, 4).toUpperCase()}`;
    else if ("\\'\"".includes(char)) text += `\\${char}`;
    else text += code < 0x80 || isPrint(code) ? char : `\\u${hex(code, 4).toUpperCase()}`;
  }
  return text;
}

export function escapeQuery(bytes: string): string {
  return bytes.replaceAll(/[^A-Za-z0-9\-_.~]/gs, (char) =>
    char === " " ? "+" : `%${hex(char.charCodeAt(0), 2).toUpperCase()}`,
  );
}
