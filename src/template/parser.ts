/** From tokens to nodes, as Go's text/template/parse does it. */
import { unreachable } from "../errors.ts";
import { fault } from "./fault.ts";
import type { Source } from "./fault.ts";
import { openLexer } from "./lexer.ts";
import type { Token, TokenKind } from "./lexer.ts";
import { MAX_NESTING, MAX_VARIABLES } from "./limits.ts";
import { characterLiteral, numberLiteral, unquote } from "./literals.ts";
import type { BlockNode, Command, Node, Operand, Pipe } from "./nodes.ts";

/** Of a block that ends here; `else` is read, what follows it in the same action is not. */
type End = "end" | "else";

export interface Parsed {
  readonly body: readonly Node[];
  /** Those of `define` and `block`, by name. */
  readonly defined: ReadonlyMap<string, readonly Node[]>;
}

const WORDS: Partial<Record<TokenKind, string>> = {
  assign: "=",
  declare: ":=",
  eof: "the end of the template",
  left: "{{",
  right: "}}",
  open: "(",
  close: ")",
  pipe: "|",
  space: "a space",
  text: "text",
};

/**
 * @param checkFunction throws for the name of a function that there is not
 * @throws EdgeSyncError TEMPLATE_INVALID
 */
export function parse(source: Source, checkFunction: (name: string, at: number) => void): Parsed {
  const lex = openLexer(source);
  /** Read but not used yet, the next one last. */
  const waiting: Token[] = [];
  let variables: string[] = ["$"];
  let ranges = 0;
  let nesting = 0;
  const defined = new Map<string, readonly Node[]>();
  const invoked: { readonly name: string; readonly at: number }[] = [];

  const fail = (message: string, at: number): never => {
    throw fault("TEMPLATE_INVALID", source, at, message);
  };
  const next = (): Token => waiting.pop() ?? lex();
  const back = (token: Token): void => {
    waiting.push(token);
  };
  const peek = (): Token => {
    const token = next();
    back(token);
    return token;
  };
  const nextWord = (): Token => {
    for (;;) {
      const token = next();
      if (token.kind !== "space") return token;
    }
  };
  const peekWord = (): Token => {
    const token = nextWord();
    back(token);
    return token;
  };
  const unexpected = ({ kind, at, text }: Token, expected: string): never =>
    fail(`unexpected ${WORDS[kind] ?? text.slice(0, 40)}; expected ${expected}`, at);
  const expect = (kind: TokenKind, expected: string): Token => {
    const token = nextWord();
    return token.kind === kind ? token : unexpected(token, expected);
  };
  function nested<T>(at: number, make: () => T): T {
    if (++nesting > MAX_NESTING)
      fail(`blocks and parentheses may be nested ${MAX_NESTING} deep`, at);
    const made = make();
    nesting--;
    return made;
  }

  function top(): readonly Node[] {
    const nodes: Node[] = [];
    for (;;) {
      const token = next();
      if (token.kind === "eof") return nodes;
      if (token.kind === "left") {
        const word = nextWord();
        if (word.kind === "define") {
          define();
          continue;
        }
        back(word);
      }
      back(token);
      const node = textOrAction();
      if (typeof node !== "string") nodes.push(node);
      else fail(`unexpected {{${node}}}; no block is open`, token.at);
    }
  }

  /** Templates see no variables of those that use them. */
  function separately(read: () => readonly [readonly Node[], End], at: number): readonly Node[] {
    const [outer, outerRanges] = [variables, ranges];
    [variables, ranges] = [["$"], 0];
    const [nodes, end] = nested(at, read);
    if (end !== "end") fail("unexpected {{else}}; expected {{end}}", at);
    [variables, ranges] = [outer, outerRanges];
    return nodes;
  }

  function define(): void {
    const name = templateName();
    expect("right", "}}");
    add(
      name.text,
      separately(() => list(name.at), name.at),
      name.at,
    );
  }

  function add(name: string, nodes: readonly Node[], at: number): void {
    const old = defined.get(name);
    if (old === undefined || isEmpty(old)) defined.set(name, nodes);
    else if (!isEmpty(nodes)) fail("a template of this name is defined already", at);
  }

  function templateName(): Token {
    const token = nextWord();
    if (token.kind !== "string" && token.kind !== "raw")
      return unexpected(token, 'the name of a template, as "name"');
    return { ...token, text: stringOf(token) };
  }

  function stringOf({ text, at }: Token): string {
    return unquote(text) ?? fail("a text has an escape that Go does not know", at);
  }

  /** To the `end` or `else` of the block that began at `from`. */
  function list(from: number): readonly [readonly Node[], End] {
    const nodes: Node[] = [];
    while (peekWord().kind !== "eof") {
      const node = textOrAction();
      if (typeof node === "string") return [nodes, node];
      nodes.push(node);
    }
    return fail("a block is not closed; expected {{end}}", from);
  }

  function textOrAction(): Node | End {
    const token = nextWord();
    if (token.kind === "text") return { kind: "text", at: token.at, text: token.text };
    return token.kind === "left" ? action() : unexpected(token, "text or {{");
  }

  function action(): Node | End {
    const token = nextWord();
    const { kind, at } = token;
    if (kind === "if" || kind === "with" || kind === "range") return block(kind, at);
    if (kind === "break" || kind === "continue") {
      expect("right", "}}");
      if (ranges === 0) fail(`{{${kind}}} is for within {{range}}`, at);
      return { kind, at };
    }
    if (kind === "end") {
      expect("right", "}}");
      return kind;
    }
    if (kind === "else") {
      const after = peekWord();
      if (after.kind !== "if" && after.kind !== "with") expect("right", "}}");
      return kind;
    }
    if (kind === "template") {
      const name = templateName();
      invoked.push({ name: name.text, at: name.at });
      const closes = peekWord().kind === "right";
      if (closes) nextWord();
      return { kind, at, name: name.text, pipe: closes ? undefined : pipeline("right") };
    }
    if (kind === "block") {
      const name = templateName();
      const pipe = pipeline("right");
      add(
        name.text,
        separately(() => list(at), at),
        name.at,
      );
      return { kind: "template", at, name: name.text, pipe };
    }
    back(token);
    return { kind: "action", at, pipe: pipeline("right") };
  }

  function block(kind: BlockNode["kind"], at: number): BlockNode {
    return nested(at, () => {
      const known = variables.length;
      const pipe = pipeline("right", kind === "range" ? 2 : 1);
      if (kind === "range") ranges++;
      const [body, end] = list(at);
      if (kind === "range") ranges--;
      let otherwise: readonly Node[] | undefined;
      const after = end === "else" ? peek() : undefined;
      if (after !== undefined && after.kind === kind && kind !== "range") {
        next();
        otherwise = [block(kind, after.at)];
      } else if (end === "else") {
        const [nodes, close] = list(at);
        if (close !== "end") fail("a block has a second {{else}}; expected {{end}}", at);
        otherwise = nodes;
      }
      variables.length = known;
      return { kind, at, pipe, body, otherwise };
    });
  }

  /** @param most variables that it may declare */
  function pipeline(end: "right" | "close", most = 1): Pipe {
    const { at } = peekWord();
    const declared: string[] = [];
    let assigns = false;
    for (;;) {
      const variable = peekWord();
      if (variable.kind !== "variable") break;
      next();
      const after = next();
      const word = after.kind === "space" ? nextWord() : after;
      if (word.kind === "assign" || word.kind === "declare" || word.kind === "comma") {
        if (declared.length >= most) fail("too many variables are declared here", variable.at);
        declared.push(variable.text);
        assigns = word.kind === "assign";
        if (word.kind !== "comma") break;
        const { kind } = peekWord();
        if (declared.length >= most || !["variable", "right", "close"].includes(kind))
          fail("too many variables are declared here; only range has two", word.at);
        continue;
      }
      back(word);
      if (after.kind === "space") back(after);
      back(variable);
      break;
    }
    // As in Go, where a variable that is used before it has a value is an error of the rendering.
    variables.push(...declared);
    if (variables.length > MAX_VARIABLES)
      fail(`a template may have ${MAX_VARIABLES} variables at one place`, at);
    const commands: Command[] = [];
    for (;;) {
      const token = nextWord();
      if (token.kind === end) {
        if (commands.length === 0) fail("an action has no value; expected one", token.at);
        return { kind: "pipe", at, variables: declared, assigns, commands };
      }
      back(token);
      const made = command(end);
      if (
        commands.length > 0 &&
        ["bool", "dot", "nil", "number", "string"].includes(made.first.kind)
      )
        fail("what stands behind | must be a function", made.at);
      commands.push(made);
    }
  }

  function command(end: "right" | "close"): Command {
    const { at } = peekWord();
    const operands: Operand[] = [];
    for (;;) {
      peekWord();
      const made = operand();
      if (made !== undefined) operands.push(made);
      const token = next();
      if (token.kind === "space") continue;
      if (token.kind === "right" || token.kind === "close") back(token);
      else if (token.kind !== "pipe")
        unexpected(
          token,
          made === undefined ? "a value" : end === "right" ? "}}, | or a space" : ")",
        );
      const [first, ...rest] = operands;
      if (first === undefined) return unexpected(token, "a value");
      return { at, first, rest };
    }
  }

  function operand(): Operand | undefined {
    const made = term();
    if (made === undefined || peek().kind !== "field") return made;
    const path: string[] = [];
    while (peek().kind === "field") path.push(next().text.slice(1));
    switch (made.kind) {
      case "field":
      case "variable":
        return { ...made, path: [...made.path, ...path] };
      case "bool":
      case "string":
      case "number":
      case "nil":
      case "dot":
        return fail("unexpected . behind a value that has no fields", made.at);
      case "pipe":
      case "function":
      case "chain":
        return { kind: "chain", at: made.at, of: made, path };
      default:
        return unreachable(made);
    }
  }

  function term(): Operand | undefined {
    const token = nextWord();
    const { kind, at, text } = token;
    if (kind === "identifier") {
      checkFunction(text, at);
      return { kind: "function", at, name: text };
    }
    if (kind === "dot" || kind === "nil") return { kind, at };
    if (kind === "variable") {
      if (!variables.includes(text)) fail("this variable is not declared; expected := before", at);
      return { kind, at, name: text, path: [] };
    }
    if (kind === "field") return { kind, at, path: [text.slice(1)] };
    if (kind === "bool") return { kind, at, value: text === "true" };
    if (kind === "number" || kind === "character") {
      const read = kind === "number" ? numberLiteral(text) : characterLiteral(text);
      if (read === undefined) return fail("this is not a number that is supported", at);
      return { kind: "number", at, ...read };
    }
    if (kind === "string" || kind === "raw") return { kind: "string", at, value: stringOf(token) };
    if (kind === "open") return nested(at, () => pipeline("close"));
    back(token);
    return undefined;
  }

  const body = top();
  add("", body, 0);
  for (const { name, at } of invoked)
    if (!defined.has(name)) fail("no template of this name is defined", at);
  return { body, defined };
}

function isEmpty(nodes: readonly Node[]): boolean {
  return nodes.every((node) => node.kind === "text" && /^[ \t\r\n\v\f]*$/.test(node.text));
}
