/**
 * How the sidecar runs. A native sidecar is all that one could wish for. Before kubelets had them, the first container of a pod whose start
 * hook waits was the way to hold the others back; and a pod whose containers end, such as a Job's, would never end with such a one, so there
 * it is an init container that brings payload and credentials, and ends.
 */
import { PREFIX } from "#core/annotations.ts";
import { payloadsOf } from "#core/pod-options.ts";
import type { PodOptions } from "#core/pod-options.ts";
import type { Facts } from "./facts.ts";
import { MESH_PROXIES, PROGRAM, SIDECAR } from "./names.ts";
import { fieldOf, isNativeSidecar, places } from "./pod.ts";
import type { Container, Place, PodSpec } from "./pod.ts";

export type Mode = "native" | "container" | "once";

/** For people. */
export const MODES: Readonly<Record<Mode, string>> = {
  native: "native sidecar: an init container that goes on running",
  container: "first container, whose start hook holds the others back",
  once: "init container that ends when payload and credentials are there",
};

/** The first argument of every sidecar. */
export const COMMAND = "agent";

export const ARGS: Readonly<Record<Mode, readonly string[]>> = {
  native: [COMMAND],
  container: [COMMAND],
  once: [COMMAND, "--once"],
};

/** The kubelet starts containers in their order, and the next one when the hook of the one before has returned. */
export const HOLD_START: object = {
  postStart: { exec: { command: ["node", PROGRAM, "agent", "--wait"] } },
};

/** @param found the sidecar of an earlier call, which stays as it is */
export function modeOf(
  { sidecarMode }: Partial<PodOptions>,
  { nativeSidecars }: Facts,
  spec: PodSpec,
  found: Place | undefined,
): Mode {
  if (found !== undefined) return foundMode(found);
  if (sidecarMode === "native" || (sidecarMode !== "container" && nativeSidecars)) return "native";
  return ends(spec) ? "once" : "container";
}

function foundMode(found: Place): Mode {
  if (found.list === "containers") return "container";
  return isNativeSidecar(found) ? "native" : "once";
}

/** Whether the pod is over when its containers have ended. */
function ends({ restartPolicy }: PodSpec): boolean {
  return restartPolicy === "Never" || restartPolicy === "OnFailure";
}

/** The list that the sidecar is in. */
export function listOf(mode: Mode): Place["list"] {
  return mode === "container" ? "containers" : "initContainers";
}

/**
 * Where the sidecar belongs in its list: behind those with a smaller index, before the others. A new one comes first of all, because
 * any of them may need its secrets. One that is there already stays, whatever others have put before it. Only the proxies of a mesh
 * always come before it: they are its network, and native ones come up only after it if they stand behind it.
 */
export function sidecarIndex(spec: PodSpec, mode: Mode, found: Place | undefined): number {
  const isProxy = ({ container }: Pick<Place, "container">): boolean =>
    MESH_PROXIES.includes(container.name);
  if (mode !== "container") {
    const last = (spec.initContainers ?? []).findLastIndex(
      (container) => container.restartPolicy === "Always" && isProxy({ container }),
    );
    return Math.max(found?.index ?? 0, last + 1);
  }
  const list = places(spec, "containers");
  const others = list.filter(({ container }) => container.name !== SIDECAR);
  const leading = others.findIndex((place) => !isProxy(place));
  const last = leading === -1 ? others.at(-1) : others[leading - 1];
  return Math.max(found?.index ?? 0, (last?.index ?? -1) + 1);
}

/** What the start does not wait for would never come: the sidecar ends when the start may be. */
export function onceProblems(
  annotations: Readonly<Record<string, string>>,
  options: PodOptions,
  mode: Mode,
): readonly string[] {
  const { gate }: Partial<PodOptions> = options;
  if (mode !== "once" || gate === undefined) return [];
  const left = [
    ...(payloadsOf(options).length > 0 && !gate.includes("payload") ? ["payload"] : []),
    ...(options.secrets.length > 0 && !gate.includes("secrets") ? ["secrets"] : []),
  ];
  const stated = annotations[`${PREFIX}gate`] ?? "none";
  return left.length === 0
    ? []
    : [
        `${PREFIX}gate is ${stated}, and this pod would run without its ${left.join(" and ")}: where not every kubelet knows native sidecars, the sidecar of a pod whose containers end is over before they start, and brings only what they wait for; leave ${PREFIX}gate out`,
      ];
}

/** A proxy that starts only when the sidecar lets it, although the sidecar may have no network without it. */
export function meshProblems(spec: PodSpec, mode: Mode, at: number): readonly string[] {
  if (mode !== "container") return [];
  return places(spec, "containers")
    .filter(({ container, index }) => index >= at && MESH_PROXIES.includes(container.name))
    .map(
      (place) =>
        `${fieldOf(place)} ${place.container.name} comes behind the application, and the sidecar would wait for its network without an end; have the mesh put it first (Istio: holdApplicationUntilProxyStarts, Linkerd: config.linkerd.io/proxy-await), or use native sidecars`,
    );
}

/**
 * Whether a container of the sidecar's name was put there by an earlier call. The API server calls a webhook again after others have
 * changed the pod, and defaults and other webhooks may have added fields by then; a command or a hook is nobody's to add.
 *
 * @param version the variable that each of ours has
 */
export function looksLikeOurs({ list, container }: Place, version: string): boolean {
  const { args, command, env, envFrom, lifecycle, restartPolicy } = container;
  // Nearly all are somebody else's, which the first argument shows.
  if (args?.[0] !== COMMAND) return false;
  const stated = args.join(" ");
  const hook = JSON.stringify(lifecycle ?? null);
  const shapes = {
    native: list === "initContainers" && restartPolicy === "Always" && hook === "null",
    once: list === "initContainers" && (restartPolicy ?? null) === null && hook === "null",
    container: list === "containers" && hook === JSON.stringify(HOLD_START),
  };
  return (
    (["native", "once", "container"] as const).some(
      (mode) => shapes[mode] && stated === ARGS[mode].join(" "),
    ) &&
    (command ?? []).length === 0 &&
    (envFrom ?? []).length === 0 &&
    (env ?? []).some(({ name }: NonNullable<Container["env"]>[number]) => name === version)
  );
}
