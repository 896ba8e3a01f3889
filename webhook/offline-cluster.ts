/** The cluster as objects in files describe it: the webhook's settings, defaults, and which namespaces are enabled. */
import { NAMESPACE_LABEL } from "#core/annotations.ts";
import { EdgeSyncError } from "#core/errors.ts";
import type { ClusterOptions } from "#core/inject/cluster.ts";
import { DEFAULTS_NAME } from "#core/inject/defaults.ts";
import type { Defaults } from "#core/inject/defaults.ts";
import { isObject } from "#core/json.ts";
import { imageReference } from "#core/values.ts";
import { clusterOptions, webhookConfig } from "./config.ts";
import type { Objects } from "./objects.ts";

const SETTINGS_NAME = "edgesync-webhook";
const NAMESPACE_ENABLED = "enabled";

export interface Cluster {
  readonly options: ClusterOptions;
  defaultsOf(namespace: string): readonly Defaults[];
  /** Whether a namespace is labelled for injection; undefined where none of the objects says. */
  isEnabled(namespace: string): boolean | undefined;
}

interface ConfigMap {
  readonly name: string;
  readonly namespace: string;
  readonly data: Readonly<Record<string, string>>;
}

/** What the ConfigMaps among the objects say of the cluster; without the webhook's, everything is allowed and there are no defaults. */
export function readCluster(
  objects: readonly Objects[],
  namespace: string,
  image: string | undefined,
  shell: { note(text: string): void; readonly image: string },
): Cluster {
  const maps = objects.flatMap(({ values }) =>
    values.flatMap((value) => configMaps(value, namespace)),
  );
  const webhook = maps.find(({ name }) => name === SETTINGS_NAME);
  if (image !== undefined && imageReference.parse(image) === undefined)
    throw new EdgeSyncError("USAGE", `--image must be ${imageReference.allowed}`);
  if (webhook === undefined)
    shell.note(
      `no ConfigMap ${SETTINGS_NAME} was given (--config), so every image and address counts as allowed${image === undefined ? `, and the image is ${shell.image}` : ""}\n`,
    );
  const options =
    webhook === undefined
      ? {
          ...clusterOptions(webhookConfig({ EDGESYNC_IMAGE: image ?? shell.image })),
          images: ["*"],
          repositories: ["*"],
          vaultAddresses: ["*"],
        }
      : clusterOptions(webhookConfig(webhook.data));
  const labels = new Map(objects.flatMap(({ values }) => values.flatMap(namespaces)));
  return {
    options,
    isEnabled: (wanted) =>
      labels.has(wanted) ? labels.get(wanted) === NAMESPACE_ENABLED : undefined,
    defaultsOf: (wanted) =>
      [...new Set([wanted, webhook?.namespace])].flatMap((owner) =>
        maps
          .filter((map) => map.name === DEFAULTS_NAME && map.namespace === owner)
          .slice(0, 1)
          .map(({ data }) => ({ source: `ConfigMap ${owner}/${DEFAULTS_NAME}`, values: data })),
      ),
  };
}

/** Names of Namespaces, with the value of the label that enables injection. */
function namespaces(value: unknown): readonly (readonly [string, unknown])[] {
  if (!isObject(value)) return [];
  if (Array.isArray(value["items"])) return value["items"].flatMap(namespaces);
  const { kind, metadata } = value;
  if (kind !== "Namespace" || !isObject(metadata) || typeof metadata["name"] !== "string")
    return [];
  const { labels } = metadata;
  return [[metadata["name"], isObject(labels) ? labels[NAMESPACE_LABEL] : undefined]];
}

function configMaps(value: unknown, otherwise: string): readonly ConfigMap[] {
  if (!isObject(value)) return [];
  if (Array.isArray(value["items"]))
    return value["items"].flatMap((item: unknown) => configMaps(item, otherwise));
  const { kind, metadata, data } = value;
  if (kind !== "ConfigMap" || !isObject(metadata) || typeof metadata["name"] !== "string")
    return [];
  const namespace = metadata["namespace"];
  return [
    {
      name: metadata["name"],
      namespace: typeof namespace === "string" ? namespace : otherwise,
      data: Object.fromEntries(
        Object.entries(isObject(data) ? data : {}).map(([key, text]) => [key, String(text)]),
      ),
    },
  ];
}
