/** Annotations by which the application has a say in its updates. */
import { CONTROL_PORT } from "../control.ts";
import { HOOKS, daemonHookTarget, hookTarget } from "../hook.ts";
import type { HookName, HookTarget } from "../hook.ts";
import * as v from "../values.ts";
import type { Row } from "./row.ts";

/** A row for each hook: `hook.<name>`. */
type HookRows = { readonly [K in HookName as `hook.${K}`]: HookRow };
type HookRow = Omit<Row<HookTarget>, "default"> & { readonly sidecar: true };

function hookRows(): HookRows {
  const rows = Object.entries(HOOKS).map(([name, help]): readonly [string, HookRow] => [
    `hook.${name}`,
    {
      section: "Updates",
      help,
      value: hookTarget,
      daemon: daemonHookTarget,
      otherwise: "nobody is asked",
      sidecar: true,
    },
  ]);
  // A row for each key of the table above, and no other.
  return Object.fromEntries(rows) as unknown as HookRows;
}

export const WORKLOAD = {
  ...hookRows(),
  "hold-volume": {
    section: "Updates",
    help: "A volume of the pod, by its name there, on which the application may hold updates with *.hold files; the sidecar mounts it read-only.",
    value: v.dnsLabel,
    otherwise: "updates are held through the control port only",
    sidecar: false,
    payload: "pod",
  },
  "hold-limit": {
    section: "Updates",
    help: "How long one release may be held by the application, all of its holds and answers taken together.",
    value: v.duration("1m", "720h"),
    default: "24h",
    sidecar: true,
  },
  "control-port": {
    section: "Sidecar",
    help: "Port on the pod's loopback interface at which containers of the pod can hold updates and ask for the status.",
    value: v.integer(1, 65535),
    default: String(CONTROL_PORT),
    sidecar: true,
  },
} as const satisfies Record<string, Row<never> | Row<unknown>>;
