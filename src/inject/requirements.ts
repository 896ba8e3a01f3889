/** What the annotations require of each other, of the pod and of the operator's lists: a sentence for each thing that is wrong. */
import { PREFIX } from "#core/annotations.ts";
import { MAIN_PAYLOAD, keyFor } from "#core/payloads.ts";
import { needsVault, payloadsOf, usesSealed } from "#core/pod-options.ts";
import type { PodOptions } from "#core/pod-options.ts";
import { formatBytes, formatDuration } from "#core/values.ts";
import { isAllowed } from "./cluster.ts";
import type { ClusterOptions } from "./cluster.ts";
import { VOLUMES } from "./names.ts";
import type { PodSpec } from "./pod.ts";
import { templateProblems } from "./templates.ts";
import { LEAST_MEMORY } from "./resources.ts";

export type Annotations = Readonly<Record<string, string>>;

/** Options of which those that could not be read are undefined. */
export type ReadOptions = Partial<PodOptions>;

export function has(annotations: Annotations, key: string): boolean {
  return Object.hasOwn(annotations, PREFIX + key);
}

export function hasSecrets(annotations: Annotations): boolean {
  return Object.keys(annotations).some(
    (key) => key.startsWith(`${PREFIX}secret.`) || key.startsWith(`${PREFIX}template.`),
  );
}

/** A payload's options of which those that could not be read are undefined. */
export interface ReadPayload {
  readonly name: string;
  readonly options: ReadOptions;
}

/** The annotation as the pod states it for a payload: its own, or the one that it has from `main`. */
export function keyOf(annotations: Annotations, key: string, { name }: ReadPayload): string {
  const own = keyFor(key, name);
  return PREFIX + (has(annotations, own) ? own : key);
}

export function requirements(
  annotations: Annotations,
  options: PodOptions,
  cluster: ClusterOptions,
): readonly string[] {
  const payloads: readonly ReadPayload[] = payloadsOf(options);
  return [
    ...neededTogether(annotations, options, cluster),
    ...notAllowed(annotations, options, payloads, cluster),
    ...payloads.flatMap((payload) => trialOrder(annotations, payload)),
    ...outOfOrder(options),
    ...(payloads.length > 0 && options.controlPort === cluster.sidecarPort
      ? [
          `${PREFIX}control-port is ${cluster.sidecarPort}, which ${PREFIX}sidecar-port is too; set one of them to another port`,
        ]
      : []),
    ...mountPaths(annotations, options),
    ...templateProblems(options),
    ...sharedClaims(annotations, payloads),
  ];
}

function neededTogether(
  annotations: Annotations,
  options: PodOptions,
  cluster: ClusterOptions,
): readonly string[] {
  const problems: string[] = [];
  const channel = has(annotations, "channel");
  const secrets = hasSecrets(annotations);
  if (!channel && options.payloads.length === 0 && !secrets)
    problems.push(
      `the pod has neither ${PREFIX}channel nor ${PREFIX}secret.<name>; at least one is needed`,
    );
  const withoutOne = [...(channel ? [MAIN_PAYLOAD] : []), ...options.payloads.map((p) => p.name)]
    .filter((name) => !has(annotations, keyFor("repository", name)))
    .some(() => !has(annotations, "repository"));
  if (withoutOne && cluster.repository === undefined)
    problems.push(`${PREFIX}repository is needed: the cluster has no default`);
  // Also where one of them could not be read: it may be Vault's.
  const vault = secrets && (options.secrets.length === 0 || needsVault(options));
  if (vault && !has(annotations, "vault-address") && cluster.vaultAddress === undefined)
    problems.push(`${PREFIX}vault-address is needed: the cluster has no default`);
  if (vault && options.vaultAuth === "jwt" && !has(annotations, "vault-audience"))
    problems.push(
      `${PREFIX}vault-audience is needed with ${PREFIX}vault-auth: jwt; the login's role names it`,
    );
  for (const [method, key] of [
    ["cert", "vault-tls-secret"],
    ["approle", "vault-approle-secret"],
  ] as const)
    if (vault && options.vaultAuth === method && !has(annotations, key))
      problems.push(
        `${PREFIX}${key} is needed with ${PREFIX}vault-auth: ${method}; it names the Secret with ${LOGIN[method]}`,
      );
  if (usesSealed(options)) {
    if (!has(annotations, "sealed-key"))
      problems.push(
        `${PREFIX}sealed-key is needed with sealed: secrets; it names the Secret whose key \`key\` opens them`,
      );
    if (!channel && options.payloads.length === 0)
      problems.push(`a sealed: secret is a file of a release, which comes with ${PREFIX}channel`);
  }
  if (typeof options.offlineSecrets === "number") {
    if (!has(annotations, "offline-key"))
      problems.push(
        `${PREFIX}offline-key is needed with ${PREFIX}offline-secrets; it names the Secret whose key \`key\` seals the set`,
      );
    if (!channel && options.payloads.length === 0)
      problems.push(
        `${PREFIX}offline-secrets needs a payload volume, which comes with ${PREFIX}channel`,
      );
  }
  return problems;
}

const LOGIN = { cert: "tls.crt and tls.key", approle: "role_id and secret_id" } as const;

function notAllowed(
  annotations: Annotations,
  options: ReadOptions,
  payloads: readonly ReadPayload[],
  cluster: ClusterOptions,
): readonly string[] {
  const repositories = [...cluster.repositoryMirrors, ...cluster.repositories];
  // Also where nothing follows a channel of it yet.
  const all = payloads.length === 0 ? [{ name: MAIN_PAYLOAD, options }] : payloads;
  const addresses = all.flatMap((payload) => [
    [keyOf(annotations, "repository", payload), payload.options.repository] as const,
    ...(payload.options.repositoryMirrors ?? []).map(
      (mirror) => [keyOf(annotations, "repository-mirrors", payload), mirror] as const,
    ),
  ]);
  const lists = [
    [`${PREFIX}image`, options.image, cluster.image, cluster.images],
    ...addresses.map(([key, address]) => [key, address, cluster.repository, repositories] as const),
    [`${PREFIX}vault-address`, options.vaultAddress, cluster.vaultAddress, cluster.vaultAddresses],
  ] as const;
  return lists.flatMap(([key, value, fallback, list]) => {
    if (value === undefined || isAllowed(value, fallback, list)) return [];
    const allowed = [...(fallback === undefined ? [] : [fallback]), ...list];
    return [
      `${key} is ${JSON.stringify(value)}, which the operator does not allow; allowed: ${allowed.join(", ") || "none"}`,
    ];
  });
}

/** @returns a sentence when the sidecar would be made to run as root, which the kubelet refuses only when it starts the container */
export function assignedProblems({ runAs }: ReadOptions, spec: PodSpec): readonly string[] {
  return runAs !== undefined && runAs.uid === undefined && spec.securityContext?.runAsUser === 0
    ? [
        `${PREFIX}run-as is assigned, and spec.securityContext.runAsUser is 0: the sidecar does not run as root; state a user`,
      ]
    : [];
}

function trialOrder(annotations: Annotations, payload: ReadPayload): readonly string[] {
  const { trialDuration, trialTimeout } = payload.options;
  if (trialDuration === undefined || trialTimeout === undefined || trialTimeout > trialDuration)
    return [];
  const [timeout, duration] = ["trial-timeout", "trial-duration"].map((key) =>
    keyOf(annotations, key, payload),
  );
  return [
    `${timeout} is ${formatDuration(trialTimeout)}; it must be longer than ${duration}, ${formatDuration(trialDuration)}`,
  ];
}

/** Two machines in one folder would each sweep what the other has fetched. */
function sharedClaims(
  annotations: Annotations,
  payloads: readonly ReadPayload[],
): readonly string[] {
  const first = new Map<string, string>();
  return payloads.flatMap((payload) => {
    const { payloadStorage: storage } = payload.options;
    if (storage?.kind !== "claim") return [];
    const key = keyOf(annotations, "payload-storage", payload);
    const other = first.get(storage.claim);
    if (other === undefined) first.set(storage.claim, key);
    return other === undefined
      ? []
      : [`${key} is claim/${storage.claim}, which ${other} has; each payload needs its own`];
  });
}

function outOfOrder(options: ReadOptions): readonly string[] {
  const problems: string[] = [];
  const { secretsSize, memoryLimit, memoryRequest } = options;
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

function mountPaths(annotations: Annotations, options: PodOptions): readonly string[] {
  const others = options.payloads.map(
    ({ name, own }) => [keyFor("payload-path", name), own.payloadPath] as const,
  );
  const paths = [
    ["payload-path", has(annotations, "channel") ? options.payloadPath : undefined] as const,
    ...others,
    ["secrets-path", hasSecrets(annotations) ? options.secretsPath : undefined] as const,
  ].flatMap(([key, path]) => (path === undefined ? [] : [{ key: PREFIX + key, path }]));
  const system = paths.flatMap(({ key, path }) =>
    SYSTEM_PATHS.some((system) => isWithin(path, system))
      ? [`${key} is ${path}; ${SYSTEM_PATHS.join(", ")} belong to the system`]
      : [],
  );
  const nested = paths.flatMap((one, index) =>
    paths
      .slice(index + 1)
      .filter(({ path }) => isWithin(one.path, path) || isWithin(path, one.path))
      .map(
        (other) =>
          `${one.key} ${one.path} and ${other.key} ${other.path} must not lie in each other`,
      ),
  );
  return [...system, ...nested];
}

/** The volumes of bundles, seeds and holds are ones that the pod brings along. */
export function volumeProblems(
  annotations: Annotations,
  options: PodOptions,
  spec: PodSpec,
): readonly string[] {
  const payloads: readonly ReadPayload[] = payloadsOf(options);
  const { holdVolume }: ReadOptions = options;
  const named = payloads.some(
    ({ options: own }) => own.importVolume !== undefined || own.payloadSeed !== undefined,
  );
  if (!named && holdVolume === undefined) return [];
  const own = (spec.volumes ?? []).map(({ name }) => name).filter((name) => !isInjected(name));
  const problem = (key: string, volume: string | undefined): readonly string[] =>
    volume === undefined || own.includes(volume)
      ? []
      : [
          `${key} is ${volume}, which is no volume of the pod; spec.volumes has ${own.join(", ") || "none"}`,
        ];
  const readOnly = (spec.volumes ?? []).flatMap((volume, index) => {
    const kind = READ_ONLY.find((kind) => Object.hasOwn(volume, kind));
    return volume.name === holdVolume && kind !== undefined
      ? [
          `${PREFIX}hold-volume is ${holdVolume}, and spec.volumes[${index}] is a ${kind}, to which no application can write; use an emptyDir or a claim`,
        ]
      : [];
  });
  return [
    ...payloads.flatMap((payload) => [
      ...problem(keyOf(annotations, "import-volume", payload), payload.options.importVolume),
      ...problem(keyOf(annotations, "payload-seed", payload), payload.options.payloadSeed?.volume),
    ]),
    ...(payloads.length === 0 ? [] : [...problem(`${PREFIX}hold-volume`, holdVolume), ...readOnly]),
  ];
}

/** Kinds of volumes whose files come from the API server; the kubelet mounts them read-only. */
const READ_ONLY = ["secret", "configMap", "downwardAPI", "projected", "image"] as const;

/** Whether a volume has a name that the injection gives. */
function isInjected(volume: string): boolean {
  return Object.values<string>(VOLUMES).some(
    (ours) => volume === ours || volume.startsWith(`${ours}-`),
  );
}
