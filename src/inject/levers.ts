/** The containers whose probes go through the sidecar, and which of them it can restart. */
import { payloadsOf } from "#core/pod-options.ts";
import type { Payload, PodOptions } from "#core/pod-options.ts";
import type { Place } from "./pod.ts";
import { runsOn } from "./targets.ts";
import type { Targets } from "./targets.ts";

function hasLever({ options }: { readonly options: Partial<PodOptions> }): boolean {
  return options.channel !== undefined && options.onUpdate?.kind === "restart";
}

/** Whether new secrets restart the containers that have them. */
export function rotatesByLever({ secrets, onRotate }: Partial<PodOptions>): boolean {
  return secrets !== undefined && secrets.length > 0 && onRotate?.kind === "restart";
}

/** The containers that the sidecar is told the probes of. */
export function probedPlaces(options: PodOptions, targets: Targets | undefined): readonly Place[] {
  const payload = payloadsOf(options).length === 0 ? [] : (targets?.payload ?? []);
  const secrets = rotatesByLever(options) ? (targets?.secrets ?? []) : [];
  return [...new Set([...payload, ...secrets])].filter(runsOn);
}

/** The containers that a new release, or new secrets, restart through their probes, by name. */
export function withLevers(
  options: PodOptions,
  payloads: readonly Payload[],
  targets: Targets | undefined,
): Set<string> {
  const places = payloads.filter(hasLever).flatMap(({ name }) => targets?.payloads.get(name) ?? []);
  const secrets = rotatesByLever(options) ? (targets?.secrets ?? []) : [];
  return new Set([...places, ...secrets].filter(runsOn).map(({ container }) => container.name));
}
