/**
 * JSON as JSON.stringify writes it, for values of which large parts are in many texts and never change: their text is made once. The sidecar of a pod is
 * nearly all of its patch, and the same one for all pods of a controller.
 */
import { Buffer } from "node:buffer";
import type { Json, Operation } from "./json-patch.ts";

const texts = new WeakMap<object, string>();

/** Makes the text of a value that is never changed, and gives the value back. */
export function keepText<T extends object>(value: T): T {
  texts.set(value, JSON.stringify(value));
  return value;
}

function keptText(value: Json): string | undefined {
  return typeof value === "object" && value !== null ? texts.get(value) : undefined;
}

/** Kept texts are looked for in the value itself and, when it is a list, in its items. */
function textOf(value: Json): string {
  const kept = keptText(value);
  if (kept !== undefined) return kept;
  return Array.isArray(value) && value.some((item) => keptText(item) !== undefined)
    ? `[${value.map(textOf).join()}]`
    : JSON.stringify(value);
}

/** The JSON of a patch. */
export function patchText(operations: readonly Operation[]): string {
  const all = operations.map((operation) =>
    operation.op === "remove"
      ? JSON.stringify(operation)
      : `{"op":"${operation.op}","path":${JSON.stringify(operation.path)},"value":${textOf(operation.value)}}`,
  );
  return `[${all.join()}]`;
}

/** Characters of a text that is put into base64 without a buffer of its own; a pod's patch has some thousands. */
const SCRATCH = 16 * 1024;
const MOST_BYTES = 3;
const scratch = Buffer.allocUnsafeSlow(SCRATCH * MOST_BYTES);

/** Of the text's UTF-8. */
export function base64Of(text: string): string {
  if (text.length > SCRATCH) return Buffer.from(text).toString("base64");
  return scratch.toString("base64", 0, scratch.write(text));
}
