/** The volumes that the injection adds, and where the sidecar and the application mount them. */
import { keepText } from "#core/json-text.ts";
import { mountedSecrets, needsVault, templateConfigMaps, usesSealed } from "#core/pod-options.ts";
import type { PodOptions } from "#core/pod-options.ts";
import { onceFor } from "#core/remember.ts";
import { formatBytes } from "#core/values.ts";
import { FILES, LOGIN_FILES, PATHS, SECRETS_SUBPATH, VOLUMES } from "./names.ts";
import { belowLink, payloadVolumes } from "./payload-volumes.ts";
import type { Mount, PayloadVolumes } from "./payload-volumes.ts";
import type { Volume, VolumeMount } from "./pod.ts";

/** 0444: the owner is root and the sidecar is not, so a stricter mode would lock it out. */
const READABLE = 0o444;

const TOKEN_LIFE_S = 3600;

/** A link, a folder in which the claim is mounted, and nothing that grows. */
const LINK_SOURCE = { sizeLimit: "1Mi" };

type Source = Readonly<Record<string, unknown>>;

/** Which volumes a pod needs, in the order in which they are added. */
export const volumesOf: (options: PodOptions) => readonly Volume[] = onceFor(neededVolumes);

function neededVolumes(options: PodOptions): readonly Volume[] {
  const volumes: (Volume & Source)[] = [];
  const configMap = (volume: string, name: string, file: string): void => {
    const items = [{ key: file, path: file }];
    volumes.push({ name: volume, configMap: { name, items, defaultMode: READABLE } });
  };
  for (const { options: own, ...at } of payloadVolumes(options)) {
    volumes.push({ name: at.payload.volume, ...payloadSource(own) });
    if (at.link !== undefined) volumes.push({ name: at.link.volume, emptyDir: LINK_SOURCE });
    configMap(at.trust.volume, own.trustRoot, FILES.root);
    if (own.repositoryCa !== undefined && at.repositoryCa !== undefined)
      configMap(at.repositoryCa.volume, own.repositoryCa, FILES.ca);
    if (own.repositoryCredentials !== undefined && at.repositoryCredentials !== undefined) {
      // All of its keys: which of them there are is the Secret's to say.
      const secretName = own.repositoryCredentials;
      const secret = { secretName, defaultMode: READABLE };
      volumes.push({ name: at.repositoryCredentials.volume, secret });
    }
  }
  if (options.secrets.length > 0) {
    // Without a limit the tmpfs could take all memory of the node; its pages are charged to the sidecar, which writes them.
    const sizeLimit = formatBytes(options.secretsSize);
    volumes.push({ name: VOLUMES.secrets, emptyDir: { medium: "Memory", sizeLimit } });
  }
  if (needsVault(options)) {
    if (usesToken(options)) volumes.push({ name: VOLUMES.token, projected: tokenSource(options) });
    if (options.vaultCa !== undefined) configMap(VOLUMES.vaultCa, options.vaultCa, FILES.ca);
    for (const [kind, secretName] of loginSecrets(options)) {
      // These keys and no others: without one of them the kubelet says which, and does not start the pod.
      const items = LOGIN_FILES[kind].map((key) => ({ key, path: key }));
      const secret = { secretName, items, defaultMode: READABLE };
      volumes.push({ name: VOLUMES[kind], secret });
    }
  }
  for (const [kind, secretName] of keySecrets(options)) {
    const items = [{ key: FILES.key, path: FILES.key }];
    volumes.push({ name: VOLUMES[kind], secret: { secretName, items, defaultMode: READABLE } });
  }
  for (const [secretName, { volume }] of mountedVolumes(options))
    volumes.push({ name: volume, secret: { secretName, defaultMode: READABLE } });
  for (const { name, keys, volume } of templateVolumes(options)) {
    // As with what a login needs: the kubelet says which key is missing, and does not start the pod.
    const items = keys.map((key) => ({ key, path: key }));
    volumes.push({ name: volume, configMap: { name, items, defaultMode: READABLE } });
  }
  volumes.push({ name: VOLUMES.noToken, emptyDir: {} });
  return firstOfEach(volumes, ({ name }) => name).map(keepText);
}

/** Whether the pod's secrets are kept for a start without a link. Also for options of which one could not be read. */
export function isKept({ offlineSecrets }: Partial<PodOptions>): boolean {
  return typeof offlineSecrets === "number";
}

/** The Secrets with keys of edgesync's own, which only the sidecar mounts. */
function keySecrets(
  options: PodOptions,
): readonly (readonly ["offlineKey" | "sealedKey", string])[] {
  const { secrets, offlineKey, sealedKey } = options;
  const isSealed = secrets.length > 0 && isKept(options);
  return [
    ...(isSealed && offlineKey !== undefined ? [["offlineKey", offlineKey] as const] : []),
    ...(usesSealed(options) && sealedKey !== undefined ? [["sealedKey", sealedKey] as const] : []),
  ];
}

/** Payloads may have volumes and mounts in common. */
function firstOfEach<T>(items: readonly T[], idOf: (item: T) => string): readonly T[] {
  const seen = new Set<string>();
  return items.filter((item) => {
    const fresh = !seen.has(idOf(item));
    seen.add(idOf(item));
    return fresh;
  });
}

function payloadSource({ payloadStorage, payloadSize }: PodOptions): Source {
  if (payloadStorage.kind === "claim")
    return { persistentVolumeClaim: { claimName: payloadStorage.claim } };
  return {
    emptyDir:
      payloadSize === undefined ? {} : { sizeLimit: formatBytes(ephemeralBytes(payloadSize)) },
  };
}

/**
 * What the kubelet allows for a payload of at most `payloadSize` bytes. A full emptyDir is no ENOSPC: the kubelet evicts the pod. So
 * the sidecar's own budget must be used up first, with room for what it does not count: directories, block rounding, its journal.
 */
export function ephemeralBytes(payloadSize: number): number {
  const margin = Math.max(16 * 2 ** 20, payloadSize / 8);
  return Math.ceil((payloadSize + margin) / 2 ** 20) * 2 ** 20;
}

/** Whether the login is by a service-account token. */
export function usesToken({ vaultAuth }: PodOptions): boolean {
  return vaultAuth === "kubernetes" || vaultAuth === "jwt";
}

/** The Secrets that only the sidecar mounts. A certificate may be wanted by Vault's listener, whatever the login is. */
function loginSecrets({
  vaultAuth,
  vaultTlsSecret,
  vaultApproleSecret,
}: PodOptions): readonly (readonly ["vaultTls" | "vaultApprole", string])[] {
  const approle = vaultAuth === "approle" ? vaultApproleSecret : undefined;
  return [
    ...(vaultTlsSecret === undefined ? [] : [["vaultTls", vaultTlsSecret] as const]),
    ...(approle === undefined ? [] : [["vaultApprole", approle] as const]),
  ];
}

/** The token of the login and of nothing else: with an audience the API server itself refuses it. */
function tokenSource({ vaultAudience }: PodOptions): Source {
  const audience = vaultAudience === undefined ? {} : { audience: vaultAudience };
  return {
    sources: [
      { serviceAccountToken: { ...audience, expirationSeconds: TOKEN_LIFE_S, path: FILES.token } },
    ],
    defaultMode: READABLE,
  };
}

export const sidecarMounts: (options: PodOptions) => readonly VolumeMount[] =
  onceFor(mountsOfSidecar);

function mountsOfSidecar(options: PodOptions): readonly VolumeMount[] {
  const mounts: VolumeMount[] = [];
  const mount = (at: Mount | undefined): void => {
    if (at !== undefined) mounts.push({ name: at.volume, mountPath: at.path, readOnly: true });
  };
  const readable = (
    volume:
      "token" | "vaultCa" | "vaultTls" | "vaultApprole" | "offlineKey" | "sealedKey" | "noToken",
  ): void => mount({ volume: VOLUMES[volume], path: PATHS[volume] });
  for (const { payload, link, imports, ...others } of payloadVolumes(options)) {
    const { trust, repositoryCa, repositoryCredentials, seed } = others;
    // Writable and first: the folder in which the claim is mounted is made in it, which read-only mounts then find there.
    if (link !== undefined) mounts.push({ name: link.volume, mountPath: link.path });
    mounts.push({ name: payload.volume, mountPath: payload.path });
    for (const at of [trust, repositoryCa, repositoryCredentials, seed]) mount(at);
    if (imports !== undefined)
      mounts.push({
        name: imports.volume,
        mountPath: imports.path,
        readOnly: true,
        // A stick that is put in later shows up too.
        mountPropagation: "HostToContainer",
      });
  }
  if (options.holdVolume !== undefined && payloadVolumes(options).length > 0)
    mount({ volume: options.holdVolume, path: PATHS.hold });
  if (options.secrets.length > 0) {
    mounts.push({ name: VOLUMES.secrets, mountPath: PATHS.secrets });
  }
  if (needsVault(options)) {
    if (usesToken(options)) readable("token");
    for (const [kind] of loginSecrets(options)) readable(kind);
    if (options.vaultCa !== undefined) readable("vaultCa");
  }
  for (const [kind] of keySecrets(options)) readable(kind);
  for (const [, at] of mountedVolumes(options)) mount(at);
  for (const at of templateVolumes(options)) mount(at);
  // The API server mounts the pod's token into every container that has nothing at this path; the sidecar has no use for it.
  readable("noToken");
  return firstOfEach(mounts, ({ mountPath }) => mountPath);
}

/** The Secrets whose keys the sidecar reads. Numbers, because a Secret may have a longer name than a volume. */
function mountedVolumes(options: PodOptions): readonly (readonly [secret: string, at: Mount])[] {
  return mountedSecrets(options).map((secret, index) => [
    secret,
    { volume: `${VOLUMES.mounted}-${index + 1}`, path: `${PATHS.mounted}/${secret}` },
  ]);
}

/** The ConfigMaps with templates, with the keys that are. */
function templateVolumes(
  options: PodOptions,
): readonly (Mount & { readonly name: string; readonly keys: readonly string[] })[] {
  return templateConfigMaps(options).map(([name, keys], index) => ({
    name,
    keys,
    volume: `${VOLUMES.templates}-${index + 1}`,
    path: `${PATHS.templates}/${name}`,
  }));
}

/** What a container with the payload mounts, all of it read-only. */
export function payloadMounts({ payload, link, options }: PayloadVolumes): readonly VolumeMount[] {
  const { payloadPath } = options;
  const readOnly = true;
  if (link === undefined) return [{ name: payload.volume, mountPath: payloadPath, readOnly }];
  return [
    { name: link.volume, mountPath: payloadPath, readOnly },
    { name: payload.volume, mountPath: belowLink(payloadPath), readOnly },
  ];
}

export function secretsMount({ secretsPath }: PodOptions): VolumeMount {
  return {
    name: VOLUMES.secrets,
    mountPath: secretsPath,
    subPath: SECRETS_SUBPATH,
    readOnly: true,
  };
}
