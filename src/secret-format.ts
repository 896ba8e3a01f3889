/** The forms in which a secret's data becomes a file. */
import type { Value } from "./values.ts";

/** How a secret's data becomes the bytes of a file. */
export type SecretFormat =
  | { readonly kind: "json" }
  | { readonly kind: "env" }
  | { readonly kind: "raw"; readonly field: string };

export const secretFormat: Value<SecretFormat> = {
  allowed: "json, env, or raw:<field>",
  parse(input) {
    if (input === "json" || input === "env") return { kind: input };
    const field = /^raw:([A-Za-z0-9_.-]{1,256})$/.exec(input)?.[1];
    return field === undefined ? undefined : { kind: "raw", field };
  },
  format: (value) => (value.kind === "raw" ? `raw:${value.field}` : value.kind),
};
