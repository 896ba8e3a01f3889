/**
 * The pod contract: every annotation under `edgesync.dev/`, once. The parser (`pod-options.ts`), the sidecar's settings, the
 * reference page (`docs/annotations.md`) and the tests are made from these two tables, so a new key is one new row.
 */
import { repositoryUrl, repositoryUrls } from "./addresses.ts";
import { clockSkew } from "./clock-skew.ts";
import * as v from "./values.ts";
import type { Value } from "./values.ts";

export const PREFIX = "edgesync.dev/";

/** On a namespace: `enabled` lets its annotated pods be injected. */
export const NAMESPACE_LABEL = "edgesync.dev/injection";

/** On a pod: `"true"` asks for injection in any namespace, `"false"` refuses it always. */
export const POD_LABEL = "edgesync.dev/inject";

export interface Row<T> {
  /** Section of the reference page. */
  readonly section: Section;
  /** One sentence for the reference page. */
  readonly help: string;
  readonly value: Value<T>;
  /** The text that stands when the annotation is absent; without one the option is undefined. */
  readonly default?: string;
  /** For the reference page, when what stands in its absence is not a fixed text. */
  readonly otherwise?: string;
  /** Whether the sidecar needs to know it: it then travels as one environment variable. */
  readonly sidecar: boolean;
}

export type Section = "Updates" | "Secrets" | "Gate" | "Sidecar";

export const ANNOTATIONS = {
  channel: {
    section: "Updates",
    help: "The update channel that the pod follows.",
    value: v.channelRef,
    otherwise: "the pod has no payload",
    sidecar: true,
  },
  repository: {
    section: "Updates",
    help: "Address of the repository, at a web server or in a registry; the operator's list must allow it.",
    value: repositoryUrl,
    otherwise: "the cluster's default",
    sidecar: true,
  },
  "repository-mirrors": {
    section: "Updates",
    help: "Other addresses of the same repository, tried in this order when one does not do; the operator's list must allow each.",
    value: repositoryUrls,
    otherwise: "the cluster's default, or none where the pod names a repository",
    sidecar: true,
  },
  "repository-credentials": {
    section: "Updates",
    help: "Secret that the sidecar alone mounts, with a token, a username and password, or a .dockerconfigjson for the repository and its mirrors.",
    value: v.objectName,
    otherwise: "the repository is read without credentials",
    sidecar: false,
  },
  "import-volume": {
    section: "Updates",
    help: "A volume of the pod, by its name there, on which bundles of `edgesync export` may appear; the sidecar alone mounts it, read-only.",
    value: v.dnsLabel,
    otherwise: "releases come over the network only",
    sidecar: false,
  },
  "repository-ca": {
    section: "Updates",
    help: "ConfigMap whose key ca.crt holds the certificates that the repository's must chain to.",
    value: v.objectName,
    otherwise: "the public authorities that Node knows",
    sidecar: false,
  },
  "trust-root": {
    section: "Updates",
    help: "ConfigMap whose key root.json holds the first trusted TUF root.",
    value: v.objectName,
    default: "edgesync-trust-root",
    sidecar: false,
  },
  "payload-path": {
    section: "Updates",
    help: "Where the payload volume is mounted in the application's containers; the release is under current/ in it.",
    value: v.absolutePath,
    default: "/payload",
    sidecar: false,
  },
  "payload-containers": {
    section: "Updates",
    help: "The containers that mount the payload volume, read-only.",
    value: v.containerNames,
    otherwise: "the main container",
    sidecar: false,
  },
  "payload-storage": {
    section: "Updates",
    help: "Where the payload lives: ephemeral ends with the pod, a claim outlives it.",
    value: v.payloadStorage,
    default: "ephemeral",
    sidecar: false,
  },
  "payload-size": {
    section: "Updates",
    help: "The most that the payload volume may hold, banks and downloads together.",
    value: v.bytes("1Mi", "16Ti"),
    otherwise: "what the volume has room for",
    sidecar: true,
  },
  site: {
    section: "Updates",
    help: "Name of the site, from which follows when its turn comes in a roll-out; pods with the same name have the same turn.",
    value: v.siteName,
    otherwise:
      "the cluster's default, else the node's name, else a random one that is kept on the payload volume",
    sidecar: true,
  },
  "poll-interval": {
    section: "Updates",
    help: "Time between two looks at the channel; each is moved by up to a tenth at random.",
    value: v.duration("1s", "168h"),
    default: "15m",
    sidecar: true,
  },
  "clock-skew": {
    section: "Updates",
    help: "How long metadata counts beyond its signed expiry, because clocks differ; with several roles each has its own.",
    value: clockSkew,
    default: "24h",
    sidecar: true,
  },
  "full-fallback": {
    section: "Updates",
    help: "Whether files may be fetched whole when no delta fits; a first installation always may.",
    value: v.fullFallback,
    default: "always",
    sidecar: true,
  },
  "on-update": {
    section: "Updates",
    help: "How the main container gets a new release: restart goes through its liveness probe, none leaves it to the application.",
    value: v.oneOf("restart", "none"),
    default: "restart",
    sidecar: true,
  },
  "restart-window": {
    section: "Updates",
    help: "How long the kubelet tolerates a sidecar that does not answer before it restarts the main container; a restart for a release takes as long. The application's own window is kept where it is longer.",
    value: v.duration("2s", "10m"),
    default: "30s",
    sidecar: false,
  },
  health: {
    section: "Updates",
    help: "What tells that a release on trial is healthy.",
    value: v.healthCheck,
    default: "probe",
    sidecar: true,
  },
  "trial-duration": {
    section: "Updates",
    help: "How long a release must stay healthy without a break before it is committed.",
    value: v.duration("1s", "24h"),
    default: "1m",
    sidecar: true,
  },
  "trial-timeout": {
    section: "Updates",
    help: "After this time a release that is not yet committed is rolled back.",
    value: v.duration("2s", "48h"),
    default: "10m",
    sidecar: true,
  },
  "trial-starts": {
    section: "Updates",
    help: "How often the main container may start during a trial before it is rolled back.",
    value: v.integer(1, 10),
    default: "2",
    sidecar: true,
  },
  "vault-address": {
    section: "Secrets",
    help: "Address of Vault or OpenBao; the operator's list must allow it.",
    value: v.serverUrl,
    otherwise: "the cluster's default",
    sidecar: true,
  },
  "vault-ca": {
    section: "Secrets",
    help: "ConfigMap whose key ca.crt holds the certificates that Vault's must chain to.",
    value: v.objectName,
    otherwise: "the public authorities that Node knows",
    sidecar: false,
  },
  "vault-auth": {
    section: "Secrets",
    help: "The auth method of the login; jwt is for sites whose API server Vault cannot reach.",
    value: v.oneOf("kubernetes", "jwt"),
    default: "kubernetes",
    sidecar: true,
  },
  "vault-mount": {
    section: "Secrets",
    help: "Path at which the auth method is mounted.",
    value: v.vaultName,
    otherwise: "the method's name",
    sidecar: true,
  },
  "vault-role": {
    section: "Secrets",
    help: "Role of the login.",
    value: v.vaultName,
    otherwise: "the pod's service account",
    sidecar: true,
  },
  "vault-audience": {
    section: "Secrets",
    help: "Audience of the sidecar's service-account token; required for jwt, and left out for kubernetes, whose TokenReview fails on a foreign one.",
    value: v.audience,
    otherwise: "the API server's own",
    sidecar: false,
  },
  "vault-namespace": {
    section: "Secrets",
    help: "Vault namespace of all requests.",
    value: v.vaultName,
    otherwise: "the root namespace",
    sidecar: true,
  },
  "secrets-path": {
    section: "Secrets",
    help: "Where the secret files are mounted in the application's containers.",
    value: v.absolutePath,
    default: "/run/secrets/edgesync",
    sidecar: false,
  },
  "secrets-containers": {
    section: "Secrets",
    help: "The containers that mount the secret files, read-only.",
    value: v.containerNames,
    otherwise: "the main container",
    sidecar: false,
  },
  "secrets-size": {
    section: "Secrets",
    help: "Size of the memory volume for secrets; two versions of the set must fit.",
    value: v.bytes("64Ki", "64Mi"),
    default: "8Mi",
    sidecar: false,
  },
  "secrets-refresh-interval": {
    section: "Secrets",
    help: "Time between two reads of a secret that has no lease; each is moved by up to a tenth at random.",
    value: v.duration("1s", "24h"),
    default: "5m",
    sidecar: true,
  },
  gate: {
    section: "Gate",
    help: "What the main container's start waits for.",
    value: v.someOf("payload", "secrets"),
    default: "payload,secrets",
    sidecar: true,
  },
  "ready-grace": {
    section: "Gate",
    help: "How long a pod with expired credentials that cannot be renewed stays ready.",
    value: v.duration("0s", "8760h"),
    default: "1h",
    sidecar: true,
  },
  image: {
    section: "Sidecar",
    help: "Image of the sidecar; the operator's list must allow it.",
    value: v.imageReference,
    otherwise: "the cluster's default",
    sidecar: false,
  },
  "cpu-request": {
    section: "Sidecar",
    help: "CPU request of the sidecar; in a Guaranteed pod it equals the limit.",
    value: v.cpu,
    default: "5m",
    sidecar: false,
  },
  "cpu-limit": {
    section: "Sidecar",
    help: "CPU limit of the sidecar.",
    value: v.cpu,
    otherwise: "500m or a larger request; in a Guaranteed pod 100m or a larger request",
    sidecar: false,
  },
  "memory-request": {
    section: "Sidecar",
    help: "Memory request of the sidecar; in a Guaranteed pod it equals the limit.",
    value: v.bytes("16Mi", "16Gi"),
    default: "48Mi",
    sidecar: false,
  },
  "memory-limit": {
    section: "Sidecar",
    help: "Memory limit of the sidecar.",
    value: v.bytes("64Mi", "16Gi"),
    otherwise: "128Mi, and secrets-size where there are secrets",
    sidecar: false,
  },
  "log-level": {
    section: "Sidecar",
    help: "Least level of the sidecar's log.",
    value: v.oneOf("debug", "info", "warn", "error"),
    default: "info",
    sidecar: true,
  },
  "run-as": {
    section: "Sidecar",
    help: "User and group of the sidecar.",
    value: v.runAs,
    otherwise: "65532, and the main container's group where the pod states one",
    sidecar: false,
  },
} as const satisfies Record<string, Row<never> | Row<unknown>>;

/** Families: `edgesync.dev/<family>.<name>`, one name for each secret. `secret` declares it; the others refine it. */
export const SECRET_ANNOTATIONS = {
  secret: {
    section: "Secrets",
    help: "What to ask Vault for: a path, and parameters for a path that is written.",
    value: v.secretRequest,
    otherwise: "required for each name",
    sidecar: true,
  },
  format: {
    section: "Secrets",
    help: "Form of the secret's file: all fields as json or env, or one field as it is.",
    value: v.secretFormat,
    default: "json",
    sidecar: true,
  },
  file: {
    section: "Secrets",
    help: "Name of the secret's file.",
    value: v.fileName,
    otherwise: "the secret's name",
    sidecar: true,
  },
  mode: {
    section: "Secrets",
    help: "Mode of the secret's file.",
    value: v.fileMode,
    otherwise: "0440 where the pod states the main container's group, else 0444",
    sidecar: true,
  },
} as const satisfies Record<string, Row<never> | Row<unknown>>;
