/** CPU and memory of the sidecar. Requests and limits are always set: a quota or a LimitRange would refuse the pod otherwise. */
import { PREFIX } from "#core/annotations.ts";
import { payloadsOf } from "#core/pod-options.ts";
import type { PodOptions } from "#core/pod-options.ts";
import { openRecent } from "#core/remember.ts";
import { cpu, formatBytes } from "#core/values.ts";
import type { Mode } from "./mode.ts";
import type { Container, Resources } from "./pod.ts";
import { given } from "./pod.ts";
import { ephemeralBytes } from "./volumes.ts";

/** Memory of the sidecar itself: the tmpfs for the secrets comes on top, because its pages are charged to the sidecar. */
const OWN_MEMORY = 128 * 2 ** 20;
/** What one more payload takes: its machine, its metadata, and the buffers of a download beside another one. */
const PAYLOAD_MEMORY = 16 * 2 ** 20;
/** The process of the start hook, which waits in the sidecar's own container. */
const HOOK_MEMORY = 48 * 2 ** 20;
/** The least that a memory limit must leave above the tmpfs. */
export const LEAST_MEMORY: number = 64 * 2 ** 20;
/** Millicores. Enough to start in a second and to apply a delta, too little to starve the application on a small machine. */
const CPU_LIMIT = 500;
/** In a Guaranteed pod the limit is reserved, so it is the least with which the sidecar starts in reasonable time. */
const GUARANTEED_CPU = 100;
/** The sidecar's log, on top of the payload. */
const LOG_BYTES = 64 * 2 ** 20;

export interface Amounts {
  readonly cpuRequest: number;
  readonly cpuLimit: number;
  readonly memoryRequest: number;
  readonly memoryLimit: number;
}

/** Millicores and bytes. */
export function amountsOf(options: PodOptions, guaranteed: boolean, mode: Mode): Amounts {
  const { cpuRequest, memoryRequest } = options;
  const tmpfs = options.secrets.length > 0 ? options.secretsSize : 0;
  const more = Math.max(0, payloadsOf(options).length - 1) * PAYLOAD_MEMORY;
  const hook = mode === "container" ? HOOK_MEMORY : 0;
  const memoryLimit = options.memoryLimit ?? OWN_MEMORY + more + hook + tmpfs;
  if (!guaranteed)
    return {
      cpuRequest,
      cpuLimit: options.cpuLimit ?? Math.max(CPU_LIMIT, cpuRequest),
      memoryRequest: Math.min(memoryRequest, memoryLimit),
      memoryLimit,
    };
  const both = options.cpuLimit ?? Math.max(GUARANTEED_CPU, cpuRequest);
  return { cpuRequest: both, cpuLimit: both, memoryRequest: memoryLimit, memoryLimit };
}

/** @param pod the resources of the pod as a whole, which decide its QoS class where it states any */
export function resourcesOf(
  options: PodOptions,
  pod: Resources | null | undefined,
  others: readonly Container[],
  mode: Mode,
): Resources {
  const amounts = amountsOf(options, !statesAny(pod) && isGuaranteed(others), mode);
  const storage = ephemeralLimit(options, others);
  return {
    requests: {
      cpu: cpu.format(amounts.cpuRequest),
      memory: formatBytes(amounts.memoryRequest),
    },
    limits: {
      cpu: cpu.format(amounts.cpuLimit),
      memory: formatBytes(amounts.memoryLimit),
      ...(storage === undefined ? {} : { "ephemeral-storage": storage }),
    },
  };
}

/** Charts write an empty object where nothing is stated, and then the containers decide as if it were not there. */
function statesAny(pod: Resources | null | undefined): boolean {
  return Object.keys({ ...pod?.requests, ...pod?.limits }).length > 0;
}

/** Sums of fractions of a processor are not exact; the least that Kubernetes counts is a thousandth. */
const ROUNDING = 1e-6;

/**
 * The resources of the pod as a whole with room for the sidecar's requests, where the pod has left them to the API server: it makes them those of the containers
 * together before any webhook is asked (defaultPodRequests in core/v1 defaults), and then has no room for one more. A limit that they do not fit stays the pod's.
 */
export function podResources(
  pod: Resources | null | undefined,
  sidecar: Resources,
  others: readonly Pick<Container, "resources">[],
): Resources | null | undefined {
  const raised: Record<string, string> = {};
  for (const name of ["cpu", "memory"] as const) {
    const request = amountOf(pod?.requests, name);
    const limit = amountOf(pod?.limits, name);
    const before = requested(others, name);
    const after = before + requested([{ resources: sidecar }], name);
    if (request === undefined || limit === undefined || Math.abs(request - before) > ROUNDING)
      continue;
    if (after - limit > ROUNDING) continue;
    raised[name] =
      name === "cpu"
        ? cpu.format(Math.ceil(after * 1000 - ROUNDING))
        : formatBytes(Math.ceil(after));
  }
  return Object.keys(raised).length === 0
    ? pod
    : { ...pod, requests: { ...pod?.requests, ...raised } };
}

function amountOf(list: Resources["limits"], name: string): number | undefined {
  const quantity = list?.[name];
  return quantity === undefined ? undefined : amount(quantity);
}

/** By all of them together. Without a request a container's limit is one. */
function requested(containers: readonly Pick<Container, "resources">[], name: string): number {
  return containers.reduce(
    (sum, { resources }) =>
      sum + (amountOf(resources?.requests, name) ?? amountOf(resources?.limits, name) ?? 0),
    0,
  );
}

/**
 * What the API server would refuse in a pod that states resources of its own: together its containers may request no more than it does, and
 * none may have a higher limit.
 */
export function podResourceProblems(
  pod: Resources | null | undefined,
  sidecar: Resources,
  others: readonly Pick<Container, "resources">[],
): readonly string[] {
  return ["cpu", "memory"].flatMap((name) => {
    // Without a request the limit is one, as of a container.
    const request = amountOf(pod?.requests, name) ?? amountOf(pod?.limits, name);
    const limit = amountOf(pod?.limits, name);
    const asked = requested([...others, { resources: sidecar }], name);
    const own = amountOf(sidecar.limits, name) ?? 0;
    return [
      ...(request !== undefined && asked - request > ROUNDING
        ? [
            `spec.resources.requests.${name} has no room for the sidecar's ${sidecar.requests?.[name]}; raise it, or set ${PREFIX}${name}-request`,
          ]
        : []),
      ...(limit !== undefined && own > limit
        ? [
            `spec.resources.limits.${name} is less than the sidecar's ${sidecar.limits?.[name]}; raise it, or set ${PREFIX}${name}-limit`,
          ]
        : []),
    ];
  });
}

/** Whether the pod, without the sidecar, has QoS class Guaranteed: every container has limits of CPU and memory, and its requests equal them. */
export function isGuaranteed(containers: readonly Container[]): boolean {
  return (
    containers.length > 0 &&
    containers.every(({ resources }) =>
      ["cpu", "memory"].every((name) => {
        const limit = resources?.limits?.[name];
        const request = resources?.requests?.[name] ?? limit;
        return limit !== undefined && request !== undefined && amount(limit) > 0
          ? amount(limit) === amount(request)
          : false;
      }),
    )
  );
}

/** Containers whose local storage is limited: the kubelet then holds all volumes of the pod against the sum of the limits. */
export function limitsStorage(containers: readonly Container[]): boolean {
  return containers.some(({ resources }) => given(resources?.limits?.["ephemeral-storage"]));
}

/**
 * Bytes of the node's storage past which the kubelet evicts the pod: the sum of the limits of the containers that run on (PodLimits in
 * k8s.io/component-helpers/resource; an init container's own could only raise it). Undefined where none is limited.
 */
export function localLimit(
  containers: readonly Pick<Container, "resources">[],
): number | undefined {
  const limits = containers.flatMap(({ resources }) => {
    const limit = resources?.limits?.["ephemeral-storage"];
    return given(limit) ? [amount(limit)] : [];
  });
  const sum = limits.reduce((total, bytes) => total + bytes, 0);
  return limits.length === 0 || !(sum >= 1) ? undefined : Math.floor(sum);
}

/** What one payload may take of that; payloads that state no size share what the others leave. */
export function localShare(
  options: PodOptions,
  name: string,
  localBytes: number | undefined,
): number | undefined {
  const local = payloadsOf(options).filter(
    (payload) => payload.options.payloadStorage.kind === "ephemeral",
  );
  if (localBytes === undefined || !local.some((payload) => payload.name === name)) return undefined;
  const others = local.filter((payload) => payload.name !== name);
  let rest = localBytes;
  let sharing = 1;
  for (const { payloadSize } of others.map((payload) => payload.options))
    if (payloadSize === undefined) sharing += 1;
    else rest -= ephemeralBytes(payloadSize);
  return Math.max(1, Math.floor(rest / sharing));
}

function ephemeralLimit(options: PodOptions, others: readonly Container[]): string | undefined {
  const sizes = payloadsOf(options)
    .filter((payload) => payload.options.payloadStorage.kind === "ephemeral")
    .map((payload) => payload.options.payloadSize);
  if (sizes.length === 0 || !limitsStorage(others)) return undefined;
  let sum = LOG_BYTES;
  for (const size of sizes) {
    if (size === undefined) return undefined;
    sum += ephemeralBytes(size);
  }
  return formatBytes(sum);
}

/** Divided by and not multiplied with a fraction, which would be rounded: 700m is 0.7. */
const PARTS: Readonly<Record<string, number>> = { n: 1e9, u: 1e6, m: 1e3 };

const SCALES: Readonly<Record<string, number>> = {
  "": 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  P: 1e15,
  E: 1e18,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  Pi: 2 ** 50,
  Ei: 2 ** 60,
};

/** A Kubernetes quantity as a number, NaN (equal to nothing) when it is none. */
function amount(quantity: string | number): number {
  if (typeof quantity === "number") return quantity;
  return amounts.get(quantity) ?? amounts.set(quantity, amountIn(quantity));
}

/** Pods state the same few over and over. */
const amounts = openRecent<number>(256, 32);

function amountIn(quantity: string): number {
  const match = /^([+-]?[\d.]+(?:[eE][+-]?\d+)?)([A-Za-z]*)$/.exec(quantity);
  const [, digits = "", suffix = ""] = match ?? [];
  const [parts, scale] = [PARTS[suffix], SCALES[suffix]];
  if (match === null) return Number.NaN;
  if (parts !== undefined) return Number(digits) / parts;
  return scale === undefined ? Number.NaN : Number(digits) * scale;
}
