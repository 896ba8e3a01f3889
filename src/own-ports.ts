/** Calls that are meant for the application must not come back to the sidecar: it would answer for the application, and be believed. */
import { HOOKS } from "./hook.ts";
import type { HookName } from "./hook.ts";
import { isObject } from "./json.ts";
import { camel } from "./pod-options.ts";

const KEYS = [
  "on-update",
  "on-rotate",
  "health",
  ...(Object.keys(HOOKS) as HookName[]).map((name) => `hook.${name}` as const),
] as const;

/**
 * The settings of a payload that name a port at which the sidecar itself listens.
 *
 * @param owners of its ports, the keys that set them
 */
export function callsBack(
  options: Readonly<Record<string, unknown>>,
  owners: ReadonlyMap<unknown, string>,
): readonly { readonly key: string; readonly owner: string }[] {
  return KEYS.flatMap((key) => {
    const target = options[camel(key)];
    const owner = isObject(target) ? owners.get(target["port"]) : undefined;
    return owner === undefined ? [] : [{ key, owner }];
  });
}
