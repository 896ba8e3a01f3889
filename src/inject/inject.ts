/**
 * The injection: from a pod to the pod as it should be. Pure, and its own fixed point: the API server calls a webhook again after
 * others have changed the pod, and then this finds nothing left to do.
 */
import { Buffer } from "node:buffer";
import { POD_LABEL } from "#core/annotations.ts";
import { EdgeSyncError } from "#core/errors.ts";
import type { ErrorCode } from "#core/errors.ts";
import { sameJson } from "#core/json-patch.ts";
import { hasAnnotations, payloadsOf, readAnnotations } from "#core/pod-options.ts";
import type { PodOptions } from "#core/pod-options.ts";
import type { SkipReason } from "#core/reasons.ts";
import { onceFor } from "#core/remember.ts";
import { adoptList, adoptSidecar } from "./adopt.ts";
import type { ClusterOptions } from "./cluster.ts";
import { conflicts, droppedNative, mountConflicts, portConflicts } from "./conflicts.ts";
import type { PortKey } from "./conflicts.ts";
import { defaultProblems, withDefaults } from "./defaults.ts";
import { PLAIN_FACTS } from "./facts.ts";
import type { Facts } from "./facts.ts";
import { listOf, meshProblems, modeOf, onceProblems, sidecarIndex } from "./mode.ts";
import type { Mode } from "./mode.ts";
import { MAIN_CONTAINER_ANNOTATION, SIDECAR, VOLUMES } from "./names.ts";
import { probedPlaces, withLevers } from "./levers.ts";
import { podNetwork, readersPorts } from "./presence.ts";
import { ownPorts } from "./own-ports.ts";
import { payloadVolumes } from "./payload-volumes.ts";
import { given, places } from "./pod.ts";
import type { Container, Place, Pod, PodSpec, Resources, VolumeMount } from "./pod.ts";
import { probeConflicts } from "./probes.ts";
import { assignedProblems, requirements, volumeProblems } from "./requirements.ts";
import { localLimit, podResourceProblems, podResources, resourcesOf } from "./resources.ts";
import { findOurs, identityOf, sidecarContainer } from "./sidecar.ts";
import { leverProblems, rotateProblems, signalProblems, trialProblems } from "./telling.ts";
import { findTargets, runsOn } from "./targets.ts";
import type { Targets } from "./targets.ts";
import { probesBefore, throughSidecar } from "./told.ts";
import { payloadMounts, secretsMount, volumesOf } from "./volumes.ts";
import { warnings } from "./warnings.ts";
import { toldOfWorkload, workloadOf } from "./workload.ts";

export type Injection =
  | { readonly kind: "skip"; readonly reason: SkipReason; readonly asked: boolean }
  | {
      readonly kind: "deny";
      readonly code: ErrorCode;
      /** All of the problems, cut where nobody would read on. */
      readonly message: string;
      readonly problems: readonly string[];
    }
  | {
      readonly kind: "injected";
      readonly pod: Pod;
      readonly mode: Mode;
      /** Name of the main container. */
      readonly main: string;
      readonly warnings: readonly string[];
      /** Whether it would be the same at another time. */
      readonly lasting: boolean;
    };

/**
 * What becomes of a pod that was sent to the webhook: its configuration sends only pods of enabled namespaces and pods that are
 * labelled, so a pod without the label is of an enabled namespace.
 */
export function inject(
  pod: Pod,
  clusterOptions: ClusterOptions,
  facts: Facts = PLAIN_FACTS,
): Injection {
  const stated = pod.metadata?.annotations ?? {};
  const label = pod.metadata?.labels?.[POD_LABEL];
  const spec = pod.spec ?? {};
  const skip = (reason: SkipReason): Injection => {
    const asked = label === "true" || hasAnnotations(stated);
    return { kind: "skip", reason, asked };
  };
  if (label === "false") return skip("opted_out");
  if (label === undefined && !hasAnnotations(stated)) return skip("not_requested");
  if (Object.hasOwn(stated, "kubernetes.io/config.mirror")) return skip("mirror_pod");
  if (spec.os?.name === "windows" || spec.nodeSelector?.["kubernetes.io/os"] === "windows")
    return skip("windows");

  const size = bytesOf(stated);
  if (size > ANNOTATIONS_LIMIT)
    return deny("ANNOTATION_INVALID", [
      `metadata.annotations have ${size} bytes; the API server takes ${ANNOTATIONS_LIMIT}`,
    ]);
  const wrongDefaults = facts.defaults.flatMap(defaultProblems);
  if (wrongDefaults.length > 0) return deny("ANNOTATION_INVALID", wrongDefaults);
  const dropped = droppedNative(spec);
  if (dropped.length > 0) return deny("INJECTION_CONFLICT", dropped);
  const annotations = withDefaults(stated, facts.defaults);
  const { options, problems } = readAnnotations(annotations);
  const cluster = clusterFor(clusterOptions)(options);
  const found = findOurs(spec);
  const mode = modeOf(options, facts, spec, found);
  const at = sidecarIndex(spec, mode, found);
  const { targets, problems: strangers } = findTargets(pod, spec, options, mode, at);
  const known = probesBefore(found);
  const wrong = [
    ...(label === undefined || label === "true"
      ? []
      : [`label ${POD_LABEL} is ${JSON.stringify(label)}; allowed: true, false`]),
    ...problems,
    ...settledProblems(cluster)(options, annotations),
    ...assignedProblems(options, spec),
    ...onceProblems(annotations, options, mode),
    ...strangers,
    ...volumeProblems(annotations, options, spec),
    ...payloadsOf(options).flatMap((payload) => {
      const having = (targets?.payloads.get(payload.name) ?? []).filter(runsOn);
      const fresh = having.filter(({ container }) => !known.has(container.name));
      return [
        ...leverProblems(annotations, payload, spec, having),
        ...signalProblems(annotations, payload, spec, having),
        ...trialProblems(annotations, payload, fresh),
      ];
    }),
    ...rotateProblems(annotations, options, spec, (targets?.secrets ?? []).filter(runsOn)),
  ];
  const taken = [
    ...meshProblems(spec, mode, at),
    ...fieldConflicts(annotations, spec, options, cluster, targets, found),
  ];
  if (wrong.length > 0 || taken.length > 0 || targets === undefined)
    return deny(wrong.length > 0 ? "ANNOTATION_INVALID" : "INJECTION_CONFLICT", [
      ...wrong,
      ...taken,
    ]);
  try {
    const parts = { options, cluster, targets, found, mode, at };
    const resources = sidecarResources(spec, parts);
    const others = runningBeside(spec);
    const whole = podResources(spec.resources, resources, others);
    const crowded = podResourceProblems(whole, resources, others);
    if (crowded.length > 0) return deny("INJECTION_CONFLICT", crowded);
    const room = whole === spec.resources || !given(whole) ? spec : { ...spec, resources: whole };
    const changed = injected(pod, room, parts, resources);
    if (sameJson(pod, changed)) return skip("already_injected");
    return {
      kind: "injected",
      pod: changed,
      mode,
      main: targets.main.container.name,
      warnings:
        found === undefined
          ? warnings(stated, options, spec, targets, { mode, now: facts.now })
          : [],
      lasting: payloadsOf(options).every((payload) => typeof payload.options.hold !== "number"),
    };
  } catch (error) {
    // A value too large for a variable. Anything else is no fault of the pod's.
    if (!(error instanceof EdgeSyncError) || error.code !== "ANNOTATION_INVALID") throw error;
    return deny(error.code, [error.message]);
  }
}

/**
 * What is wrong whatever the pod is like. Options are made of the annotations under our prefix, the only ones that are looked at here, and the same annotations
 * give the same options.
 */
const settledProblems = onceFor((cluster: ClusterOptions) => {
  const known = new WeakMap<PodOptions, readonly string[]>();
  return (
    options: PodOptions,
    annotations: Readonly<Record<string, string>>,
  ): readonly string[] => {
    const before = known.get(options);
    if (before !== undefined) return before;
    const problems = [
      ...requirements(annotations, options, cluster),
      ...ownPorts(annotations, options, payloadsOf(options), cluster.sidecarPort),
    ];
    known.set(options, problems);
    return problems;
  };
});

/** The operator's options with the port that a pod states. */
const clusterFor = onceFor((cluster: ClusterOptions) =>
  onceFor(({ sidecarPort = cluster.sidecarPort }: Partial<PodOptions>) => ({
    ...cluster,
    sidecarPort,
  })),
);

/**
 * Bytes of keys and values (apimachinery's TotalAnnotationSizeLimitB). The API server looks only after the webhooks, and what it
 * would refuse is not worth the work.
 */
const ANNOTATIONS_LIMIT = 256 * 2 ** 10;

function bytesOf(annotations: Readonly<Record<string, string>>): number {
  return Object.entries(annotations).reduce(
    (sum, [key, value]) => sum + Buffer.byteLength(key) + Buffer.byteLength(value),
    0,
  );
}

/** Characters; a pod may carry 256 KiB of annotations, each of them wrong. */
const MESSAGE_LIMIT = 8_192;

function deny(code: ErrorCode, problems: readonly string[]): Injection {
  // Two payloads may have the same thing against one field.
  const different = [...new Set(problems)];
  const all = different.join("; ");
  const message = all.length > MESSAGE_LIMIT ? `${all.slice(0, MESSAGE_LIMIT)}…` : all;
  return { kind: "deny", code, message, problems: different };
}

/** Ports that the sidecar listens on, by their annotation: the control port only where there are updates to control. */
function portsOf(
  cluster: ClusterOptions,
  options: PodOptions,
): Readonly<Partial<Record<PortKey, number>>> {
  const { controlPort }: Partial<PodOptions> = options;
  const used = payloadsOf(options).length > 0 && controlPort !== undefined;
  return { "sidecar-port": cluster.sidecarPort, ...(used ? { "control-port": controlPort } : {}) };
}

/** A field for each thing in the way. Options that could not be read are left out of it. */
function fieldConflicts(
  annotations: Readonly<Record<string, string>>,
  spec: PodSpec,
  options: PodOptions,
  cluster: ClusterOptions,
  targets: Targets | undefined,
  found: Place | undefined,
): readonly string[] {
  const { secretsPath, secrets }: Partial<PodOptions> = options;
  const { payloadStorage, secretsSize }: Partial<PodOptions> = options;
  const volumes = payloadVolumes(options);
  const readable =
    payloadStorage !== undefined &&
    secretsSize !== undefined &&
    volumes.every(
      ({ options: own }: { options: Partial<PodOptions> }) => own.payloadStorage !== undefined,
    );
  const again = found !== undefined;
  const inTargets = (
    list: readonly Place[] | undefined,
    path: string | undefined,
    mounts: (mountPath: string) => readonly Pick<VolumeMount, "name" | "mountPath">[],
  ): readonly string[] =>
    path === undefined
      ? []
      : (list ?? []).flatMap((place) => mountConflicts(place, mounts(path), again));
  const levers = withLevers(options, volumes, targets);
  const known = probesBefore(found);
  return [
    ...portConflicts(annotations, spec, portsOf(cluster, options)),
    ...conflicts(spec, readable ? volumesOf(options) : [], again),
    ...volumes.flatMap((payload) =>
      inTargets(targets?.payloads.get(payload.name), payload.options.payloadPath, () =>
        payloadMounts(payload),
      ),
    ),
    ...inTargets(secrets?.length === 0 ? [] : targets?.secrets, secretsPath, (mountPath) => [
      { name: VOLUMES.secrets, mountPath },
    ]),
    ...probedPlaces(options, targets)
      .filter((place) => !known.has(place.container.name))
      .flatMap((place) => probeConflicts(place, levers.has(place.container.name))),
  ];
}

interface Parts {
  readonly options: PodOptions;
  readonly cluster: ClusterOptions;
  readonly targets: Targets;
  readonly found: Place | undefined;
  readonly mode: Mode;
  /** Index of the sidecar in its list. */
  readonly at: number;
}

function beside(spec: PodSpec): readonly Place[] {
  return [...places(spec, "containers"), ...places(spec, "initContainers")].filter(
    ({ container }) => container.name !== SIDECAR,
  );
}

function runningBeside(spec: PodSpec): readonly Container[] {
  return beside(spec)
    .filter(runsOn)
    .map(({ container }) => container);
}

/** What others have made of the sidecar's own stays, as in adoptSidecar. */
function sidecarResources(spec: PodSpec, { options, found, mode }: Parts): Resources {
  const others = beside(spec).map(({ container }) => container);
  return found?.container.resources ?? resourcesOf(options, spec.resources, others, mode);
}

function injected(pod: Pod, spec: PodSpec, parts: Parts, resources: Resources): Pod {
  const { options, cluster, targets, found, mode, at } = parts;
  const { list: app, rewrite } = throughSidecar(parts);
  const readers = targets.secrets.map(({ container }) => container);
  const wanted = sidecarContainer({
    options,
    cluster,
    mode,
    hostNetwork: spec.hostNetwork === true,
    app,
    payloads: targets.payloads,
    readers: targets.secrets.filter(runsOn).map(({ container }) => container.name),
    ports: readersPorts(targets.secrets.filter(runsOn), app, found),
    network: podNetwork(spec, mode, at),
    identity: identityOf(options, spec, targets.main.container, readers),
    resources,
    localBytes: localLimit([...runningBeside(spec), { resources }]),
    serviceAccount: spec.serviceAccountName || "default",
    workload: toldOfWorkload(options) ? workloadOf(pod) : undefined,
  });
  const sidecar = found === undefined ? wanted : adoptSidecar(found.container, wanted, cluster);
  const change = (place: Place): Container => rewrite(place, mounted(place, options, targets));
  const listWith = (list: Place["list"]): readonly Container[] => {
    const own = list === listOf(mode);
    const others = places(spec, list).filter(
      ({ container }) => !own || container !== found?.container,
    );
    if (!own) return others.map(change);
    return [
      ...others.filter(({ index }) => index < at).map(change),
      sidecar,
      ...others.filter(({ index }) => index >= at).map(change),
    ];
  };
  const metadata = pod.metadata ?? {};
  return {
    ...pod,
    metadata: {
      ...metadata,
      annotations: {
        ...metadata.annotations,
        // kubectl logs and exec go to the application, as before; and a second call knows which container that is.
        [MAIN_CONTAINER_ANNOTATION]: targets.shown,
      },
    },
    spec: {
      ...spec,
      volumes: adoptList(spec.volumes, volumesOf(options), ({ name }) => name),
      // Not made where there is none: null and absent stay what they are.
      ...(mode === "container" && !given(spec.initContainers)
        ? {}
        : { initContainers: listWith("initContainers") }),
      containers: listWith("containers"),
    },
  };
}

function mounted(
  { list, index, container }: Place,
  options: PodOptions,
  targets: Targets,
): Container {
  const isIn = (those: readonly Place[]): boolean =>
    those.some((place) => place.list === list && place.index === index);
  const mounts: VolumeMount[] = [];
  for (const payload of payloadVolumes(options))
    if (isIn(targets.payloads.get(payload.name) ?? [])) mounts.push(...payloadMounts(payload));
  if (options.secrets.length > 0 && isIn(targets.secrets)) mounts.push(secretsMount(options));
  if (mounts.length === 0) return container;
  const volumeMounts = adoptList(container.volumeMounts, mounts, ({ mountPath }) => mountPath);
  return { ...container, volumeMounts };
}
