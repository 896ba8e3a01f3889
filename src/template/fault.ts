/** Where in a template something is, for people. */
import { EdgeSyncError } from "../errors.ts";
import type { ErrorCode } from "../errors.ts";

/** The text of a template as bytes, with the name that errors give it. */
export interface Source {
  readonly name: string;
  readonly text: string;
}

/** Of the message: `name:line:column: …`, both from 1, columns in characters. */
export function fault(
  code: Extract<ErrorCode, "TEMPLATE_INVALID" | "TEMPLATE_FAILED">,
  { name, text }: Source,
  offset: number,
  message: string,
): EdgeSyncError {
  const before = text.slice(0, offset);
  const line = before.split("\n").length;
  let column = 1;
  for (let at = before.lastIndexOf("\n") + 1; at < before.length; at++)
    if ((before.charCodeAt(at) & 0xc0) !== 0x80) column++;
  return new EdgeSyncError(code, `${name}:${line}:${column}: ${message}`);
}
