/** Names, mount paths and ports that the pod already uses; each sentence begins with the field. */
import { PREFIX } from "#core/annotations.ts";
import { onceFor } from "#core/remember.ts";
import { SIDECAR, VOLUMES } from "./names.ts";
import { fieldOf, given, places } from "./pod.ts";
import type { Place, PodSpec, Volume, VolumeMount } from "./pod.ts";
import { isWithin } from "./requirements.ts";
import { isOurs } from "./sidecar.ts";

/** @param injected whether an earlier call has already put the sidecar there: our own volumes and mounts are then no conflict */
export function conflicts(
  spec: PodSpec,
  wanted: readonly Volume[],
  injected: boolean,
): readonly string[] {
  return [...takenNames(spec), ...takenVolumes(spec, wanted, injected)];
}

/** A native sidecar that has come back from the first call without the field that makes it one: all else follows from that. */
export function droppedNative(spec: PodSpec): readonly string[] {
  return placesOf(spec, "initContainers", SIDECAR)
    .filter(({ list, index, container }) => {
      const native = { list, index, container: { ...container, restartPolicy: "Always" } };
      return !given(container.restartPolicy) && isOurs(native);
    })
    .map(
      (place) =>
        `${fieldOf(place)}.restartPolicy is not kept by the API server, so it does not know native sidecars; set ${PREFIX}sidecar-mode: container, or EDGESYNC_NATIVE_SIDECARS: never for the whole cluster`,
    );
}

/** The containers of a name, of which there should be one. */
function placesOf(spec: PodSpec, list: Place["list"], name: string): readonly Place[] {
  const found: Place[] = [];
  for (const [index, container] of (spec[list] ?? []).entries())
    if (container.name === name) found.push({ list, index, container });
  return found;
}

function takenNames(spec: PodSpec): readonly string[] {
  const ephemeral = (spec.ephemeralContainers ?? []).flatMap(({ name }, index) =>
    name === SIDECAR ? [`spec.ephemeralContainers[${index}].name`] : [],
  );
  const others = [
    ...placesOf(spec, "initContainers", SIDECAR),
    ...placesOf(spec, "containers", SIDECAR),
  ].filter((place) => !isOurs(place));
  return [...others.map((place) => `${fieldOf(place)}.name`), ...ephemeral].map(
    (field) => `${field} is ${SIDECAR}, the name of the sidecar that is injected`,
  );
}

function takenVolumes(
  spec: PodSpec,
  wanted: readonly Volume[],
  injected: boolean,
): readonly string[] {
  const names = ownNames(wanted);
  const problems: string[] = [];
  for (const [index, volume] of (spec.volumes ?? []).entries()) {
    if (!names.has(volume.name)) continue;
    const own = wanted.find(({ name }) => name === volume.name);
    const ours = injected && own !== undefined && sourceOf(own) === sourceOf(volume);
    if (!ours)
      problems.push(`spec.volumes[${index}].name is ${volume.name}, a name of the injection's own`);
  }
  return problems;
}

const ownNames = onceFor(
  (wanted: readonly Volume[]): ReadonlySet<string> =>
    new Set([...Object.values(VOLUMES), ...wanted.map(({ name }) => name)]),
);

function sourceOf(volume: Volume): string {
  return Object.keys(volume)
    .filter((key) => key !== "name")
    .join();
}

/** Annotations that say where the sidecar listens. */
export type PortKey = "sidecar-port" | "control-port";

/**
 * Ports that cannot be the sidecar's. Somebody has the port for a reason, and ours can be any: what is asked for is another one of ours.
 *
 * @param ports those that the sidecar listens on
 */
export function portConflicts(
  annotations: Readonly<Record<string, string>>,
  spec: PodSpec,
  ports: Readonly<Partial<Record<PortKey, number>>>,
): readonly string[] {
  const all = [...places(spec, "initContainers"), ...places(spec, "containers")].filter(
    ({ container }) => container.name !== SIDECAR && given(container.ports),
  );
  return Object.entries(ports).flatMap(([key, port]) => {
    const annotation = PREFIX + key;
    const taken = all.flatMap((place) =>
      (place.container.ports ?? []).flatMap(({ containerPort, protocol = "TCP" }, index) =>
        containerPort === port && protocol === "TCP"
          ? [
              `${fieldOf(place)}.ports[${index}].containerPort ${port} is ${Object.hasOwn(annotations, annotation) ? "" : "the default of "}${annotation} too; set that to a port that no container has`,
            ]
          : [],
      ),
    );
    return spec.hostNetwork === true && !Object.hasOwn(annotations, annotation)
      ? [
          `spec.hostNetwork is true, so port ${port} of the sidecar would be the node's; state ${annotation}, with a port that nothing else on the node has`,
          ...taken,
        ]
      : taken;
  });
}

/**
 * Mounts of a container that are at, or below, a path of ours. One above is fine: ours is then made inside it.
 *
 * @param own our mounts there, the others below the first
 */
export function mountConflicts(
  place: Place,
  own: readonly Pick<VolumeMount, "name" | "mountPath">[],
  injected: boolean,
): readonly string[] {
  const { container } = place;
  const { name: volume = "", mountPath: path = "" } = own[0] ?? {};
  const mounts = (container.volumeMounts ?? []).flatMap(({ name, mountPath }, index) => {
    const ours =
      injected && own.some((mount) => name === mount.name && mountPath === mount.mountPath);
    return !ours && isWithin(normal(mountPath), path)
      ? [`${fieldOf(place)}.volumeMounts[${index}].mountPath ${mountPath}`]
      : [];
  });
  const devices = (container.volumeDevices ?? []).flatMap(({ devicePath }, index) =>
    isWithin(normal(devicePath), path)
      ? [`${fieldOf(place)}.volumeDevices[${index}].devicePath ${devicePath}`]
      : [],
  );
  return [...mounts, ...devices].map(
    (field) => `${field} is where ${volume} is mounted; move it, or set another path`,
  );
}

function normal(path: string): string {
  // Nearly all are as they should be.
  if (path.startsWith("/") && !path.includes("/.") && !path.includes("//") && !path.endsWith("/"))
    return path;
  const parts = path.split("/").filter((part) => part !== "" && part !== ".");
  return `/${parts.join("/")}`;
}
