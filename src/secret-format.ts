/** The forms in which a secret's data becomes a file. */
import type { Value } from "./values.ts";

/** How a secret's data becomes the bytes of a file. */
export type SecretFormat =
  | { readonly kind: "json" }
  | { readonly kind: "env" }
  /** Key, certificate and chain in one file, in that order. */
  | { readonly kind: "pem" }
  /** The same as a key store of Java, .NET and Windows. */
  | { readonly kind: "pkcs12"; readonly password: KeyStorePassword }
  | { readonly kind: "raw"; readonly field: string };

/** Of a key store: the one that Java's tools take when told nothing, an empty one, or what a field of the same secret holds. */
export type KeyStorePassword = "changeit" | "none" | { readonly field: string };

const FIELD = /^[A-Za-z0-9_.-]{1,256}$/;
const RAW = "raw:";
const PASSWORD_FIELD = "pkcs12:field:";

export const secretFormat: Value<SecretFormat> = {
  allowed: "json, env, pem, pkcs12, pkcs12:none, pkcs12:field:<field>, or raw:<field>",
  parse(input) {
    switch (input) {
      case "json":
      case "env":
      case "pem":
        return { kind: input };
      case "pkcs12":
        return { kind: "pkcs12", password: "changeit" };
      case "pkcs12:none":
        return { kind: "pkcs12", password: "none" };
      default: {
        const prefix = [RAW, PASSWORD_FIELD].find((start) => input.startsWith(start));
        const field = input.slice(prefix?.length);
        if (prefix === undefined || !FIELD.test(field)) return undefined;
        return prefix === RAW ? { kind: "raw", field } : { kind: "pkcs12", password: { field } };
      }
    }
  },
  format(value) {
    if (value.kind === "raw") return RAW + value.field;
    if (value.kind !== "pkcs12" || value.password === "changeit") return value.kind;
    return value.password === "none" ? "pkcs12:none" : PASSWORD_FIELD + value.password.field;
  },
};
