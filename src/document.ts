/** What the documents of a repository have in common: the names in them, and how their bytes are read and written. */
import * as s from "valibot";
import { EdgeSyncError } from "./errors.ts";
import { isAppName } from "./values.ts";

/** Whether a text can be the version of a release; it becomes a part of paths. */
export function isVersion(input: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$/.test(input);
}

/** Whether a text is `<os>-<architecture>`. */
export function isPlatform(input: string): boolean {
  return /^[a-z0-9]{1,32}-[a-z0-9_]{1,32}$/.test(input);
}

export const name = s.pipe(s.string(), s.check(isAppName, "a lower-case name with a letter in it"));
export const version = s.pipe(
  s.string(),
  s.check(isVersion, "a version of letters, digits and . _ + -"),
);
export const platform = s.pipe(s.string(), s.check(isPlatform, "<os>-<arch>"));

/** @throws EdgeSyncError RELEASE_INVALID */
export function parseDocument<T>(
  schema: s.GenericSchema<unknown, T>,
  bytes: Uint8Array,
  limit: number,
  what: string,
): T {
  if (bytes.length > limit)
    throw new EdgeSyncError(
      "RELEASE_INVALID",
      `${what} has ${bytes.length} bytes, allowed are ${limit}`,
    );
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new EdgeSyncError("RELEASE_INVALID", `${what} is not JSON in UTF-8`, { cause });
  }
  const result = s.safeParse(schema, json, { abortEarly: true });
  if (result.success) return result.output;
  const issue = result.issues[0];
  const where = s.getDotPath(issue) ?? "its top level";
  throw new EdgeSyncError("RELEASE_INVALID", `${what}: ${where} must be ${issue.message}`);
}

/** The bytes of a document, the same for the same value. */
export function serialize(document: object): Buffer {
  return Buffer.from(`${JSON.stringify(document)}\n`);
}
