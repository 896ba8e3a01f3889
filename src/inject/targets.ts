/** Which containers are meant: the main one, those with the payload, those with the secrets. */
import { PREFIX } from "#core/annotations.ts";
import { MAIN_PAYLOAD, keyFor } from "#core/payloads.ts";
import type { PodOptions } from "#core/pod-options.ts";
import type { Mode } from "./mode.ts";
import { MAIN_CONTAINER_ANNOTATION, MESH_PROXIES, SIDECAR } from "./names.ts";
import { fieldOf, isNativeSidecar, places } from "./pod.ts";
import type { Place, Pod, PodSpec } from "./pod.ts";

export interface Targets {
  readonly main: Place;
  /** The container that kubectl goes to: the main one, or the init container that the pod states, such as a native sidecar. */
  readonly shown: string;
  /** Those with any payload, and with each of them. */
  readonly payload: readonly Place[];
  readonly payloads: ReadonlyMap<string, readonly Place[]>;
  readonly secrets: readonly Place[];
}

/**
 * The places that the options name, with a sentence for each that does not fit.
 *
 * @param sidecarIndex where the sidecar is, or will be, in the list that its mode puts it in
 */
export function findTargets(
  pod: Pod,
  spec: PodSpec,
  options: Partial<PodOptions>,
  mode: Mode,
  sidecarIndex: number,
): { readonly targets: Targets | undefined; readonly problems: readonly string[] } {
  const problems: string[] = [];
  const running = places(spec, "containers");
  const all = [...running, ...places(spec, "initContainers")].filter(
    ({ container }) => container.name !== SIDECAR,
  );
  // Empty is as if it were not there, and an init container is none that a pod is about; kubectl sees both so.
  const stated = pod.metadata?.annotations?.[MAIN_CONTAINER_ANNOTATION] || undefined;
  const init = all.find(
    ({ list, container }) => list === "initContainers" && container.name === stated,
  );
  const asked = init === undefined ? stated : undefined;
  const main =
    asked === undefined
      ? (running.find(({ container }) => !MESH_PROXIES.includes(container.name)) ?? running[0])
      : running.find(({ container }) => container.name === asked);
  if (main === undefined)
    problems.push(
      asked === undefined
        ? "spec.containers is empty; a pod needs a main container"
        : `${MAIN_CONTAINER_ANNOTATION} names ${JSON.stringify(asked)}; the pod has ${namesOf(running)}`,
    );
  const named = (key: string, names: readonly string[] | undefined): readonly Place[] =>
    (names ?? []).flatMap((name) => {
      const place = all.find(({ container }) => container.name === name);
      if (place === undefined)
        problems.push(`${PREFIX}${key} names ${JSON.stringify(name)}; the pod has ${namesOf(all)}`);
      else if (
        place.list === "initContainers" &&
        (mode === "container" || place.index < sidecarIndex)
      )
        problems.push(
          `${PREFIX}${key} names ${JSON.stringify(name)}, but ${fieldOf(place)} runs before the sidecar`,
        );
      else return [place];
      return [];
    });
  const ofMain = named("payload-containers", options.payloadContainers);
  const ofOthers = (options.payloads ?? []).map(({ name, own }) => {
    const { payloadContainers: names } = own;
    // What it has from main has been looked up already.
    const same = names === options.payloadContainers;
    return [name, names, same ? ofMain : named(keyFor("payload-containers", name), names)] as const;
  });
  const secrets = named("secrets-containers", options.secretsContainers);
  if (main === undefined) return { targets: undefined, problems };
  const payloads = new Map(
    [[MAIN_PAYLOAD, options.payloadContainers, ofMain] as const, ...ofOthers].map(
      ([name, names, found]) => [name, names === undefined ? [main] : found] as const,
    ),
  );
  if (options.channel === undefined && ofOthers.length > 0) payloads.delete(MAIN_PAYLOAD);
  const withPayload = new Set([...payloads.values()].flat());
  return {
    targets: {
      main,
      shown: init?.container.name ?? main.container.name,
      payload: [...withPayload],
      payloads,
      secrets: options.secretsContainers === undefined ? [main] : secrets,
    },
    problems,
  };
}

/** Names that one message tells. */
const MAX_NAMED = 20;

function namesOf(all: readonly Place[]): string {
  const names = all.slice(0, MAX_NAMED).map(({ container }) => container.name);
  const more = all.length - names.length;
  return names.length === 0 ? "none" : names.join(", ") + (more > 0 ? ` and ${more} more` : "");
}

/** Containers that run on and have probes; an ordinary init container has none and ends by itself. */
export function runsOn(place: Place): boolean {
  return place.list === "containers" || isNativeSidecar(place);
}
