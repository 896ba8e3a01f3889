/** What all files of metadata have in common: JSON that is read with bounds, and signatures over the canonical form of its `signed` part. */
import * as s from "valibot";
import { EdgeSyncError } from "../errors.ts";
import { canonicalForm } from "./canonical.ts";

/** A parsed file. Until `verifySignatures` has passed nothing in it is to be believed. */
export interface Envelope<T> {
  readonly signed: T;
  /** What signatures are made over. */
  readonly canonical: Buffer;
  /** Hexadecimal signatures by key id. */
  readonly signatures: ReadonlyMap<string, string>;
}

export type JsonObject = Readonly<Record<string, unknown>>;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** An object of JSON, taken as it is: schemas copy what they check, and there may be tens of thousands of entries in one. */
export const object: s.GenericSchema<unknown, JsonObject> = s.custom<JsonObject>(
  isObject,
  "not an object",
);

const envelope = s.object({
  signed: object,
  signatures: s.pipe(
    s.array(s.object({ keyid: s.string(), sig: s.string() })),
    s.maxLength(1024),
    s.check(
      (list) => new Set(list.map((item) => item.keyid)).size === list.length,
      "one signature per key id",
    ),
  ),
});

/**
 * @param limit bytes; a longer file is not looked at
 * @param name of the role, for messages
 * @throws EdgeSyncError METADATA_INVALID
 */
export function readEnvelope<T>(
  schema: s.GenericSchema<unknown, T>,
  bytes: Uint8Array,
  limit: number,
  name: string,
): Envelope<T> {
  if (bytes.length > limit)
    throw new EdgeSyncError(
      "METADATA_INVALID",
      `${name} has ${bytes.length} bytes, allowed are ${limit}`,
    );
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch (cause) {
    throw new EdgeSyncError("METADATA_INVALID", `${name} is not JSON in UTF-8`, { cause });
  }
  const { signed, signatures } = check(envelope, json, name);
  // Of what was read and not of what a schema makes of it: what is signed is every field, also those that are unknown here.
  const canonical = canonicalForm(signed, bytes.length);
  return {
    signed: check(schema, signed, name),
    canonical,
    signatures: new Map(signatures.map((item) => [item.keyid, item.sig])),
  };
}

function check<T>(schema: s.GenericSchema<unknown, T>, value: unknown, name: string): T {
  const result = s.safeParse(schema, value, { abortEarly: true });
  if (result.success) return result.output;
  const issue = result.issues[0];
  throw new EdgeSyncError(
    "METADATA_INVALID",
    `${name}: ${s.getDotPath(issue) ?? "its top level"}: ${issue.message}`,
  );
}
