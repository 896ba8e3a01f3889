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

/** What a template asks for. Its parameters and its key may hold secrets: neither belongs into a log or a status; `path` may be shown. */
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
}

/** @throws EdgeSyncError TEMPLATE_INVALID with line and column */
export function parseTemplate(text: string, options: { readonly name: string }): Template {
  if (text !== "") throw new EdgeSyncError("TEMPLATE_INVALID", `${options.name}: not there yet`);
  return { name: options.name, calls: [] };
}

/** @throws EdgeSyncError TEMPLATE_FAILED with line and column, never with what is in a secret */
export function render(_template: Template, _inputs: RenderInputs): Rendered {
  return { kind: "text", bytes: new Uint8Array() };
}
