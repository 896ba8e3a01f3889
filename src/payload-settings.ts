/** The settings of payloads beside `main` as one environment variable: what differs from `main`'s, by payload and key. */
import { isObject, jsonObject } from "./json.ts";
import { payloadName } from "./payloads.ts";
import { camel, readText } from "./pod-options.ts";
import type { PayloadSettings, Settings } from "./settings.ts";
import type { Value } from "./values.ts";

type Rows = readonly (readonly [key: string, row: { readonly value: Value<unknown> }])[];

/** Every setting of the rows that has another value than in `main`. */
export function differences(
  settings: Settings,
  main: Settings,
  rows: Rows,
): PayloadSettings["own"] {
  const values: Readonly<Record<string, unknown>> = settings;
  const others: Readonly<Record<string, unknown>> = main;
  const own = rows.flatMap(([key, row]) => {
    const [value, other] = [values[camel(key)], others[camel(key)]];
    return textOf(row, value) === textOf(row, other) ? [] : [[camel(key), value] as const];
  });
  return Object.fromEntries(own);
}

function textOf(row: { readonly value: Value<unknown> }, value: unknown): string | undefined {
  return value === undefined ? undefined : row.value.format(value);
}

export const PAYLOADS_VARIABLE = "EDGESYNC_PAYLOADS";

/** By payload and key, each value as its text, or null for none. */
export function payloadsText(payloads: readonly PayloadSettings[], rows: Rows): string {
  const texts = payloads.map(({ name, own }) => {
    const values: Readonly<Record<string, unknown>> = own;
    const stated = rows.filter(([key]) => Object.hasOwn(values, camel(key)));
    const fields = stated.map(([key, row]) => [key, textOf(row, values[camel(key)]) ?? null]);
    return [name, Object.fromEntries(fields)];
  });
  return JSON.stringify(Object.fromEntries(texts));
}

/** A problem for each thing that the webhook would not have written. */
export function readPayloads(
  text: string,
  known: Rows,
  problems: string[],
): readonly PayloadSettings[] {
  const rows = new Map(known);
  const wrong = (what: string): undefined => {
    problems.push(`${PAYLOADS_VARIABLE} ${what}; allowed: what the webhook writes`);
  };
  const payloads = jsonObject(text) ?? wrong("is not a JSON object") ?? {};
  return Object.entries(payloads).flatMap(([name, fields]): readonly PayloadSettings[] => {
    if (payloadName.parse(name) === undefined || !isObject(fields))
      return wrong(`has ${JSON.stringify(name)}, which is no payload`) ?? [];
    const own: Record<string, unknown> = {};
    for (const [key, value] of Object.entries(fields)) {
      const row = rows.get(key);
      const variable = `${PAYLOADS_VARIABLE} (${name}, ${key})`;
      if (row === undefined || !(value === null || typeof value === "string"))
        wrong(`(${name}) has ${JSON.stringify(key)}, which is no setting of a payload`);
      else own[camel(key)] = value === null ? undefined : readText(variable, row, value, problems);
    }
    return [{ name, own }];
  });
}
