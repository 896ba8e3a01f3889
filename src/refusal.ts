/** Why a value refuses a text, to stand behind it in a message. */
import type { Value } from "./values.ts";

export function refusal({ allowed, problem }: Value<unknown>, text: string): string {
  return problem?.(text) ?? `allowed: ${allowed}`;
}
