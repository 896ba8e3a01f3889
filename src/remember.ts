/** Results of pure functions that are kept for the next call with the same argument. */

/** As `make`, once for each object: for values that are never changed. */
export function onceFor<K extends object, V>(make: (key: K) => V): (key: K) => V {
  const made = new WeakMap<K, V>();
  return (key) => {
    let value = made.get(key);
    if (value === undefined) {
      value = make(key);
      made.set(key, value);
    }
    return value;
  };
}

/** Keeps some values by a text; the oldest makes room for the next. */
export interface Recent<V> {
  get(key: string): V | undefined;
  set(key: string, value: V): V;
}

/** @param longest key, in characters, that is worth its place */
export function openRecent<V>(most: number, longest: number): Recent<V> {
  const kept = new Map<string, V>();
  return {
    get: (key) => kept.get(key),
    set(key, value) {
      if (key.length > longest) return value;
      const [oldest] = kept.size < most ? [] : kept.keys();
      if (oldest !== undefined) kept.delete(oldest);
      kept.set(key, value);
      return value;
    },
  };
}
