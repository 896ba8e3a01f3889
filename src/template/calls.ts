/** What a template asks Vault for: `secret` and `pkiCert` with their arguments. */
import type { Node, Operand, Pipe } from "./nodes.ts";
import type { Parsed } from "./parser.ts";
import { isSpace, textOf, trimRunes } from "./runes.ts";

/**
 * One request. Its parameters and its key may hold secrets, and so may a path
 * that is not among the template's own calls: they belong into no log and no status.
 */
export interface TemplateCall {
  /** `read`: `secret "path"`; `write`: `secret "path" "k=v"…` (a POST with the parameters); `pki`: `pkiCert "path" "k=v"…`, a POST too. */
  readonly kind: "read" | "write" | "pki";
  /** Without slashes at its ends and without a query. As written: whether `data/` goes into a path of KV v2 is for whoever asks Vault. */
  readonly path: string;
  /** Of `?version=2` behind a path, by name. */
  readonly query: Readonly<Record<string, string>>;
  /** Of `k=v` arguments, by name. */
  readonly parameters: Readonly<Record<string, string>>;
  /** The same for equal calls, different for others. */
  readonly key: string;
}

/** Which function it is: with parameters `secret` writes. */
export type CallKind = "secret" | "pki";

/** @returns what is wrong, for what is no call; without what the arguments hold */
export function parseCall(kind: CallKind, words: readonly string[]): TemplateCall | string {
  const [first = "", ...rest] = words;
  const trimmed = trimRunes(trimSpace(first), (code) => code === 0x2f);
  if (trimmed === "") return "expected a path of Vault";
  const parameters = new Map<string, string>();
  for (const word of rest) {
    if (word === "") continue;
    const at = word.indexOf("=");
    if (at === -1) return 'expected parameters as "k=v"';
    parameters.set(textOf(trimSpace(word.slice(0, at))), textOf(trimSpace(word.slice(at + 1))));
  }
  if (kind === "secret" && rest.length > 0) return callOf("write", textOf(trimmed), [], parameters);
  const address = addressOf(textOf(trimmed));
  if (address === undefined) return "expected a path of Vault, perhaps with a query";
  return kind === "pki"
    ? callOf("pki", address.path, [], parameters)
    : callOf("read", address.path, address.query, parameters);
}

function trimSpace(bytes: string): string {
  return trimRunes(bytes, isSpace);
}

function callOf(
  kind: TemplateCall["kind"],
  path: string,
  query: Iterable<readonly [string, string]>,
  parameters: Iterable<readonly [string, string]>,
): TemplateCall {
  const sorted = (
    pairs: Iterable<readonly [string, string]>,
  ): readonly (readonly [string, string])[] =>
    [...pairs].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  const [queried, given] = [sorted(query), sorted(parameters)];
  return {
    kind,
    path,
    query: Object.fromEntries(queried),
    parameters: Object.fromEntries(given),
    key: JSON.stringify([kind, path, queried, given]),
  };
}

interface Address {
  readonly path: string;
  readonly query: readonly (readonly [string, string])[];
}

/** As Go's url.Parse takes it apart; `undefined` for what it refuses. */
function addressOf(text: string): Address | undefined {
  const [before = ""] = text.split("#");
  const at = before.indexOf("?");
  const path = at === -1 ? before : before.slice(0, at);
  if (/^[^/]*:/.test(path) || /[\0-\x20\x7f]/.test(before)) return undefined;
  try {
    const query = at === -1 ? [] : new URLSearchParams(before.slice(at + 1)).entries();
    return { path: decodeURIComponent(path), query: [...query] };
  } catch {
    // A % that begins no escape.
    return undefined;
  }
}

/** Those whose arguments are all written in the template, in the order of the text, each once. */
export function staticCalls({ body, defined }: Parsed): readonly TemplateCall[] {
  const calls = new Map<string, TemplateCall>();

  function ofNodes(nodes: readonly Node[]): void {
    for (const node of nodes) {
      if ("pipe" in node && node.pipe !== undefined) ofPipe(node.pipe);
      if (!("body" in node)) continue;
      ofNodes(node.body);
      ofNodes(node.otherwise ?? []);
    }
  }

  function ofPipe({ commands }: Pipe): void {
    for (const [index, { first, rest }] of commands.entries()) {
      ofOperands([first, ...rest]);
      if (index > 0 || first.kind !== "function") continue;
      const words = rest.flatMap((one) => (one.kind === "string" ? [one.value] : []));
      const kind =
        first.name === "secret" ? "secret" : first.name === "pkiCert" ? "pki" : undefined;
      if (kind === undefined || rest.length === 0 || words.length < rest.length) continue;
      const call = parseCall(kind, words);
      if (typeof call !== "string") calls.set(call.key, call);
    }
  }

  function ofOperands(operands: readonly Operand[]): void {
    for (const operand of operands)
      if (operand.kind === "pipe") ofPipe(operand);
      else if (operand.kind === "chain") ofOperands([operand.of]);
  }

  ofNodes(body);
  for (const nodes of defined.values()) if (nodes !== body) ofNodes(nodes);
  return [...calls.values()];
}
