/** The forms in which a secret's data becomes a file. */
import type { Value } from "./values.ts";

/** How a secret's data becomes the bytes of a file. */
export type SecretFormat =
  | { readonly kind: "json" }
  | { readonly kind: "env" }
  /** Key, certificate and chain in one file, in that order. */
  | { readonly kind: "pem" }
  | { readonly kind: "raw"; readonly field: string };

export const secretFormat: Value<SecretFormat> = {
  allowed: "json, env, pem, or raw:<field>",
  parse(input) {
    if (input === "json" || input === "env" || input === "pem") return { kind: input };
    const field = /^raw:([A-Za-z0-9_.-]{1,256})$/.exec(input)?.[1];
    return field === undefined ? undefined : { kind: "raw", field };
  },
  format: (value) => (value.kind === "raw" ? `raw:${value.field}` : value.kind),
};
