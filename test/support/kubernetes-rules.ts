/**
 * What the API server's validation of a pod says beyond its schema (pkg/apis/core/validation of Kubernetes 1.36), for the fields that the
 * injection writes and those that it must not make invalid; and the QoS class by the rules of the kubelet. Written from those rules and not
 * from our code, so that it can be held against it.
 */
import { given } from "#core/inject/pod.ts";
import type { Container, KubeProbe, Pod, PodSpec, Resources } from "#core/inject/pod.ts";

type Fields = Readonly<Record<string, unknown>>;

const LABEL = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;
const SUBDOMAIN = /^(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const PORT_NAME = /^(?=.{1,15}$)(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]*[a-z0-9])?$/;
const ENV_NAME = /^[-._a-zA-Z][-._a-zA-Z0-9]*$/;
/** IDs of users and groups: k8s.io/apimachinery IsValidUserID. */
const MAX_ID = 2_147_483_647;

/** A sentence for each rule that is broken. */
export function ruleProblems(pod: Pod): readonly string[] {
  const spec = pod.spec ?? {};
  const problems: string[] = [];
  const inits = spec.initContainers ?? [];
  const regular = spec.containers ?? [];
  if (regular.length === 0) problems.push("spec.containers is empty");
  unique(
    "container",
    [...inits, ...regular].map(({ name }) => name),
    problems,
  );
  const volumes = new Set((spec.volumes ?? []).map(({ name }) => name));
  unique("volume", [...volumes], problems);
  for (const volume of spec.volumes ?? []) volumeRules(volume, problems);
  for (const one of inits) {
    const native = one.restartPolicy === "Always";
    const { lifecycle, livenessProbe, readinessProbe, startupProbe } = one;
    if (!native && [lifecycle, livenessProbe, readinessProbe, startupProbe].some(given))
      problems.push(`init container ${one.name} ends, and has probes or hooks`);
    if (one.restartPolicy !== undefined && !native)
      problems.push(`init container ${one.name} has restartPolicy ${one.restartPolicy}`);
  }
  for (const one of [...inits, ...regular]) containerRules(one, spec, volumes, problems);
  hostPorts(spec, problems);
  const bytes = Object.entries(pod.metadata?.annotations ?? {})
    .map(([key, value]) => Buffer.byteLength(key) + Buffer.byteLength(value))
    .reduce((sum, size) => sum + size, 0);
  if (bytes > 256 * 1024) problems.push("annotations are too large");
  return problems;
}

function unique(what: string, names: readonly string[], problems: string[]): void {
  if (new Set(names).size !== names.length) problems.push(`a ${what}'s name is there twice`);
  for (const name of names) if (!LABEL.test(name)) problems.push(`${what} ${name} has a bad name`);
}

function containerRules(
  one: Container,
  spec: PodSpec,
  volumes: ReadonlySet<string>,
  problems: string[],
): void {
  const at = (text: string): number => problems.push(`container ${one.name}: ${text}`);
  if (!/^\S+$/.test(one.image ?? "")) at("no image");
  if (!["Always", "IfNotPresent", "Never", undefined].includes(one.imagePullPolicy))
    at("imagePullPolicy");
  const portNames: string[] = [];
  for (const { name, containerPort, hostPort, protocol = "TCP" } of one.ports ?? []) {
    if (!isPort(containerPort)) at(`containerPort ${containerPort}`);
    if (!["TCP", "UDP", "SCTP"].includes(protocol)) at(`protocol ${protocol}`);
    if (name !== undefined && !PORT_NAME.test(name)) at(`name of port ${name}`);
    if (name !== undefined) portNames.push(name);
    if (spec.hostNetwork === true && hostPort !== undefined && hostPort !== containerPort)
      at("hostPort is another one than containerPort on the node's network");
  }
  if (new Set(portNames).size !== portNames.length) at("two ports of one name");
  const paths: string[] = [];
  for (const { name, mountPath, subPath, mountPropagation, readOnly } of one.volumeMounts ?? []) {
    if (!volumes.has(name)) at(`mount of volume ${name}, which is not there`);
    if (mountPath === "" || mountPath.includes(":")) at(`mountPath ${mountPath}`);
    if (subPath !== undefined && /^\/|(^|\/)\.\.(\/|$)/.test(subPath)) at(`subPath ${subPath}`);
    if (mountPropagation === "Bidirectional") at("mountPropagation needs privileges");
    if (readOnly !== undefined && typeof readOnly !== "boolean") at("readOnly");
    paths.push(mountPath);
  }
  for (const { devicePath } of one.volumeDevices ?? []) paths.push(devicePath);
  if (new Set(paths).size !== paths.length) at("two mounts at one path");
  for (const { name, value, valueFrom } of one.env ?? []) {
    if (!ENV_NAME.test(name)) at(`variable ${name}`);
    if (value !== undefined && value !== "" && valueFrom !== undefined)
      at(`${name} has two values`);
    if (Buffer.byteLength(value ?? "") + name.length + 2 > 131_072) at(`${name} is too long`);
  }
  probeRules("liveness", one.livenessProbe, at);
  probeRules("startup", one.startupProbe, at);
  probeRules("readiness", one.readinessProbe, at);
  resourceRules(one.resources, at);
  const context: Fields = { ...one.securityContext };
  for (const key of ["runAsUser", "runAsGroup"]) {
    const id = context[key];
    if (id !== undefined && !(Number.isInteger(id) && Number(id) >= 0 && Number(id) <= MAX_ID))
      at(`${key} ${JSON.stringify(id)}`);
  }
  if (context["privileged"] === true && context["allowPrivilegeEscalation"] === false)
    at("privileged without escalation");
}

function isPort(port: unknown): boolean {
  return Number.isInteger(port) && Number(port) >= 1 && Number(port) <= 65_535;
}

function probeRules(
  kind: "liveness" | "startup" | "readiness",
  probe: KubeProbe | null | undefined,
  at: (text: string) => void,
): void {
  if (probe === null || probe === undefined) return;
  const { httpGet, tcpSocket, grpc, exec } = probe;
  const handlers = [httpGet, tcpSocket, grpc, exec].filter(given);
  if (handlers.length !== 1) at(`${kind}Probe has ${handlers.length} handlers`);
  for (const port of [httpGet?.port, tcpSocket?.port, grpc?.port])
    if (port !== undefined && !(typeof port === "number" ? isPort(port) : PORT_NAME.test(port)))
      at(`${kind}Probe names port ${port}`);
  if (!["HTTP", "HTTPS", undefined].includes(httpGet?.scheme)) at(`${kind}Probe: scheme`);
  const { successThreshold, terminationGracePeriodSeconds: grace } = probe;
  for (const [name, value] of Object.entries(probe))
    if (typeof value === "number" && !(Number.isInteger(value) && value >= 0 && value <= MAX_ID))
      at(`${kind}Probe.${name} is ${value}`);
  if (kind !== "readiness" && (successThreshold ?? 1) > 1) at(`${kind}Probe.successThreshold`);
  if (grace !== undefined && grace !== null && (kind === "readiness" || grace < 1))
    at(`${kind}Probe.terminationGracePeriodSeconds`);
}

function resourceRules(resources: Resources | null | undefined, at: (text: string) => void): void {
  for (const [name, request] of Object.entries(resources?.requests ?? {})) {
    const limit = resources?.limits?.[name];
    if (limit !== undefined && amount(request) > amount(limit)) at(`${name}: request above limit`);
  }
  for (const list of [resources?.requests, resources?.limits])
    for (const [name, quantity] of Object.entries(list ?? {}))
      if (!(amount(quantity) >= 0)) at(`${name}: ${quantity} is no quantity`);
}

/** Kubernetes' quantities as far as tests use them. */
function amount(quantity: string | number): number {
  const [, digits, unit = ""] = /^(\d+(?:\.\d+)?)([A-Za-z]*)$/.exec(String(quantity)) ?? [];
  const units: Readonly<Record<string, number>> = {
    "": 1,
    m: 1e-3,
    k: 1e3,
    M: 1e6,
    G: 1e9,
    Ki: 2 ** 10,
    Mi: 2 ** 20,
    Gi: 2 ** 30,
    Ti: 2 ** 40,
  };
  const scale = units[unit];
  return digits === undefined || scale === undefined ? Number.NaN : Number(digits) * scale;
}

function volumeRules(volume: { readonly name: string }, problems: string[]): void {
  const { name, ...sources } = { ...volume } as { name: string } & Fields;
  const kinds = Object.entries(sources).filter(([, source]) => source !== undefined);
  const at = (text: string): number => problems.push(`volume ${name}: ${text}`);
  if (kinds.length !== 1) at(`${kinds.length} sources`);
  const [kind, value] = kinds[0] ?? [];
  const source: Fields = { ...(value as Fields) };
  const mode = source["defaultMode"];
  if (mode !== undefined && !(Number(mode) >= 0 && Number(mode) <= 0o777)) at("defaultMode");
  if (kind === "emptyDir" && source["sizeLimit"] !== undefined)
    if (!(amount(JSON.stringify(source["sizeLimit"]).replaceAll('"', "")) >= 0)) at("sizeLimit");
  const object = { configMap: "name", secret: "secretName", persistentVolumeClaim: "claimName" };
  for (const [of, key] of Object.entries(object))
    if (kind === of && !SUBDOMAIN.test(String(source[key]))) at(`${key} ${String(source[key])}`);
  if (kind === "projected")
    for (const { serviceAccountToken: token } of (source["sources"] ?? []) as {
      serviceAccountToken?: { path: string; expirationSeconds: number };
    }[])
      if (token !== undefined && (token.path === "" || token.expirationSeconds < 600))
        at("serviceAccountToken");
}

function hostPorts(spec: PodSpec, problems: string[]): void {
  const running = [
    ...(spec.containers ?? []),
    ...(spec.initContainers ?? []).filter(({ restartPolicy }) => restartPolicy === "Always"),
  ];
  const taken = running.flatMap(({ ports }) =>
    (ports ?? []).flatMap(({ hostPort, containerPort, protocol = "TCP" }) => {
      const port = spec.hostNetwork === true ? containerPort : hostPort;
      return port === undefined ? [] : [`${protocol} ${port}`];
    }),
  );
  if (new Set(taken).size !== taken.length) problems.push("a port of the node is there twice");
}

/** k8s.io/kubernetes pkg/apis/core/v1/helper/qos GetPodQOS, for pods without resources of their own. */
export function qosClass({ spec }: Pod): "Guaranteed" | "Burstable" | "BestEffort" {
  const all = [...(spec?.containers ?? []), ...(spec?.initContainers ?? [])];
  const stated = (list: Resources["limits"]): boolean =>
    ["cpu", "memory"].some((name) => amount(list?.[name] ?? 0) > 0);
  if (!all.some(({ resources }) => stated(resources?.requests) || stated(resources?.limits)))
    return "BestEffort";
  const guaranteed = all.every(({ resources }) =>
    ["cpu", "memory"].every((name) => {
      const limit = resources?.limits?.[name];
      // The API server sets a missing request to the limit.
      return limit !== undefined && amount(limit) === amount(resources?.requests?.[name] ?? limit);
    }),
  );
  return guaranteed ? "Guaranteed" : "Burstable";
}

/** What keeps a container from the restricted Pod Security Standard, of the fields that a container must state itself. */
export function restrictedProblems(one: Container): readonly string[] {
  const context: Fields = { ...one.securityContext };
  const capabilities: Fields = { ...(context["capabilities"] as Fields | undefined) };
  const seccomp: Fields = { ...(context["seccompProfile"] as Fields | undefined) };
  const probes = [one.livenessProbe, one.readinessProbe, one.startupProbe];
  const rules: Readonly<Record<string, boolean>> = {
    privileged: context["privileged"] !== true,
    allowPrivilegeEscalation: context["allowPrivilegeEscalation"] === false,
    runAsNonRoot: context["runAsNonRoot"] === true && context["runAsUser"] !== 0,
    "capabilities.drop": JSON.stringify(capabilities["drop"]) === '["ALL"]',
    "capabilities.add": capabilities["add"] === undefined,
    seccompProfile: seccomp["type"] === "RuntimeDefault",
    "host of a probe": probes.every((probe) => probe?.httpGet?.host === undefined),
  };
  return Object.entries(rules).flatMap(([rule, kept]) => (kept ? [] : [rule]));
}
