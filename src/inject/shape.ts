/**
 * Shapes of JSON values. Every field of every pod is looked at before the pod is decided on, and some pods have tens of thousands, so a
 * shape is a function that makes nothing unless something is wrong.
 */

/** Where a value first differs from a shape, such as `.spec.containers.0.name`; "" where it is the value itself, `undefined` where nothing is. */
export type Shape = (value: unknown) => string | undefined;

export const text: Shape = (value) => (typeof value === "string" ? undefined : "");
export const number: Shape = (value) => (typeof value === "number" ? undefined : "");
export const integer: Shape = (value) => (Number.isInteger(value) ? undefined : "");
export const boolean: Shape = (value) => (typeof value === "boolean" ? undefined : "");
export const anything: Shape = () => undefined;

/** Or absent. */
export function optional(shape: Shape): Shape {
  return (value) => (value === undefined ? undefined : shape(value));
}

/** Or absent or null, which is how Go writes what is empty. */
export function nullish(shape: Shape): Shape {
  return (value) => (value === undefined || value === null ? undefined : shape(value));
}

export function either(one: Shape, other: Shape): Shape {
  return (value) => (one(value) === undefined || other(value) === undefined ? undefined : "");
}

export function listOf(item: Shape): Shape {
  return (value) => {
    if (!Array.isArray(value)) return "";
    for (let index = 0; index < value.length; index++) {
      const at = item(value[index]);
      if (at !== undefined) return `.${index}${at}`;
    }
    return undefined;
  };
}

/** An object of values of one shape, by any names. */
export function mapOf(item: Shape): Shape {
  return (value) => {
    if (!isObject(value)) return "";
    for (const key of Object.keys(value)) {
      const at = item(value[key]);
      if (at !== undefined) return `.${key}${at}`;
    }
    return undefined;
  };
}

/** An object with these fields, and any others. */
export function fields(shapes: Readonly<Record<string, Shape>>): Shape {
  const known = Object.entries(shapes).map(([key, shape]) => ({ key, shape }));
  return (value) => {
    if (!isObject(value)) return "";
    for (const { key, shape } of known) {
      const at = shape(value[key]);
      if (at !== undefined) return `.${key}${at}`;
    }
    return undefined;
  };
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null;
}
