/**
 * The restart lever: the kubelet restarts a container whose liveness probe fails, so the probes of the containers with the
 * payload go through the sidecar, which fails them when a new release wants a restart and otherwise passes on the application's own.
 */
import type { AppProbes, Probe, ProbeHandler } from "#core/probe.ts";
import { leverPath } from "./names.ts";
import { fieldOf, given } from "./pod.ts";
import type { Container, KubeProbe, Place } from "./pod.ts";

const PROBES = ["startupProbe", "livenessProbe", "readinessProbe"] as const;
type ProbeField = (typeof PROBES)[number];

const NUMBERS = [
  "initialDelaySeconds",
  "periodSeconds",
  "timeoutSeconds",
  "successThreshold",
  "failureThreshold",
] as const;

/** The numbers of a probe are of this kind; a larger one would make the API server refuse the whole pod. */
const INT32 = 2_147_483_647;
const MAX_PORT = 65_535;

/** A sentence for each field of the probes that the sidecar cannot stand in for. */
export function probeConflicts(place: Place, lever: boolean): readonly string[] {
  const conflicts: string[] = [];
  for (const field of PROBES) {
    const probe = place.container[field];
    if (!given(probe)) continue;
    const where = `${fieldOf(place)}.${field}`;
    if (given(probe.exec) && field !== "readinessProbe" && lever)
      conflicts.push(
        `${where}.exec cannot go through the sidecar, which restarts the container by these probes; use an http, tcp or grpc probe, or edgesync.dev/on-update with http, signal or none`,
      );
    for (const kind of ["httpGet", "tcpSocket"] as const) {
      const target = probe[kind];
      if (!given(target)) continue;
      if (target.host !== undefined && target.host !== "")
        conflicts.push(
          `${where}.${kind}.host is set; the sidecar asks the pod's own address only, so leave it out`,
        );
      const port = portNumber(target.port, place.container);
      if (port === undefined)
        conflicts.push(
          `${where}.${kind}.port is ${JSON.stringify(target.port)}, which no port of the container is named`,
        );
      else if (!isWhole(port, 1, MAX_PORT))
        conflicts.push(`${where}.${kind}.port is ${port}; expected 1 to ${MAX_PORT}`);
    }
    for (const conflict of valueConflicts(field, probe)) conflicts.push(`${where}${conflict}`);
  }
  return conflicts;
}

/**
 * What the API server refuses (core/v1 validation of a Probe) and would no longer see, because the probe becomes the sidecar's: the pod
 * would be made, and its sidecar could not read its settings.
 */
function valueConflicts(field: ProbeField, probe: KubeProbe): readonly string[] {
  const { exec, httpGet, tcpSocket, grpc } = probe;
  const conflicts: string[] = [];
  const handlers = [exec, httpGet, tcpSocket, grpc].filter(given).length;
  if (handlers !== 1) conflicts.push(` has ${handlers} handlers; expected one`);
  for (const name of NUMBERS) {
    const value = probe[name];
    const most = name === "successThreshold" && field !== "readinessProbe" ? 1 : INT32;
    if (given(value) && !isWhole(value, 0, most))
      conflicts.push(`.${name} is ${value}; expected 0 to ${most}`);
  }
  if (given(grpc) && !isWhole(grpc.port, 1, MAX_PORT))
    conflicts.push(`.grpc.port is ${grpc.port}; expected 1 to ${MAX_PORT}`);
  const { scheme = "", httpHeaders } = httpGet ?? {};
  if (!["", "HTTP", "HTTPS"].includes(scheme))
    conflicts.push(`.httpGet.scheme is ${JSON.stringify(scheme)}; expected HTTP or HTTPS`);
  for (const [index, { name }] of (httpHeaders ?? []).entries())
    if (!/^[-A-Za-z0-9]+$/.test(name))
      conflicts.push(`.httpGet.httpHeaders[${index}].name is not the name of a header`);
  return conflicts;
}

function isWhole(value: number, least: number, most: number): boolean {
  return Number.isInteger(value) && value >= least && value <= most;
}

function portNumber(port: number | string, container: Container): number | undefined {
  if (typeof port === "number") return port;
  const named = (container.ports ?? []).find(({ name }) => name === port)?.containerPort;
  // As the kubelet does: a text that names no port may still be a number.
  return named ?? (/^\d{1,5}$/.test(port) ? Number(port) : undefined);
}

/** The probes of one container as the sidecar carries them out. Call it for containers without {@link probeConflicts}. */
export function appProbes(container: Container, windowMs: number, lever: boolean): AppProbes {
  const own = (field: ProbeField): Probe | undefined => toProbe(container[field], container);
  const startup = own("startupProbe");
  const liveness = own("livenessProbe");
  const readiness = own("readinessProbe");
  return {
    container: container.name,
    startupWindow: startupWindow(startup, windowMs, lever),
    ...(startup === undefined ? {} : { startup }),
    ...(liveness === undefined ? {} : { liveness }),
    ...(readiness === undefined ? {} : { readiness }),
  };
}

/** The container with its startup and liveness probes aimed at the sidecar. */
export function withLever(
  container: Container,
  probes: AppProbes,
  windowMs: number,
  port: number,
): Container {
  const { startup, liveness, startupWindow } = probes;
  return {
    ...container,
    startupProbe: lever(container.startupProbe, startup, startupWindow, {
      path: leverPath(container.name, "startup"),
      port,
    }),
    livenessProbe: lever(
      container.livenessProbe,
      liveness,
      livenessWindow(restartMs(container, windowMs)),
      { path: leverPath(container.name, "live"), port },
    ),
  };
}

interface Window {
  readonly periodMs: number;
  readonly failureThreshold: number;
}

/** How long the kubelet waits for a container with this probe before it restarts it, in milliseconds. */
function windowOf(probe: Probe | undefined): number {
  return probe === undefined ? 0 : probe.periodMs * probe.failureThreshold;
}

/** Milliseconds that the kubelet takes to restart a container whose lever is pulled. */
export function restartMs(container: Container, windowMs: number): number {
  return Math.max(windowMs, windowOf(toProbe(container.livenessProbe, container)));
}

/** Six probes in a window, so that one lost answer is never enough. */
function livenessWindow(windowMs: number): Window {
  const seconds = Math.ceil(windowMs / 1000);
  const period = Math.max(1, Math.floor(seconds / 6));
  return { periodMs: period * 1000, failureThreshold: Math.ceil(seconds / period) };
}

/**
 * The application's own period, or a second: the start of the container is seen, and its readiness asked, that much later.
 * The initial delay is kept by the sidecar, which wants to see the start at once, so the kubelet must wait that much longer.
 */
function startupWindow(own: Probe | undefined, windowMs: number, lever: boolean): Window {
  if (!lever && own !== undefined)
    return { periodMs: own.periodMs, failureThreshold: own.failureThreshold };
  const periodMs = own?.periodMs ?? 1000;
  const needed = Math.max(windowMs, windowOf(own) + (own?.initialDelayMs ?? 0));
  return { periodMs, failureThreshold: Math.min(INT32, Math.ceil(needed / periodMs)) };
}

function lever(
  before: KubeProbe | null | undefined,
  own: Probe | undefined,
  window: Window,
  { path, port }: { path: string; port: number },
): KubeProbe {
  const grace = before?.terminationGracePeriodSeconds;
  return {
    httpGet: { path, port, scheme: "HTTP" },
    periodSeconds: window.periodMs / 1000,
    // The sidecar asks the application within this time; a second more is for itself.
    timeoutSeconds: Math.min(INT32, Math.max(5, (own?.timeoutMs ?? 0) / 1000 + 1)),
    successThreshold: 1,
    failureThreshold: window.failureThreshold,
    ...(given(grace) ? { terminationGracePeriodSeconds: grace } : {}),
  };
}

/** Defaults are those of Kubernetes (core/v1 Probe). `undefined` for none and for exec, which only the kubelet can run. */
function toProbe(probe: KubeProbe | null | undefined, container: Container): Probe | undefined {
  const handler = given(probe) ? toHandler(probe, container) : undefined;
  if (!given(probe) || handler === undefined) return undefined;
  return {
    handler,
    initialDelayMs: (probe.initialDelaySeconds ?? 0) * 1000,
    periodMs: (probe.periodSeconds || 10) * 1000,
    timeoutMs: (probe.timeoutSeconds || 1) * 1000,
    successThreshold: probe.successThreshold || 1,
    failureThreshold: probe.failureThreshold || 3,
  };
}

function toHandler(probe: KubeProbe, container: Container): ProbeHandler | undefined {
  const { httpGet, tcpSocket, grpc } = probe;
  if (given(httpGet))
    return {
      kind: "http",
      scheme: httpGet.scheme?.toUpperCase() === "HTTPS" ? "https" : "http",
      port: portNumber(httpGet.port, container) ?? 0,
      path: httpGet.path === undefined || httpGet.path === "" ? "/" : httpGet.path,
      headers: (httpGet.httpHeaders ?? []).map(({ name, value }) => [name, value] as const),
    };
  if (given(tcpSocket)) return { kind: "tcp", port: portNumber(tcpSocket.port, container) ?? 0 };
  if (given(grpc)) return { kind: "grpc", port: grpc.port, service: grpc.service ?? "" };
  return undefined;
}
