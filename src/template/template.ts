/**
 * Templates as Vault Agent has them: a safe subset of Go's text/template with the functions of consul-template, byte for byte.
 * A file of its own in the bundle, to be loaded where a pod has templates: `await import("#core/template/template.ts")`.
 *
 * Rendering is pure and asks for nothing. With a secret missing it says which, as consul-template does in its passes; the caller gets
 * them and renders again, until there is text:
 *
 *     const template = parseTemplate(text, { name });
 *     for (;;) {
 *       const result = render(template, { lookup, env, now });
 *       if (result.kind === "text") return result.bytes;
 *       for (const call of result.calls) answers.set(call.key, await fetch(call));   // lookup: (call) => answers.get(call.key)
 *     }
 *
 * Arguments may be computed from other secrets, so a second pass may need more than the first, and less.
 */
import { EdgeSyncError } from "../errors.ts";
import type { SecretData } from "../secret-file.ts";
import { staticCalls } from "./calls.ts";
import type { TemplateCall } from "./calls.ts";
import { evaluate } from "./evaluate.ts";
import { fault } from "./fault.ts";
import type { Source } from "./fault.ts";
import { FUNCTIONS, REFUSED } from "./functions.ts";
import { MAX_TEMPLATE } from "./limits.ts";
import { parse } from "./parser.ts";
import type { Parsed } from "./parser.ts";
import { nearName } from "../near-name.ts";
import { bytesOf } from "./runes.ts";
import { pemValue, secretValue } from "./values.ts";
import type { GoValue } from "./values.ts";

export type { TemplateCall } from "./calls.ts";
/** An answer of Vault to a call, as `.Data`, `.LeaseID`… show it; for `pki` its data make `.Cert`, `.Key` and `.CA`. */
export interface TemplateAnswer {
  /** The answer's `data` as `parseExactJson` reads it; for KV v2 with `data` and `metadata` in it. */
  readonly data: SecretData;
  readonly requestId?: string;
  readonly leaseId?: string;
  /** Seconds. */
  readonly leaseDuration?: number;
  readonly renewable?: boolean;
}

export interface RenderInputs {
  /** `undefined` for what is not there yet. */
  lookup(call: TemplateCall): TemplateAnswer | undefined;
  /** The value of a variable of the allow-list, empty when it is not set; `undefined` for a name that is not on the list. */
  env(name: string): string | undefined;
  /** Milliseconds since the epoch, for `timestamp`. */
  readonly now: number;
  /** What a field that does not exist is: an error, or `<no value>` as Vault Agent does unless told otherwise. Default `error`. */
  readonly missingKey?: "error" | "no-value";
}

export type Rendered =
  | { readonly kind: "text"; readonly bytes: Uint8Array }
  | { readonly kind: "needs"; readonly calls: readonly TemplateCall[] };

export interface Template {
  /** As errors name it. */
  readonly name: string;
  /** The calls that can be told without a secret, in the order of the text; others may come while it is rendered. */
  readonly calls: readonly TemplateCall[];
  readonly source: Source;
  readonly parsed: Parsed;
}

/** @throws EdgeSyncError TEMPLATE_INVALID with line and column */
export function parseTemplate(text: string, { name }: { readonly name: string }): Template {
  const source = { name, text: bytesOf(text) };
  if (source.text.length > MAX_TEMPLATE)
    throw new EdgeSyncError(
      "TEMPLATE_INVALID",
      `${name}: a template may have ${MAX_TEMPLATE} bytes; this one has ${source.text.length}`,
    );
  const parsed = parse(source, (called, at) => {
    if (Object.hasOwn(FUNCTIONS, called)) return;
    throw fault("TEMPLATE_INVALID", source, at, refusalOf(called));
  });
  return { name, calls: staticCalls(parsed), source, parsed };
}

function refusalOf(name: string): string {
  const why = Object.hasOwn(REFUSED, name) ? REFUSED[name] : undefined;
  if (why !== undefined) return `the function ${name} is not supported: ${why}`;
  const near = nearName(name, Object.keys(FUNCTIONS));
  return `there is no function ${name.slice(0, 64)}${near === undefined ? "" : `; did you mean ${near}?`}`;
}

/** @throws EdgeSyncError TEMPLATE_FAILED with line and column, never with what is in a secret */
export function render({ source, parsed }: Template, inputs: RenderInputs): Rendered {
  const answers = new Map<string, GoValue>();
  const needs = new Map<string, TemplateCall>();
  const { now, missingKey = "error" } = inputs;

  function ask(call: TemplateCall): GoValue {
    if (!answers.has(call.key)) {
      const answer = inputs.lookup(call);
      if (answer === undefined) needs.set(call.key, call);
      answers.set(call.key, answer === undefined ? null : valueOf(call, answer));
    }
    return answers.get(call.key);
  }

  try {
    const env = (name: string): string | undefined => inputs.env(name);
    const text = evaluate({ source, parsed, missingKey, now, env, ask });
    if (needs.size === 0) return { kind: "text", bytes: Buffer.from(text, "latin1") };
  } catch (cause) {
    // What follows from a secret that is not there yet says nothing of the template.
    if (needs.size === 0) throw cause;
  }
  return { kind: "needs", calls: [...needs.values()] };
}

function valueOf({ kind }: TemplateCall, answer: TemplateAnswer): GoValue {
  return kind === "pki" ? pemValue(answer) : secretValue(answer);
}
