/** JSON of which nothing is known yet. */

export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** `undefined` when the text is not that of one object. */
export function jsonObject(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : undefined;
  } catch {
    // Not JSON: the caller says what it read, and what was expected.
    return undefined;
  }
}

/** The members of a JSON object that are texts; `undefined` when it is none. */
export function jsonStrings(text: string): Readonly<Record<string, string>> | undefined {
  const object = jsonObject(text);
  if (object === undefined) return undefined;
  const entries = Object.entries(object).flatMap(([key, item]) =>
    key !== "" && typeof item === "string" ? [[key, item] as const] : [],
  );
  return Object.fromEntries(entries);
}
