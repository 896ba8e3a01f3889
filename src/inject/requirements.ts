/** What the annotations require of each other, of the pod and of the operator's lists: a sentence for each thing that is wrong. */
import { ANNOTATIONS, PREFIX } from "#core/annotations.ts";
import type { Section } from "#core/annotations.ts";
import type { PodOptions } from "#core/pod-options.ts";
import { formatBytes, formatDuration } from "#core/values.ts";
import { isAllowed } from "./cluster.ts";
import type { ClusterOptions } from "./cluster.ts";
import { VOLUMES } from "./names.ts";
import { given } from "./pod.ts";
import type { Container, PodSpec } from "./pod.ts";
import { restartMs } from "./probes.ts";
import { LEAST_MEMORY, limitsStorage } from "./resources.ts";
import { runsOn } from "./targets.ts";
import type { Targets } from "./targets.ts";

type Annotations = Readonly<Record<string, string>>;

/** Options of which those that could not be read are undefined. */
export type ReadOptions = Partial<PodOptions>;

function has(annotations: Annotations, key: string): boolean {
  return Object.hasOwn(annotations, PREFIX + key);
}

function hasSecrets(annotations: Annotations): boolean {
  return Object.keys(annotations).some((key) => key.startsWith(`${PREFIX}secret.`));
}

export function requirements(
  annotations: Annotations,
  options: ReadOptions,
  cluster: ClusterOptions,
): readonly string[] {
  return [
    ...neededTogether(annotations, options, cluster),
    ...notAllowed(options, cluster),
    ...outOfOrder(options),
    ...mountPaths(annotations, options),
  ];
}

function neededTogether(
  annotations: Annotations,
  options: ReadOptions,
  cluster: ClusterOptions,
): readonly string[] {
  const problems: string[] = [];
  const channel = has(annotations, "channel");
  const secrets = hasSecrets(annotations);
  if (!channel && !secrets)
    problems.push(
      `the pod has neither ${PREFIX}channel nor ${PREFIX}secret.<name>; at least one is needed`,
    );
  if (channel && !has(annotations, "repository") && cluster.repository === undefined)
    problems.push(`${PREFIX}repository is needed: the cluster has no default`);
  if (secrets && !has(annotations, "vault-address") && cluster.vaultAddress === undefined)
    problems.push(`${PREFIX}vault-address is needed: the cluster has no default`);
  if (secrets && options.vaultAuth === "jwt" && !has(annotations, "vault-audience"))
    problems.push(
      `${PREFIX}vault-audience is needed with ${PREFIX}vault-auth: jwt; the login's role names it`,
    );
  return problems;
}

function notAllowed(options: ReadOptions, cluster: ClusterOptions): readonly string[] {
  const repositories = [...cluster.repositoryMirrors, ...cluster.repositories];
  const lists = [
    ["image", options.image, cluster.image, cluster.images],
    ["repository", options.repository, cluster.repository, repositories],
    ...(options.repositoryMirrors ?? []).map(
      (mirror) => ["repository-mirrors", mirror, cluster.repository, repositories] as const,
    ),
    ["vault-address", options.vaultAddress, cluster.vaultAddress, cluster.vaultAddresses],
  ] as const;
  return lists.flatMap(([key, value, fallback, list]) => {
    if (value === undefined || isAllowed(value, fallback, list)) return [];
    const allowed = [...(fallback === undefined ? [] : [fallback]), ...list];
    return [
      `${PREFIX}${key} is ${JSON.stringify(value)}, which the operator does not allow; allowed: ${allowed.join(", ") || "none"}`,
    ];
  });
}

function outOfOrder(options: ReadOptions): readonly string[] {
  const problems: string[] = [];
  const { trialDuration, trialTimeout, secretsSize, memoryLimit, memoryRequest } = options;
  if (trialDuration !== undefined && trialTimeout !== undefined && trialTimeout <= trialDuration)
    problems.push(
      `${PREFIX}trial-timeout is ${formatDuration(trialTimeout)}; it must be longer than ${PREFIX}trial-duration, ${formatDuration(trialDuration)}`,
    );
  if (memoryLimit !== undefined && secretsSize !== undefined && options.secrets?.length !== 0) {
    const least = secretsSize + LEAST_MEMORY;
    if (memoryLimit < least)
      problems.push(
        `${PREFIX}memory-limit is ${formatBytes(memoryLimit)}; with ${PREFIX}secrets-size ${formatBytes(secretsSize)} at least ${formatBytes(least)} is needed`,
      );
  }
  if (memoryLimit !== undefined && memoryRequest !== undefined && memoryRequest > memoryLimit)
    problems.push(`${PREFIX}memory-request is larger than ${PREFIX}memory-limit`);
  const { cpuRequest, cpuLimit } = options;
  if (cpuRequest !== undefined && cpuLimit !== undefined && cpuRequest > cpuLimit)
    problems.push(`${PREFIX}cpu-request is larger than ${PREFIX}cpu-limit`);
  return problems;
}

/** Folders in which a container runtime puts file systems of its own. */
const SYSTEM_PATHS = ["/proc", "/sys", "/dev"] as const;

/** Whether one path is the other or lies below it. */
export function isWithin(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder.endsWith("/") ? folder : `${folder}/`);
}

function mountPaths(annotations: Annotations, options: ReadOptions): readonly string[] {
  const paths = [
    ["payload-path", has(annotations, "channel") ? options.payloadPath : undefined],
    ["secrets-path", hasSecrets(annotations) ? options.secretsPath : undefined],
  ] as const;
  const problems = paths.flatMap(([key, path]) =>
    path !== undefined && SYSTEM_PATHS.some((system) => isWithin(path, system))
      ? [`${PREFIX}${key} is ${path}; ${SYSTEM_PATHS.join(", ")} belong to the system`]
      : [],
  );
  const [[, payload], [, secrets]] = paths;
  if (payload !== undefined && secrets !== undefined)
    if (isWithin(payload, secrets) || isWithin(secrets, payload))
      problems.push(
        `${PREFIX}payload-path ${payload} and ${PREFIX}secrets-path ${secrets} must not lie in each other`,
      );
  return problems;
}

/** The volume of bundles is one that the pod brings along. */
export function importProblems(
  { channel, importVolume }: ReadOptions,
  spec: PodSpec,
): readonly string[] {
  if (channel === undefined || importVolume === undefined) return [];
  const own = (spec.volumes ?? []).map(({ name }) => name).filter((name) => !isInjected(name));
  if (own.includes(importVolume)) return [];
  return [
    `${PREFIX}import-volume is ${importVolume}, which is no volume of the pod; spec.volumes has ${own.join(", ") || "none"}`,
  ];
}

function isInjected(volume: string): boolean {
  return Object.values<string>(VOLUMES).includes(volume);
}

/** What must be so in the pod for the restart lever to do what it says. */
export function leverProblems(
  options: ReadOptions,
  spec: PodSpec,
  payload: readonly { readonly container: Container }[],
): readonly string[] {
  if (options.channel === undefined || options.onUpdate?.kind !== "restart") return [];
  const policies = [
    ["spec.restartPolicy", spec.restartPolicy] as const,
    ...payload.map(
      ({ container }) =>
        [`restartPolicy of container ${container.name}`, container.restartPolicy] as const,
    ),
  ];
  return policies.flatMap(([field, policy]) =>
    policy === "Never" || policy === "OnFailure"
      ? [
          `${field} is ${policy}, so a container that is stopped for a new release would not start again; set ${PREFIX}on-update: none`,
        ]
      : [],
  );
}

/**
 * A trial must outlast the restart that it begins with: a shorter one would roll back every release.
 *
 * @param fresh the containers with the lever whose probes are still their own
 */
export function trialProblems(
  { channel, onUpdate, trialDuration, trialTimeout, restartWindow }: ReadOptions,
  fresh: readonly { readonly container: Container }[],
): readonly string[] {
  if (channel === undefined || onUpdate?.kind !== "restart") return [];
  if (trialDuration === undefined || trialTimeout === undefined || restartWindow === undefined)
    return [];
  // Said already.
  if (trialTimeout <= trialDuration) return [];
  return fresh.flatMap(({ container }) => {
    const ms = restartMs(container, restartWindow);
    return trialTimeout <= ms + trialDuration
      ? [
          `${PREFIX}trial-timeout is ${formatDuration(trialTimeout)}; it must be longer than ${formatDuration(ms + trialDuration)}: a restart of container ${container.name} takes up to ${formatDuration(ms)} (${PREFIX}restart-window, or its livenessProbe), and ${PREFIX}trial-duration comes after it`,
        ]
      : [];
  });
}

/** Things that work, and that somebody may want to know. */
export function warnings(
  annotations: Annotations,
  options: PodOptions,
  spec: PodSpec,
  targets: Targets,
): readonly string[] {
  const found: string[] = [];
  if (options.channel !== undefined) {
    if (options.payloadStorage.kind === "ephemeral") {
      found.push(
        `${PREFIX}payload-storage is ephemeral: each new pod downloads the whole payload; claim/<name> keeps it`,
      );
      if (options.payloadSize === undefined && limitsStorage(spec.containers ?? []))
        found.push(
          `${PREFIX}payload-size is not set, and the pod's ephemeral-storage limits count the payload: past them it is evicted`,
        );
    }
    if (options.health.kind === "probe" && !targets.payload.filter(runsOn).some(hasProbe))
      found.push(
        `${PREFIX}health is probe, but no container with the payload has an http, tcp or grpc probe: a trial can only watch starts`,
      );
  }
  const idle: readonly (readonly [Section, boolean, string])[] = [
    ["Updates", options.channel !== undefined, "channel"],
    ["Secrets", options.secrets.length > 0, "secret.<name>"],
  ];
  for (const [section, used, needed] of idle)
    for (const [key, row] of Object.entries(ANNOTATIONS))
      if (!used && row.section === section && has(annotations, key))
        found.push(`${PREFIX}${key} has no effect without ${PREFIX}${needed}`);
  return found;
}

function hasProbe({ container }: { readonly container: Container }): boolean {
  return [container.startupProbe, container.livenessProbe, container.readinessProbe].some(
    (probe) => given(probe?.httpGet) || given(probe?.tcpSocket) || given(probe?.grpc),
  );
}
