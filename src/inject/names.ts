/** The names, paths and routes that the webhook puts into a pod and the sidecar finds there. */

export const SIDECAR = "edgesync";

/** The dispatcher in the image. */
export const PROGRAM = "/app/edgesync.mjs";

/** User and group of the sidecar where the pod says nothing else. */
export const DEFAULT_ID = 65_532;

export const VOLUMES = {
  payload: "edgesync-payload",
  link: "edgesync-link",
  secrets: "edgesync-secrets",
  token: "edgesync-token",
  trust: "edgesync-trust",
  repositoryCa: "edgesync-repository-ca",
  repositoryCredentials: "edgesync-repository-credentials",
  vaultCa: "edgesync-vault-ca",
  vaultTls: "edgesync-vault-tls",
  vaultApprole: "edgesync-vault-approle",
  mounted: "edgesync-mounted",
  templates: "edgesync-templates",
  offlineKey: "edgesync-offline-key",
  sealedKey: "edgesync-sealed-key",
  noToken: "edgesync-no-token",
} as const;

/** Mount paths in the sidecar. */
export const PATHS = {
  payload: "/edgesync/payload",
  secrets: "/edgesync/secrets",
  token: "/edgesync/token",
  trust: "/edgesync/trust",
  repositoryCa: "/edgesync/repository-ca",
  repositoryCredentials: "/edgesync/repository-credentials",
  vaultCa: "/edgesync/vault-ca",
  vaultTls: "/edgesync/vault-tls",
  vaultApprole: "/edgesync/vault-approle",
  /** Each Secret in a folder of its name. */
  mounted: "/edgesync/mounted",
  /** Each ConfigMap in a folder of its name. */
  templates: "/edgesync/templates",
  offlineKey: "/edgesync/offline-key",
  sealedKey: "/edgesync/sealed-key",
  import: "/edgesync/import",
  hold: "/edgesync/hold",
  seed: "/edgesync/seed",
  /** Where the API server would otherwise mount the pod's own token into the sidecar too. */
  noToken: "/var/run/secrets/kubernetes.io/serviceaccount",
} as const;

/** Folder of the secrets volume that the application sees: its own, because the root of a tmpfs is sticky. */
export const SECRETS_SUBPATH = "set";

/** File names in the mounted ConfigMaps and in the token's volume. */
export const FILES = { root: "root.json", ca: "ca.crt", token: "token", key: "key" } as const;

/** Keys of the Secrets with which the sidecar logs in. */
export const LOGIN_FILES = {
  vaultTls: ["tls.crt", "tls.key"],
  vaultApprole: ["role_id", "secret_id"],
} as const;

export const MAIN_CONTAINER_ANNOTATION = "kubectl.kubernetes.io/default-container";

/** Service meshes' proxies: never the main container, and native ones start before the sidecar, whose network they are. */
export const MESH_PROXIES: readonly string[] = [
  "istio-proxy",
  "linkerd-proxy",
  "kuma-sidecar",
  "consul-dataplane",
];

/** The route at which the sidecar answers a probe of an application container. */
export function leverPath(container: string, probe: "startup" | "live"): string {
  return `/app/${container}/${probe}`;
}
