/** The sidecar's container: everything that it states, it states on itself, so that no default of the pod can weaken it. */
import { posix } from "node:path";
import { keepText } from "#core/json-text.ts";
import {
  mountedSecrets,
  needsVault,
  payloadsOf,
  templateConfigMaps,
  usesSealed,
} from "#core/pod-options.ts";
import { onceFor, openRecent } from "#core/remember.ts";
import type { Recent } from "#core/remember.ts";
import type { PodOptions } from "#core/pod-options.ts";
import type { AppProbes } from "#core/probe.ts";
import { MAIN_PAYLOAD } from "#core/payloads.ts";
import { payloadSettings, settingsVersion, toEnv, variableOf } from "#core/settings.ts";
import type { Settings } from "#core/settings.ts";
import type { ClusterOptions } from "./cluster.ts";
import { ARGS, HOLD_START, looksLikeOurs } from "./mode.ts";
import type { Mode } from "./mode.ts";
import { DEFAULT_ID, FILES, PATHS, SIDECAR } from "./names.ts";
import { payloadVolumes } from "./payload-volumes.ts";
import type { PayloadVolumes } from "./payload-volumes.ts";
import type { Container, EnvVar, Place, PodSpec, Resources } from "./pod.ts";
import type { Targets } from "./targets.ts";
import { localShare } from "./resources.ts";
import { isKept, sidecarMounts, usesToken } from "./volumes.ts";

/** Failures: an int32, which at one a second lasts 68 years. The gate is the sidecar's to open, never the kubelet's to give up on. */
const ENDLESS = 2_147_483_647;

/** From the downward API, because a pod has neither name nor uid when it is admitted. */
const DOWNWARD: readonly EnvVar[] = [
  ["pod-name", "metadata.name"] as const,
  ["pod-namespace", "metadata.namespace"] as const,
  ["pod-uid", "metadata.uid"] as const,
  ["node-name", "spec.nodeName"] as const,
].map(([key, fieldPath]) => ({
  name: variableOf(key),
  valueFrom: { fieldRef: { apiVersion: "v1", fieldPath } },
}));

export interface Identity {
  /** Undefined where the platform assigns them, or the pod states them for all. */
  readonly uid: number | undefined;
  readonly gid: number | undefined;
  /** Mode of secret files: their group can read them when it is the application's, everybody when it is not known. */
  readonly secretsMode: number;
}

/**
 * Who the sidecar runs as. With the application's own group, files need not be readable by all; that takes a group that the pod
 * states, the same for every container with the secrets. Group 0 is what images without one have, so it protects nothing.
 */
export function identityOf(
  options: PodOptions,
  spec: PodSpec,
  main: Container,
  readers: readonly Container[],
): Identity {
  const groupOf = ({ securityContext }: Container): number =>
    securityContext?.runAsGroup ?? spec.securityContext?.runAsGroup ?? 0;
  const stated = groupOf(main);
  const uid = options.runAs === undefined ? DEFAULT_ID : options.runAs.uid;
  const gid = options.runAs?.gid ?? (stated === 0 ? uid : stated);
  const shared = readers.length > 0 && readers.every((reader) => groupOf(reader) === gid);
  return { uid, gid, secretsMode: shared ? 0o440 : 0o444 };
}

export interface SidecarParts {
  readonly options: PodOptions;
  readonly cluster: ClusterOptions;
  readonly mode: Mode;
  /** Whether the pod has the network of its node. */
  readonly hostNetwork: boolean;
  readonly identity: Identity;
  readonly resources: Resources;
  /** What the pod as a whole may take of the node's storage; undefined for no limit. */
  readonly localBytes: number | undefined;
  readonly app: readonly AppProbes[];
  readonly payloads: Targets["payloads"];
  /** Names of the running containers with the secrets. */
  readonly readers: readonly string[];
  /** Their TCP ports. */
  readonly ports: readonly number[];
  readonly network: "own" | "shared";
  readonly serviceAccount: string;
  /** Owner and service account, where the sidecar is told. */
  readonly workload: string | undefined;
}

/** By what is the operator's, then by what the annotations say: both live as long as they are used. */
const sidecarsOf = onceFor<ClusterOptions, (options: PodOptions) => Recent<Container>>(() =>
  onceFor(() => openRecent(16, 2_048)),
);

/**
 * The same one for the same pods but for their names, as those of one controller are.
 *
 * @throws EdgeSyncError ANNOTATION_INVALID when a setting is larger than a variable may be
 */
export function sidecarContainer(parts: SidecarParts): Container {
  const { options, cluster, payloads, ...others } = parts;
  const having = [...payloads].map(([name, places]) => [name, places.map(nameOf)]);
  // All others, so that a part that is added later is not forgotten here.
  const key = JSON.stringify([others, having]);
  const recent = sidecarsOf(cluster)(options);
  return recent.get(key) ?? recent.set(key, keepText(makeSidecar(parts)));
}

function nameOf({ container }: Place): string {
  return container.name;
}

function makeSidecar(parts: SidecarParts): Container {
  const { options, cluster, mode, hostNetwork, identity, resources } = parts;
  const { uid, gid } = identity;
  const port = cluster.sidecarPort;
  return {
    name: SIDECAR,
    image: options.image ?? cluster.image,
    // A link that is thin or down must not decide whether a pod restarts.
    imagePullPolicy: "IfNotPresent",
    args: ARGS[mode],
    ...(mode === "native" ? { restartPolicy: "Always" } : {}),
    env: [...environment(settingsOf(parts)), ...proxyVariables(parts)],
    ports: [
      {
        name: SIDECAR,
        containerPort: port,
        // The API server wants both to be the same on the node's network.
        ...(hostNetwork ? { hostPort: port } : {}),
        protocol: "TCP",
      },
    ],
    volumeMounts: sidecarMounts(options),
    resources,
    securityContext: {
      runAsNonRoot: true,
      ...(uid === undefined ? {} : { runAsUser: uid }),
      ...(gid === undefined ? {} : { runAsGroup: gid }),
      privileged: false,
      allowPrivilegeEscalation: false,
      capabilities: { drop: ["ALL"] },
      readOnlyRootFilesystem: true,
      seccompProfile: { type: "RuntimeDefault" },
    },
    // An init container that ends may have none.
    ...(mode === "once" ? {} : probesAt(port)),
    ...(mode === "container" ? { lifecycle: HOLD_START } : {}),
    terminationMessagePolicy: "FallbackToLogsOnError",
  } as Container;
}

function probesAt(port: number): object {
  const get = (path: string): object => ({ httpGet: { path, port, scheme: "HTTP" } });
  return {
    startupProbe: { ...get("/startup"), ...timing(1, ENDLESS) },
    // The sidecar itself knows for how long "degraded" is still ready; two answers keep one lost packet from counting.
    readinessProbe: { ...get("/ready"), ...timing(5, 2) },
    // Its death takes the pod out of service, so the kubelet is patient with a busy machine.
    livenessProbe: { ...get("/live"), ...timing(10, 6) },
  };
}

function timing(periodSeconds: number, failureThreshold: number): object {
  return { periodSeconds, timeoutSeconds: 5, successThreshold: 1, failureThreshold };
}

function settingsOf(parts: SidecarParts): Settings {
  const volumes = payloadVolumes(parts.options);
  const main = volumes.find(({ name }) => name === MAIN_PAYLOAD);
  const settings = settingsWith(parts, main, volumes.length);
  const payloads = volumes
    .filter((payload) => payload !== main)
    .map((payload) =>
      payloadSettings(payload.name, settingsWith(parts, payload, volumes.length), settings),
    );
  return { ...settings, payloads, settingsVersion: settingsVersion(payloads) };
}

/** @param payload the one whose settings they are; undefined where none is meant */
function settingsWith(
  {
    options,
    cluster,
    identity,
    localBytes,
    app,
    payloads,
    readers,
    ports,
    network,
    serviceAccount,
    workload,
  }: SidecarParts,
  payload: PayloadVolumes | undefined,
  count: number,
): Settings {
  const secrets = options.secrets.length > 0;
  const vault = needsVault(options);
  const own = payload?.options ?? options;
  const rotates = secrets && options.onRotate.kind === "restart";
  const having = payloads.get(payload?.name ?? "")?.map(nameOf);
  return {
    ...own,
    payloads: [],
    settingsVersion: 1,
    repository: payload && (own.repository ?? cluster.repository),
    repositoryMirrors: payload && mirrorsOf(own, cluster),
    site: count > 0 ? (options.site ?? cluster.site) : undefined,
    vaultAddress: vault ? (options.vaultAddress ?? cluster.vaultAddress) : undefined,
    vaultRole: vault ? roleOf(options, serviceAccount) : undefined,
    podName: undefined,
    podNamespace: undefined,
    podUid: undefined,
    nodeName: undefined,
    payloadDir: payload?.payload.path,
    payloadLinkDir: payload?.link?.path,
    trustRootFile: payload && `${payload.trust.path}/${FILES.root}`,
    repositoryCaFile: payload?.repositoryCa && `${payload.repositoryCa.path}/${FILES.ca}`,
    repositoryCredentialsDir: payload?.repositoryCredentials?.path,
    importDir: payload?.imports?.path,
    holdDir: count > 0 && options.holdVolume !== undefined ? PATHS.hold : undefined,
    seedDir: payload?.seed && posix.join(payload.seed.path, own.payloadSeed?.path ?? ""),
    ephemeralStorage: payload && localShare(options, payload.name, localBytes),
    secretsDir: secrets ? PATHS.secrets : undefined,
    mountedDir: mountedSecrets(options).length > 0 ? PATHS.mounted : undefined,
    templatesDir: templateConfigMaps(options).length > 0 ? PATHS.templates : undefined,
    tokenFile: vault && usesToken(options) ? `${PATHS.token}/${FILES.token}` : undefined,
    vaultTlsDir: vault && options.vaultTlsSecret !== undefined ? PATHS.vaultTls : undefined,
    vaultApproleDir: vault && options.vaultAuth === "approle" ? PATHS.vaultApprole : undefined,
    vaultCaFile:
      vault && options.vaultCa !== undefined ? `${PATHS.vaultCa}/${FILES.ca}` : undefined,
    sealedKeyDir: usesSealed(options) ? PATHS.sealedKey : undefined,
    offlineKeyDir: secrets && isKept(options) ? PATHS.offlineKey : undefined,
    workload,
    secretsMode: identity.secretsMode,
    port: cluster.sidecarPort,
    listenAddress: undefined,
    app,
    // With one payload, every container in the list is there for it.
    workloadContainers: count > 1 || rotates ? having : undefined,
    rotateContainers: rotates ? readers : undefined,
    // Only what Vault has issued is revoked.
    secretsPorts: vault ? ports : undefined,
    podNetwork: vault ? network : "own",
  };
}

/** Of a certificate or an AppRole the service account says nothing. */
function roleOf(options: PodOptions, serviceAccount: string): string | undefined {
  return options.vaultRole ?? (usesToken(options) ? serviceAccount : undefined);
}

/** The cluster's mirrors are those of the cluster's repository. */
function mirrorsOf(
  { repository, repositoryMirrors }: PodOptions,
  cluster: ClusterOptions,
): readonly string[] | undefined {
  const own = cluster.repositoryMirrors.length === 0 ? undefined : cluster.repositoryMirrors;
  return repositoryMirrors ?? (repository === undefined ? own : undefined);
}

/** By the names that all programs know. */
function proxyVariables({ options, cluster }: SidecarParts): readonly EnvVar[] {
  const forVault = needsVault(options) && options.vaultProxy === "environment";
  if (payloadsOf(options).length === 0 && !forVault) return [];
  return Object.entries(cluster.proxy).map(([name, value]) => ({
    name,
    value: literal(value),
  }));
}

/** Kubernetes replaces $(NAME) and $$ in a value; "$$" stands for the character itself. */
function literal(value: string): string {
  return value.includes("$") ? value.replaceAll("$", "$$$$") : value;
}

function environment(settings: Settings): readonly EnvVar[] {
  return [
    ...Object.entries(toEnv(settings)).map(([name, value]) => ({
      name,
      value: literal(value),
    })),
    ...DOWNWARD,
  ];
}

const VERSION_VARIABLE = variableOf("settings-version");

/** The sidecar of an earlier call, wherever that has put it. */
export function findOurs(spec: PodSpec): Place | undefined {
  for (const list of ["initContainers", "containers"] as const)
    for (const [index, container] of (spec[list] ?? []).entries()) {
      const place = { list, index, container };
      if (isOurs(place)) return place;
    }
  return undefined;
}

/** Whether a container of the sidecar's name was put there by an earlier call. */
export function isOurs(place: Place): boolean {
  return looksLikeOurs(place, VERSION_VARIABLE);
}
