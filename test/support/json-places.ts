/** Places in JSON values, for tests that change one of them. */

/** Every place in a value, as a path of keys. */
export function placesIn(
  value: unknown,
  path: readonly string[] = [],
): readonly (readonly string[])[] {
  if (typeof value !== "object" || value === null) return [path];
  const below = Object.entries(value).flatMap(([key, one]) => placesIn(one, [...path, key]));
  return [path, ...below];
}

/** A copy with another value at a place; without the place for undefined. */
export function replaced(value: unknown, [key, ...rest]: readonly string[], by: unknown): unknown {
  if (key === undefined) return by;
  const copy: Record<string, unknown> = { ...(value as object) };
  if (rest.length === 0 && by === undefined) delete copy[key];
  else copy[key] = replaced(copy[key], rest, by);
  return Array.isArray(value) ? Object.values(copy) : copy;
}
