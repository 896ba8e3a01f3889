/** The settings of the webhook: one environment variable for each, from one table. */
import { EdgeSyncError } from "#core/errors.ts";
import type { ClusterOptions } from "#core/inject/cluster.ts";
import { isOci, noProxy, proxyUrl, repositoryUrl, repositoryUrls } from "#core/addresses.ts";
import { camel } from "#core/pod-options.ts";
import type { Camel } from "#core/pod-options.ts";
import { variableOf } from "#core/settings.ts";
import * as v from "#core/values.ts";
import type { TypeOf, Value } from "#core/values.ts";

interface Row<T> {
  /** One sentence for the reference page. */
  readonly help: string;
  readonly value: Value<T>;
  readonly default?: string;
  readonly required?: true;
  /** May hold a credential, and so is not shown when it is wrong. */
  readonly secret?: true;
  /** For the reference page, when what stands in its absence is not a fixed text. */
  readonly otherwise?: string;
}

/** Entries apart by commas or white space, so that a ConfigMap can hold one a line. */
function listOf(allowed: string, isEntry: (entry: string) => boolean): Value<readonly string[]> {
  return {
    allowed: `a list, apart by commas or spaces, of ${allowed}; one that ends with * allows all that begin so`,
    parse(input) {
      const entries = input.split(/[\s,]+/).filter((entry) => entry !== "");
      return entries.every(isEntry) ? entries : undefined;
    },
    format: (value) => value.join(","),
  };
}

const images = listOf("image references", (entry) => {
  const plain = entry.replace(/\*$/, "");
  // A star within the host would allow hosts of others that begin alike.
  return (
    plain !== "" &&
    v.imageReference.parse(plain) !== undefined &&
    (plain === entry || /[/:@]/.test(plain))
  );
});

const addresses = listOf("https:// addresses", (entry) => {
  const plain = entry.replace(/\*$/, "");
  // A star within the host would allow hosts of others that begin alike.
  return (
    v.serverUrl.parse(plain) !== undefined &&
    (plain === entry || /^https?:\/\/[^/]+\/.*$/.test(plain))
  );
});

const repositories = listOf("https:// or oci:// addresses", (entry) =>
  isOci(entry)
    ? repositoryUrl.parse(entry) !== undefined ||
      /^oci(\+http)?:\/\/[^/]+\/[a-z0-9._/-]*\*$/.test(entry)
    : addresses.parse(entry) !== undefined,
);

const listenAddress: Value<string> = {
  allowed: "an IP address of this machine",
  parse: (input) => (/^[0-9a-fA-F:.]{2,45}$/.test(input) ? input : undefined),
  format: (value) => value,
};

export const WEBHOOK_SETTINGS = {
  image: {
    help: "Image of the sidecar, where a pod names none.",
    value: v.imageReference,
    required: true,
  },
  images: {
    help: "Other images that a pod may name.",
    value: images,
    default: "",
    otherwise: "only the default",
  },
  repository: {
    help: "Address of the repository, https:// or oci://, where a pod names none.",
    value: repositoryUrl,
    otherwise: "each pod must name one that is allowed",
  },
  repositories: {
    help: "Other repositories that a pod may name, as its repository or as a mirror.",
    value: repositories,
    default: "",
    otherwise: "only the default",
  },
  "repository-mirrors": {
    help: "Other addresses of the default repository, tried in this order when one does not do.",
    value: repositoryUrls,
    otherwise: "none",
  },
  "https-proxy": {
    help: "Proxy through which sidecars reach repositories at https:// and oci:// addresses. Credentials in it can be read in each pod.",
    value: proxyUrl,
    otherwise: "none",
    secret: true,
  },
  "http-proxy": {
    help: "Proxy for plain http:// addresses.",
    value: proxyUrl,
    otherwise: "none",
    secret: true,
  },
  "no-proxy": {
    help: "What sidecars reach past the proxy.",
    value: noProxy,
    otherwise: "nothing",
  },
  site: {
    help: "Name of the site, where a pod names none: for a cluster that is one site, so that its turn in a roll-out comes for all its pods at once.",
    value: v.siteName,
    otherwise: "each node is a site",
  },
  "vault-address": {
    help: "Address of Vault or OpenBao, where a pod names none.",
    value: v.serverUrl,
    otherwise: "each pod with secrets must name one that is allowed",
  },
  "vault-addresses": {
    help: "Other addresses of Vault that a pod may name.",
    value: addresses,
    default: "",
    otherwise: "only the default",
  },
  "sidecar-port": {
    help: "Port of the sidecar on each pod's network.",
    value: v.integer(1, 65535),
    default: "19465",
  },
  "native-sidecars": {
    help: "Whether the sidecar is a native one where a pod does not say: auto, where the kubelet of every node knows them, or of the node that the pod names; always; or never.",
    value: v.oneOf("auto", "always", "never"),
    default: "auto",
  },
  certificates: {
    help: "Where the serving certificate comes from: own, made and rotated by the webhook and kept in a Secret; secret, from a Secret that somebody else writes, as cert-manager does; files, from a folder, without an API server.",
    value: v.oneOf("own", "secret", "files"),
    default: "own",
  },
  namespace: {
    help: "Namespace of the webhook.",
    value: v.dnsLabel,
    default: "edgesync",
  },
  service: {
    help: "Name of the webhook's Service.",
    value: v.dnsLabel,
    default: "edgesync-webhook",
  },
  "tls-secret": {
    help: "Name of the Secret with the serving certificate.",
    value: v.objectName,
    default: "edgesync-webhook-tls",
  },
  "webhook-configuration": {
    help: "Name of the MutatingWebhookConfiguration, whose every caBundle is written, or, with certificates of others, only compared.",
    value: v.objectName,
    default: "edgesync",
  },
  lease: {
    help: "Name of the Lease by which one replica leads.",
    value: v.objectName,
    default: "edgesync-webhook",
  },
  "lease-duration": {
    help: "Time after which another replica takes the place of a leader that is not heard of.",
    value: v.duration("1s", "1h"),
    default: "30s",
  },
  "certificate-lifetime": {
    help: "Life of a certificate that the webhook makes; it is replaced after two thirds.",
    value: v.duration("1m", "8760h"),
    default: "720h",
  },
  "certificate-settle": {
    help: "Time between a new authority in every caBundle and the first use of its certificate.",
    value: v.duration("0s", "1h"),
    default: "1m",
  },
  "certificate-keep": {
    help: "Time for which an authority stays in the caBundle when its certificate is served no more.",
    value: v.duration("0s", "720h"),
    default: "1h",
  },
  kubeconfig: {
    help: "Path of a kubeconfig, for a webhook outside of the cluster.",
    value: v.absolutePath,
    otherwise: "the service account of the pod",
  },
  "pod-name": {
    help: "Name of this replica in the Lease.",
    value: v.objectName,
    otherwise: "a random one",
  },
  "tls-dir": {
    help: "Folder with the serving certificate, where it comes from files: tls.crt and tls.key.",
    value: v.absolutePath,
    default: "/edgesync/tls",
  },
  "tls-poll-interval": {
    help: "Time between two looks at the serving certificate.",
    value: v.duration("20ms", "1h"),
    default: "10s",
  },
  "tls-port": {
    help: "Port of the admission requests and of the webhook's own probes.",
    value: v.integer(0, 65535),
    default: "8443",
  },
  "metrics-port": {
    help: "Port of the metrics, in plain HTTP.",
    value: v.integer(0, 65535),
    default: "9464",
  },
  "listen-address": {
    help: "Address that both ports listen on.",
    value: listenAddress,
    otherwise: "all addresses",
  },
  "max-connections": {
    help: "Connections that are served at one time, of one address half as many; more are closed at once.",
    value: v.integer(1, 100_000),
    default: "256",
  },
  "body-memory": {
    help: "Memory for large bodies, over 64 KiB, that are read at one time; those for which there is none wait half of request-timeout, and are then answered with 503.",
    value: v.bytes("1Mi", "4Gi"),
    default: "32Mi",
  },
  "request-timeout": {
    help: "Time in which a whole request must have arrived; its headers, in half of it.",
    value: v.duration("100ms", "1m"),
    default: "5s",
  },
  "drain-delay": {
    help: "Time between SIGTERM and the last new connection, in which the Service forgets this replica.",
    value: v.duration("0s", "5m"),
    default: "5s",
  },
  "log-level": {
    help: "Least level of the log.",
    value: v.oneOf("debug", "info", "warn", "error"),
    default: "info",
  },
} as const satisfies Record<string, Row<never> | Row<unknown>>;

type Setting<R> = R extends { value: infer V; default: string } | { value: infer V; required: true }
  ? TypeOf<V>
  : R extends { value: infer V }
    ? TypeOf<V> | undefined
    : never;

export type WebhookConfig = {
  readonly [K in keyof typeof WEBHOOK_SETTINGS as Camel<K>]: Setting<(typeof WEBHOOK_SETTINGS)[K]>;
};

/**
 * The settings in an environment, and every problem at once. An empty variable counts as absent: that is how a ConfigMap leaves one open.
 *
 * @throws EdgeSyncError CONFIG_INVALID
 */
export function webhookConfig(env: Readonly<Record<string, string | undefined>>): WebhookConfig {
  const problems: string[] = [];
  const config: Record<string, unknown> = {};
  const rows: readonly (readonly [string, Row<unknown>])[] = Object.entries(WEBHOOK_SETTINGS);
  for (const [key, row] of rows) {
    const variable = variableOf(key);
    const text = env[variable] || row.default;
    const value = text === undefined ? undefined : row.value.parse(text);
    if (text !== undefined && value === undefined) {
      const shown = row.secret === true ? "not allowed as it is" : quote(text);
      problems.push(`${variable} is ${shown}; allowed: ${row.value.allowed}`);
    }
    if (text === undefined && row.required === true)
      problems.push(`${variable} is not set; allowed: ${row.value.allowed}`);
    config[camel(key)] = value;
  }
  if (problems.length > 0) throw new EdgeSyncError("CONFIG_INVALID", problems.join("; "));
  // Every member of the mapped type is assigned by the loop over the same table.
  return config as unknown as WebhookConfig;
}

function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}...` : text);
}

export function clusterOptions(config: WebhookConfig): ClusterOptions {
  const { image, repository, repositories, site, vaultAddress, vaultAddresses, sidecarPort } =
    config;
  const proxy = {
    HTTPS_PROXY: config.httpsProxy,
    HTTP_PROXY: config.httpProxy,
    NO_PROXY: config.noProxy,
  };
  return {
    image,
    images: config.images,
    repository,
    repositories,
    repositoryMirrors: config.repositoryMirrors ?? [],
    proxy: Object.fromEntries(
      Object.entries(proxy).flatMap(([name, value]) =>
        value === undefined ? [] : [[name, value]],
      ),
    ),
    site,
    vaultAddress,
    vaultAddresses,
    sidecarPort,
  };
}
