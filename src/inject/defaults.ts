/**
 * Annotations that a pod has without stating them: those of its namespace, and those of the cluster. Both are the data of a ConfigMap, whose
 * keys are those of the annotations without their prefix, because a key there may not have a slash.
 */
import { ANNOTATIONS, PREFIX } from "#core/annotations.ts";
import type { Row } from "#core/annotations.ts";
import { nearName } from "#core/near-name.ts";
import { readText } from "#core/pod-options.ts";

/** Of the ConfigMap: in a namespace, or in the webhook's for the whole cluster. */
export const DEFAULTS_NAME = "edgesync-defaults";

export interface Defaults {
  /** Who states them, for messages: such as `ConfigMap shop/edgesync-defaults`. */
  readonly source: string;
  readonly values: Readonly<Record<string, string>>;
}

/** Keys that may have a default: what belongs to one payload, or names one, is the pod's to say. */
export function defaultKeys(): readonly string[] {
  return rows()
    .filter(([, row]) => row.payload !== "own")
    .map(([key]) => key);
}

function rows(): readonly (readonly [string, Row<unknown>])[] {
  return Object.entries(ANNOTATIONS);
}

/** A sentence for each thing that is wrong with them. */
export function defaultProblems({ source, values }: Defaults): readonly string[] {
  const problems: string[] = [];
  const keys = defaultKeys();
  const known = new Map(rows());
  for (const [key, text] of Object.entries(values).toSorted(([a], [b]) => (a < b ? -1 : 1))) {
    const row = known.get(key);
    if (row !== undefined && keys.includes(key)) readText(`${source}: ${key}`, row, text, problems);
    else {
      const near = row === undefined ? nearName(key.slice(0, 128), keys) : undefined;
      const what = row === undefined ? "is not known" : "belongs to a pod and takes no default";
      const hint = near === undefined ? "" : `; did you mean ${near}?`;
      problems.push(`${source}: ${key.slice(0, 128)} ${what}${hint}`);
    }
  }
  return problems;
}

/**
 * The annotations of a pod with those that it has by default. What belongs to a repository goes with it: credentials for one must not be
 * sent to another that somebody nearer to the pod has named.
 *
 * @param defaults the nearest first
 */
export function withDefaults(
  annotations: Readonly<Record<string, string>>,
  defaults: readonly Defaults[],
): Readonly<Record<string, string>> {
  if (defaults.length === 0) return annotations;
  const merged = { ...annotations };
  for (const { values } of defaults) {
    const named = Object.hasOwn(merged, `${PREFIX}repository`);
    for (const [key, row] of rows()) {
      const text = Object.hasOwn(values, key) ? values[key] : undefined;
      if (text === undefined || row.payload === "own" || Object.hasOwn(merged, PREFIX + key))
        continue;
      if (!named || row.payload !== "repository") merged[PREFIX + key] = text;
    }
  }
  return merged;
}
