/** What `src/own-ports.ts` finds in a pod, in the words of annotations. */
import { PREFIX } from "#core/annotations.ts";
import { MAIN_PAYLOAD } from "#core/payloads.ts";
import { callsBack } from "#core/own-ports.ts";
import { keyOf } from "./requirements.ts";
import type { Annotations, ReadOptions, ReadPayload } from "./requirements.ts";

/** A sentence for each annotation of a payload that names a port on which the sidecar itself listens. */
export function ownPorts(
  annotations: Annotations,
  options: ReadOptions,
  payloads: readonly ReadPayload[],
  sidecarPort: number,
): readonly string[] {
  const { controlPort } = options;
  const owners = new Map<unknown, string>([
    [controlPort ?? sidecarPort, "control-port"],
    [sidecarPort, "sidecar-port"],
  ]);
  const all = payloads.length === 0 ? [{ name: MAIN_PAYLOAD, options }] : payloads;
  return all.flatMap((payload) =>
    callsBack(payload.options, owners).map(
      ({ key, owner }) =>
        `${keyOf(annotations, key, payload)} names the port of ${PREFIX}${owner}, at which the sidecar itself answers; name one of the application's`,
    ),
  );
}
