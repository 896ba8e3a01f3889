/** Calls that are meant for the application must not come back to the sidecar: it would answer for the application, and be believed. */
import { PREFIX } from "#core/annotations.ts";
import { HOOKS } from "#core/hook.ts";
import type { HookName } from "#core/hook.ts";
import { isObject } from "#core/json.ts";
import { camel } from "#core/pod-options.ts";
import { keyOf } from "./requirements.ts";
import type { Annotations, ReadOptions, ReadPayload } from "./requirements.ts";

const KEYS = [
  "on-update",
  "health",
  ...(Object.keys(HOOKS) as HookName[]).map((name) => `hook.${name}` as const),
] as const;

/** A sentence for each annotation of a payload that names a port on which the sidecar itself listens. */
export function ownPorts(
  annotations: Annotations,
  { controlPort }: ReadOptions,
  payloads: readonly ReadPayload[],
  sidecarPort: number,
): readonly string[] {
  const owners = new Map<unknown, string>([
    [controlPort ?? sidecarPort, "control-port"],
    [sidecarPort, "sidecar-port"],
  ]);
  return payloads.flatMap((payload) =>
    KEYS.flatMap((key) => {
      const target: unknown = payload.options[camel(key)];
      const owner = isObject(target) ? owners.get(target["port"]) : undefined;
      return owner === undefined
        ? []
        : [
            `${keyOf(annotations, key, payload)} names the port of ${PREFIX}${owner}, at which the sidecar itself answers; name one of the application's`,
          ];
    }),
  );
}
