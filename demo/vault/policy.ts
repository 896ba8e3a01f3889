/** Vault's access policies: capabilities by path, with `*` at the end for a prefix and `+` for one segment. */
import { invalid, isRecord } from "./exchange.ts";

export type Capability = "create" | "read" | "update" | "delete" | "list" | "sudo" | "deny";

const CAPABILITIES: ReadonlySet<string> = new Set<Capability>([
  "create",
  "read",
  "update",
  "delete",
  "list",
  "sudo",
  "deny",
]);

function isCapability(word: unknown): word is Capability {
  return typeof word === "string" && CAPABILITIES.has(word);
}

export interface Rule {
  readonly path: string;
  readonly capabilities: readonly Capability[];
}

export type Policy = readonly Rule[];

/** What every token may do unless it was made without; the parts of Vault's own default policy that concern a client. */
export const DEFAULT_POLICY: Policy = [
  { path: "auth/token/lookup-self", capabilities: ["read"] },
  { path: "auth/token/renew-self", capabilities: ["update"] },
  { path: "auth/token/revoke-self", capabilities: ["update"] },
  { path: "sys/leases/renew", capabilities: ["update"] },
  { path: "sys/leases/lookup", capabilities: ["update"] },
];

/** @throws Refusal 400 when the text is neither the JSON form nor the usual subset of HCL */
export function parsePolicy(source: string): Policy {
  const rules = source.trimStart().startsWith("{") ? fromJson(source) : fromHcl(source);
  return rules.map(({ path, capabilities }) => {
    if (!capabilities.every(isCapability)) throw invalid(`path "${path}": invalid capability`);
    return { path, capabilities: capabilities.filter(isCapability) };
  });
}

interface RawRule {
  readonly path: string;
  readonly capabilities: readonly unknown[];
}

function fromJson(source: string): readonly RawRule[] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(source);
  } catch {
    throw invalid("failed to parse policy");
  }
  const paths = isRecord(parsed) && isRecord(parsed["path"]) ? parsed["path"] : {};
  return Object.entries(paths).map(([path, rule]) => {
    const capabilities = isRecord(rule) ? rule["capabilities"] : undefined;
    return { path, capabilities: Array.isArray(capabilities) ? capabilities : [] };
  });
}

const STANZA = /\s*path\s+"([^"\n]+)"\s*\{\s*capabilities\s*=\s*\[([^\]]*)\]\s*\}/y;

function fromHcl(source: string): readonly RawRule[] {
  const bare = source.replaceAll(/^\s*(#|\/\/).*$/gm, "");
  const rules: RawRule[] = [];
  STANZA.lastIndex = 0;
  let end = 0;
  for (let match = STANZA.exec(bare); match !== null; match = STANZA.exec(bare)) {
    const words = (match[2] ?? "").split(",").map((word) => word.trim());
    rules.push({
      path: match[1] ?? "",
      capabilities: words.filter((word) => word !== "").map((word) => word.replaceAll('"', "")),
    });
    end = STANZA.lastIndex;
  }
  if (bare.slice(end).trim() !== "") throw invalid("failed to parse policy");
  return rules;
}

/** Whether any of `wanted` is allowed at `path`: of the rules that match, those of the most specific pattern count. */
export function allows(
  policies: readonly Policy[],
  path: string,
  wanted: readonly Capability[],
): boolean {
  const matching = policies.flat().filter((rule) => matches(rule.path, path));
  const best = matching
    .map((rule) => rule.path)
    .toSorted(bySpecificity)
    .at(-1);
  const granted = matching.filter((rule) => rule.path === best).flatMap((r) => r.capabilities);
  return !granted.includes("deny") && wanted.some((capability) => granted.includes(capability));
}

function matches(pattern: string, path: string): boolean {
  const isPrefix = pattern.endsWith("*");
  const wanted = (isPrefix ? pattern.slice(0, -1) : pattern).split("/");
  const given = path.split("/");
  if (isPrefix ? given.length < wanted.length : given.length !== wanted.length) return false;
  return wanted.every((segment, index) => {
    if (segment === "+") return given[index] !== "";
    const isLast = index === wanted.length - 1;
    return isPrefix && isLast ? given[index]?.startsWith(segment) : given[index] === segment;
  });
}

/** Vault's priority matching, least specific first (documentation of policies, "Policy syntax"). */
function bySpecificity(a: string, b: string): number {
  const firstWildcard = (p: string): number => {
    const index = p.search(/\+|\*$/);
    return index < 0 ? Number.POSITIVE_INFINITY : index;
  };
  const segments = (p: string): number => p.split("/").filter((s) => s === "+").length;
  const order = [
    compare(firstWildcard(a), firstWildcard(b)),
    compare(Number(b.endsWith("*")), Number(a.endsWith("*"))),
    compare(segments(b), segments(a)),
    compare(a.length, b.length),
    compare(a, b),
  ];
  return order.find((result) => result !== 0) ?? 0;
}

function compare<T extends number | string>(a: T, b: T): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
