/** What a cluster's operator decides for every pod. */
export interface ClusterOptions {
  /** The sidecar's image where the pod names none. */
  readonly image: string;
  /** Other images that a pod may name; an entry may end with `*`. */
  readonly images: readonly string[];
  readonly repository: string | undefined;
  /** Other repositories that a pod may name; an entry may end with `*`. */
  readonly repositories: readonly string[];
  /** Where the default repository is to be had too, in the order in which they are tried. */
  readonly repositoryMirrors: readonly string[];
  /** Variables for the sidecar of each pod with a payload: HTTPS_PROXY, HTTP_PROXY, NO_PROXY. */
  readonly proxy: Readonly<Record<string, string>>;
  /** Name of the site, for clusters that are one site. */
  readonly site: string | undefined;
  readonly vaultAddress: string | undefined;
  /** Other addresses of Vault that a pod may name; an entry may end with `*`. */
  readonly vaultAddresses: readonly string[];
  /** Port of the sidecar on the pod's network. */
  readonly sidecarPort: number;
}

/** Whether the operator allows a value: it is the default, or on the list. No list allows the default only. */
export function isAllowed(
  value: string,
  fallback: string | undefined,
  list: readonly string[],
): boolean {
  return (
    value === fallback ||
    list.some((entry) =>
      entry.endsWith("*") ? value.startsWith(entry.slice(0, -1)) : value === entry,
    )
  );
}
