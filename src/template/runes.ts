/**
 * Go's texts are bytes, most often but not always UTF-8 (think of a key store that `base64Decode` makes). Here they are strings whose
 * every character is one byte: lengths, indexes and comparisons are then Go's. What knows of characters asks for runes.
 */

/** Go's stand-in for what is not UTF-8. */
export const RUNE_ERROR = 0xfffd;

export interface Rune {
  readonly code: number;
  /** Bytes: 1 with `RUNE_ERROR` for a byte that belongs to no character. */
  readonly size: number;
}

export function bytesOf(text: string): string {
  return Buffer.from(text, "utf8").toString("latin1");
}

/** What is not UTF-8 becomes U+FFFD byte by byte, as in Go. */
export function textOf(bytes: string): string {
  if (isAscii(bytes)) return bytes;
  let text = "";
  for (const { code } of runesOf(bytes)) text += String.fromCodePoint(code);
  return text;
}

export function isAscii(bytes: string): boolean {
  for (let at = 0; at < bytes.length; at++) if (bytes.charCodeAt(at) >= 0x80) return false;
  return true;
}

/** Not beyond the end. */
export function runeAt(bytes: string, at: number): Rune {
  const first = bytes.charCodeAt(at);
  if (first < 0x80) return { code: first, size: 1 };
  const size = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  const invalid = { code: RUNE_ERROR, size: 1 };
  if (first < 0xc2 || first > 0xf4 || at + size > bytes.length) return invalid;
  let code = first & (0x7f >> size);
  for (let more = 1; more < size; more++) {
    const byte = bytes.charCodeAt(at + more);
    if ((byte & 0xc0) !== 0x80) return invalid;
    code = (code << 6) | (byte & 0x3f);
  }
  const least = size === 2 ? 0x80 : size === 3 ? 0x800 : 0x1_0000;
  return code < least || code > 0x10_ffff || !isScalar(code) ? invalid : { code, size };
}

export function* runesOf(bytes: string): Generator<Rune, void> {
  for (let at = 0; at < bytes.length;) {
    const rune = runeAt(bytes, at);
    yield rune;
    at += rune.size;
  }
}

export function runeCount(bytes: string): number {
  if (isAscii(bytes)) return bytes.length;
  let count = 0;
  for (const _rune of runesOf(bytes)) count++;
  return count;
}

/** UTF-8; of what is no character, that of U+FFFD. */
export function encodeRune(code: number): string {
  if (code >= 0 && code < 0x80) return String.fromCharCode(code);
  return bytesOf(
    String.fromCodePoint(isScalar(code) && code >= 0 && code <= 0x10_ffff ? code : RUNE_ERROR),
  );
}

function isScalar(code: number): boolean {
  return code < 0xd800 || code > 0xdfff;
}

/** unicode.IsPrint: letters, marks, numbers, punctuation, symbols, and of the spaces only the one of ASCII. */
export function isPrint(code: number): boolean {
  return /^[\p{L}\p{M}\p{N}\p{P}\p{S} ]$/u.test(String.fromCodePoint(code));
}

/** Of a name in an action. */
export function isWordRune(code: number): boolean {
  return code === 0x5f || /^[\p{L}\p{Nd}]$/u.test(String.fromCodePoint(code));
}

/** unicode.IsSpace. */
export function isSpace(code: number): boolean {
  return (
    (code >= 0x09 && code <= 0x0d) ||
    (code >= 0x2000 && code <= 0x200a) ||
    [0x20, 0x85, 0xa0, 0x1680, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000].includes(code)
  );
}

/** Without the runes at both ends that are in the set. */
export function trimRunes(bytes: string, isIn: (code: number) => boolean): string {
  let begin = 0;
  let end = 0;
  let at = 0;
  let leading = true;
  for (const { code, size } of runesOf(bytes)) {
    const inside = isIn(code);
    if (leading && inside) begin = at + size;
    else leading = false;
    at += size;
    if (!inside) end = at;
  }
  return leading ? "" : bytes.slice(begin, end);
}

/** Where a rune's simple mapping is, and JavaScript has only the full one, of two letters: Greek with iota subscript. */
const IOTA = [
  [0x1f80, 0x1f87, 8],
  [0x1f90, 0x1f97, 8],
  [0x1fa0, 0x1fa7, 8],
  [0x1fb3, 0x1fb3, 9],
  [0x1fc3, 0x1fc3, 9],
  [0x1ff3, 0x1ff3, 9],
] as const;

/** strings.ToUpper: rune by rune, so that a text keeps its number of runes (`ß` stays). */
export function toUpper(bytes: string): string {
  return mapRunes(bytes, (code, letter) => {
    const row = IOTA.find(([from, to]) => code >= from && code <= to);
    return row === undefined ? single(letter.toUpperCase(), code) : code + row[2];
  });
}

/** strings.ToLower. */
export function toLower(bytes: string): string {
  return mapRunes(bytes, (code, letter) =>
    code === 0x130 ? 0x69 : single(letter.toLowerCase(), code),
  );
}

function mapRunes(bytes: string, to: (code: number, letter: string) => number): string {
  let mapped = "";
  for (const { code } of runesOf(bytes)) mapped += encodeRune(to(code, String.fromCodePoint(code)));
  return mapped;
}

function single(letters: string, otherwise: number): number {
  const code = letters.codePointAt(0) ?? otherwise;
  return String.fromCodePoint(code).length === letters.length ? code : otherwise;
}
