/** The probes of the application that go through the sidecar: what it is told of them, in the first call of the webhook and in those after it. */
import { payloadsOf } from "#core/pod-options.ts";
import type { PodOptions } from "#core/pod-options.ts";
import type { AppProbes } from "#core/probe.ts";
import { SETTINGS, variableOf } from "#core/settings.ts";
import type { ClusterOptions } from "./cluster.ts";
import { probedPlaces, withLevers } from "./levers.ts";
import type { Container, Place } from "./pod.ts";
import { appProbes, withLever } from "./probes.ts";
import { runsOn } from "./targets.ts";
import type { Targets } from "./targets.ts";

interface Told {
  readonly options: PodOptions;
  readonly cluster: ClusterOptions;
  readonly targets: Targets;
  /** The sidecar of an earlier call. */
  readonly found: Place | undefined;
}

/**
 * The probes of the payload's containers as the sidecar is told them, and the change to those containers. What an earlier call has
 * told stands: the containers' probes are the sidecar's since then, or those of a mesh that has put itself in front of it.
 */
export function throughSidecar({ options, cluster, targets, found }: Told): {
  readonly list: readonly AppProbes[];
  readonly rewrite: (place: Place, container: Container) => Container;
} {
  const own = probedPlaces(options, targets);
  if (own.length === 0) return { list: [], rewrite: (_, container) => container };
  const before = probesBefore(found);
  const levers = withLevers(options, payloadsOf(options), targets);
  const windowMs = options.restartWindow;
  const list = own.map(
    ({ container }) =>
      before.get(container.name) ?? appProbes(container, windowMs, levers.has(container.name)),
  );
  return {
    list,
    rewrite(place, container) {
      const probes = list.find((one) => one.container === container.name);
      const fresh = probes !== undefined && !before.has(container.name);
      return fresh && levers.has(container.name) && runsOn(place)
        ? withLever(container, probes, windowMs, cluster.sidecarPort)
        : container;
    },
  };
}

const APP_VARIABLE = variableOf("app");

/** By container: what the sidecar of an earlier call was told. */
export function probesBefore(found: Place | undefined): ReadonlyMap<string, AppProbes> {
  const text = found?.container.env?.find(({ name }) => name === APP_VARIABLE)?.value;
  const list = text === undefined ? [] : (SETTINGS.app.value.parse(unescaped(text)) ?? []);
  return new Map(list.map((probes) => [probes.container, probes]));
}

/** As the kubelet reads a variable's value. */
function unescaped(value: string): string {
  return value.replaceAll("$$", "$");
}
