/** What the sidecar is told of the pod, so that it can see the application end. */
import type { AppProbes } from "#core/probe.ts";
import { SETTINGS, variableOf } from "#core/settings.ts";
import type { Mode } from "./mode.ts";
import { MESH_PROXIES, SIDECAR } from "./names.ts";
import { isNativeSidecar, places } from "./pod.ts";
import type { Place, PodSpec } from "./pod.ts";
import { appProbes, probeConflicts } from "./probes.ts";

/** More than any application has. */
const MAX_PORTS = 64;

/**
 * The TCP ports of the containers with the secrets: those that they state, and those of their probes. What an earlier call has told
 * stands: their probes may be the sidecar's, or those of a mesh, since then.
 *
 * @param told the probes that go through the sidecar, as they were
 */
export function readersPorts(
  readers: readonly Place[],
  told: readonly AppProbes[],
  found: Place | undefined,
): readonly number[] {
  const variable = variableOf("secrets-ports");
  const before = found?.container.env?.find(({ name }) => name === variable)?.value;
  if (before !== undefined) return SETTINGS["secrets-ports"].value.parse(before) ?? [];
  const ports = readers.flatMap((place) => [
    ...(place.container.ports ?? [])
      .filter(({ protocol }) => (protocol ?? "TCP") === "TCP")
      .map(({ containerPort }) => containerPort),
    ...probedPorts(place, told),
  ]);
  const valid = ports.filter((port) => Number.isInteger(port) && port > 0 && port <= 65_535);
  return [...new Set(valid)].toSorted((a, b) => a - b).slice(0, MAX_PORTS);
}

function probedPorts(place: Place, told: readonly AppProbes[]): readonly number[] {
  const { container } = place;
  const known = told.find((one) => one.container === container.name);
  if (known === undefined && probeConflicts(place, false).length > 0) return [];
  const { startup, liveness, readiness } = known ?? appProbes(container, 0, false);
  return [startup, liveness, readiness].flatMap((probe) => probe?.handler.port ?? []);
}

/**
 * `shared` where others that outlive the application have sockets in the pod's network: native sidecars are stopped last, the first of them
 * last of all.
 *
 * @param at index of the sidecar in the list of its mode
 */
export function podNetwork(spec: PodSpec, mode: Mode, at: number): "own" | "shared" {
  const outlives = places(spec, "initContainers").some(
    (place) =>
      isNativeSidecar(place) &&
      place.container.name !== SIDECAR &&
      (mode !== "native" || place.index < at),
  );
  const isMeshed = places(spec, "containers").some(({ container }) =>
    MESH_PROXIES.includes(container.name),
  );
  return spec.hostNetwork === true || outlives || isMeshed ? "shared" : "own";
}
