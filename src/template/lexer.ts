/** From the text of a template to its tokens, as Go's text/template/parse cuts it. */
import { fault } from "./fault.ts";
import type { Source } from "./fault.ts";
import { isWordRune, runeAt } from "./runes.ts";

export const KEYWORDS = [
  "block",
  "break",
  "continue",
  "define",
  "else",
  "end",
  "if",
  "nil",
  "range",
  "template",
  "with",
] as const;
export type Keyword = (typeof KEYWORDS)[number];

export type TokenKind =
  | Keyword
  | "assign"
  | "bool"
  | "char"
  | "character"
  | "comma"
  | "declare"
  | "dot"
  | "eof"
  | "field"
  | "identifier"
  | "left"
  | "number"
  | "open"
  | "close"
  | "pipe"
  | "raw"
  | "right"
  | "space"
  | "string"
  | "text"
  | "variable";

export interface Token {
  readonly kind: TokenKind;
  /** Byte in the template. */
  readonly at: number;
  readonly text: string;
}

const LEFT = "{{";
const RIGHT = "}}";
const SPACES = /[ \t\r\n]*/y;
const NUMBER =
  /[+-]?(?:0[xX][0-9a-fA-F_]*(?:\.[0-9a-fA-F_]*)?(?:[pP][+-]?[0-9_]*)?|0[oO][0-7_]*(?:\.[0-7_]*)?|0[bB][01_]*(?:\.[01_]*)?|[0-9_]*(?:\.[0-9_]*)?(?:[eE][+-]?[0-9_]*)?)i?/y;

/** Gives the next token at each call, and `eof` for ever at the end. @throws EdgeSyncError TEMPLATE_INVALID */
export function openLexer(source: Source): () => Token {
  const { text } = source;
  let at = 0;
  let inside = false;
  /** Bytes where the open parentheses, and the action, began. */
  const parens: number[] = [];
  let action = 0;

  const fail = (message: string, offset = at): never => {
    throw fault("TEMPLATE_INVALID", source, offset, message);
  };
  const token = (kind: TokenKind, end: number): Token => {
    const made = { kind, at, text: text.slice(at, end) };
    at = end;
    return made;
  };
  const matched = (pattern: RegExp, from: number): number => {
    pattern.lastIndex = from;
    return from + (pattern.exec(text)?.[0].length ?? 0);
  };
  const isSpaceAt = (offset: number): boolean => " \t\r\n".includes(text.charAt(offset) || "x");
  const trimsRight = (offset: number): boolean =>
    isSpaceAt(offset) && text.startsWith(`-${RIGHT}`, offset + 1);

  function outside(): Token {
    for (;;) {
      const begin = text.indexOf(LEFT, at);
      if (begin === -1) return at < text.length ? token("text", text.length) : token("eof", at);
      const trims = text[begin + 2] === "-" && isSpaceAt(begin + 3);
      let end = begin;
      if (trims) while (end > at && isSpaceAt(end - 1)) end--;
      const made = token("text", end);
      at = begin;
      if (made.text !== "") return made;
      const after = begin + LEFT.length + (trims ? 2 : 0);
      if (!text.startsWith("/*", after)) {
        action = begin;
        inside = true;
        const left = token("left", begin + LEFT.length);
        at = after;
        return left;
      }
      comment(after);
    }
  }

  function comment(begin: number): void {
    const close = text.indexOf("*/", begin + 2);
    if (close === -1) fail("a comment is not closed; expected */}}");
    const end = close + 2;
    if (text.startsWith(RIGHT, end)) at = end + RIGHT.length;
    else if (trimsRight(end)) at = matched(SPACES, end + 2 + RIGHT.length);
    else fail("a comment must be all of its action; expected }} behind */", end);
  }

  function right(trims: boolean): Token {
    if (parens.length > 0) fail("a parenthesis is not closed; expected )", parens.at(-1));
    inside = false;
    if (trims) at += 2;
    const made = token("right", at + RIGHT.length);
    if (trims) at = matched(SPACES, at);
    return made;
  }

  function endOfWord(from: number): number {
    let end = from;
    while (end < text.length) {
      const { code, size } = runeAt(text, end);
      if (!isWordRune(code)) break;
      end += size;
    }
    const next = text.charAt(end);
    if (next !== "" && !" \t\r\n.,|:)(".includes(next) && !text.startsWith(RIGHT, end))
      fail("unexpected character behind a name; expected a space", end);
    return end;
  }

  function quoted(kind: TokenKind, quote: string): Token {
    for (let end = at + 1; end < text.length; end++) {
      const char = text.charAt(end);
      if (char === quote) return token(kind, end + 1);
      if (quote !== "`" && char === "\\") end++;
      if (quote !== "`" && text.charAt(end) === "\n") break;
    }
    return fail(`a text is not closed; expected ${quote}`);
  }

  function word(): Token {
    const made = token("identifier", endOfWord(at));
    const keyword = KEYWORDS.find((name) => name === made.text);
    if (keyword !== undefined) return { ...made, kind: keyword };
    return made.text === "true" || made.text === "false" ? { ...made, kind: "bool" } : made;
  }

  function number(): Token {
    const end = matched(NUMBER, at);
    if (end < text.length && isWordRune(runeAt(text, end).code)) fail("this is not a number");
    if ("+-".includes(text.charAt(end) || "x") || text[end - 1] === "i")
      fail("complex numbers are not supported");
    return token("number", end);
  }

  function insideAction(): Token {
    if (text.startsWith(RIGHT, at)) return right(false);
    if (trimsRight(at)) return right(true);
    const char = text.charAt(at);
    switch (char) {
      case "":
        return fail("an action is not closed; expected }}", action);
      case " ":
      case "\t":
      case "\r":
      case "\n": {
        const end = matched(SPACES, at);
        // The last space belongs to a trim marker.
        return token("space", trimsRight(end - 1) ? end - 1 : end);
      }
      case "=":
        return token("assign", at + 1);
      case ":":
        return text[at + 1] === "=" ? token("declare", at + 2) : fail("expected :=");
      case "|":
        return token("pipe", at + 1);
      case ",":
        return token("comma", at + 1);
      case '"':
        return quoted("string", char);
      case "`":
        return quoted("raw", char);
      case "'":
        return quoted("character", char);
      case "$":
        return token("variable", endOfWord(at + 1));
      case "(":
        parens.push(at);
        return token("open", at + 1);
      case ")":
        if (parens.pop() === undefined) fail("unexpected )");
        return token("close", at + 1);
    }
    if (char === "." && !isDigit(text.charAt(at + 1))) {
      const end = endOfWord(at + 1);
      return token(end === at + 1 ? "dot" : "field", end);
    }
    if (char === "." || char === "+" || char === "-" || isDigit(char)) return number();
    const { code } = runeAt(text, at);
    if (isWordRune(code)) return word();
    return code > 0x20 && code < 0x7f
      ? token("char", at + 1)
      : fail("unexpected character in an action");
  }

  return () => (inside ? insideAction() : outside());
}

function isDigit(char: string): boolean {
  return char >= "0" && char <= "9" && char.length === 1;
}
