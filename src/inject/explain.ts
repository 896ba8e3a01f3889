/** What would become of a pod, and why: the decision of the webhook as data for people and tools. */
import { NAMESPACE_LABEL, POD_LABEL } from "#core/annotations.ts";
import { ERRORS } from "#core/errors.ts";
import type { ErrorCode } from "#core/errors.ts";
import { SKIP_REASONS } from "#core/reasons.ts";
import type { SkipReason } from "#core/reasons.ts";
import type { ClusterOptions } from "./cluster.ts";
import type { Facts } from "./facts.ts";
import { inject } from "./inject.ts";
import type { Injection } from "./inject.ts";
import type { Mode } from "./mode.ts";
import { SIDECAR } from "./names.ts";
import { given } from "./pod.ts";
import type { Container, KubeProbe, Pod, Resources, VolumeMount } from "./pod.ts";

export type Explanation =
  | {
      readonly outcome: "skipped";
      readonly reason: SkipReason;
      readonly means: string;
    }
  | {
      readonly outcome: "denied";
      readonly reason: ErrorCode;
      readonly means: string;
      readonly problems: readonly string[];
    }
  | InjectedExplanation;

export interface InjectedExplanation {
  readonly outcome: "injected";
  readonly reason: "ok";
  /** What the namespace must be like for the webhook to be asked at all; null where the pod's own label is enough. */
  readonly needs: string | null;
  readonly mode: Mode;
  /** Where the sidecar is: the field, and the containers that start before it. */
  readonly after: readonly string[];
  readonly image: string;
  readonly main: string;
  readonly user: string;
  readonly resources: Resources;
  readonly volumes: readonly { readonly name: string; readonly source: string }[];
  readonly mounts: readonly MountRow[];
  readonly probes: readonly ProbeRow[];
  readonly warnings: readonly string[];
}

export interface MountRow {
  readonly container: string;
  readonly path: string;
  readonly volume: string;
  readonly access: "read-only" | "read-write";
}

/** A probe of the application, as the kubelet carries it out without the sidecar and with it. */
export interface ProbeRow {
  readonly container: string;
  readonly probe: "startup" | "liveness" | "readiness";
  readonly before: string;
  readonly after: string;
}

export function explain(pod: Pod, cluster: ClusterOptions, facts: Facts): Explanation {
  return explanation(pod, inject(pod, cluster, facts));
}

function explanation(pod: Pod, injection: Injection): Explanation {
  if (injection.kind === "skip") {
    const { reason } = injection;
    return { outcome: "skipped", reason, means: SKIP_REASONS[reason] };
  }
  if (injection.kind === "deny") {
    const { code, problems } = injection;
    return { outcome: "denied", reason: code, means: ERRORS[code].means, problems };
  }
  const { pod: changed, mode, main, warnings } = injection;
  const list =
    (mode === "container" ? changed.spec?.containers : changed.spec?.initContainers) ?? [];
  const at = list.findIndex(({ name }) => name === SIDECAR);
  const sidecar = list[at];
  const { runAsUser, runAsGroup } = sidecar?.securityContext ?? {};
  const old = new Set((pod.spec?.volumes ?? []).map(({ name }) => name));
  return {
    outcome: "injected",
    reason: "ok",
    needs:
      pod.metadata?.labels?.[POD_LABEL] === "true"
        ? null
        : `label ${NAMESPACE_LABEL}=enabled on the namespace`,
    mode,
    after: list.slice(0, at).map(({ name }) => name),
    image: sidecar?.image ?? "",
    main,
    user:
      runAsUser === undefined ? "assigned by the platform" : `${runAsUser}:${runAsGroup ?? "0"}`,
    resources: sidecar?.resources ?? {},
    volumes: (changed.spec?.volumes ?? [])
      .filter(({ name }) => !old.has(name))
      .map((volume) => ({ name: volume.name, source: sourceOf(volume) })),
    mounts: changes(pod, changed).flatMap(({ before, after }) => newMounts(before, after)),
    probes: changes(pod, changed)
      .filter(({ after }) => after.name !== SIDECAR)
      .flatMap(({ before, after }) => probeRows(before, after)),
    warnings,
  };
}

/** Each container of the changed pod beside what it was before. */
function changes(
  pod: Pod,
  changed: Pod,
): readonly { readonly before: Container | undefined; readonly after: Container }[] {
  const all = ({ spec }: Pod): readonly Container[] => [
    ...(spec?.initContainers ?? []),
    ...(spec?.containers ?? []),
  ];
  const before = new Map(all(pod).map((container) => [container.name, container]));
  return all(changed).map((after) => ({ before: before.get(after.name), after }));
}

function newMounts(before: Container | undefined, after: Container): readonly MountRow[] {
  const old = new Set((before?.volumeMounts ?? []).map(({ mountPath }) => mountPath));
  return (after.volumeMounts ?? [])
    .filter(({ mountPath }) => !old.has(mountPath))
    .map((mount: VolumeMount) => ({
      container: after.name,
      path: mount.mountPath,
      volume: mount.subPath === undefined ? mount.name : `${mount.name}/${mount.subPath}`,
      access: mount.readOnly === true ? "read-only" : "read-write",
    }));
}

/** The kind of a volume, and the object behind it where there is one. */
function sourceOf(volume: object): string {
  const [kind = "", source] = Object.entries(volume).find(([key]) => key !== "name") ?? [];
  const fields: Readonly<Record<string, unknown>> =
    typeof source === "object" && source !== null ? Object.fromEntries(Object.entries(source)) : {};
  const object = fields["name"] ?? fields["secretName"] ?? fields["claimName"];
  if (typeof object === "string") return `${kind} ${object}`;
  const notes = ["medium", "sizeLimit"].flatMap((key) => {
    const value = fields[key];
    return typeof value === "string" ? [value === "Memory" ? "in memory" : value] : [];
  });
  return [kind, ...notes].join(", ");
}

function probeRows(before: Container | undefined, after: Container): readonly ProbeRow[] {
  return (["startup", "liveness", "readiness"] as const).flatMap((probe) => {
    const [old, now] = [before, after].map((container) => probeText(container?.[`${probe}Probe`]));
    return old === undefined && now === undefined
      ? []
      : [{ container: after.name, probe, before: old ?? "none", after: now ?? "none" }];
  });
}

/** `undefined` for none. Numbers that are not stated are those of Kubernetes. */
function probeText(probe: KubeProbe | null | undefined): string | undefined {
  if (!given(probe)) return undefined;
  const { httpGet, tcpSocket, grpc } = probe;
  const what = given(httpGet)
    ? `${(httpGet.scheme ?? "HTTP").toLowerCase()} :${httpGet.port}${httpGet.path ?? "/"}`
    : given(tcpSocket)
      ? `tcp :${tcpSocket.port}`
      : given(grpc)
        ? `grpc :${grpc.port}${given(grpc.service) && grpc.service !== "" ? `/${grpc.service}` : ""}`
        : "exec";
  return `${what}, every ${probe.periodSeconds ?? 10}s, ${probe.failureThreshold ?? 3} failures`;
}
