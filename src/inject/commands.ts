/** The commands that show what the webhook would do, without a cluster; for the help and the reference page. */

export const OFFLINE_COMMANDS = [
  {
    name: "inject",
    synopsis: "edgesync inject -f <file>... [options]",
    summary:
      "Prints Kubernetes objects with their pods as the webhook would make them; everything else stays as it is.",
    example: "kubectl kustomize shop | edgesync inject -f - --config webhook.yaml",
  },
  {
    name: "explain",
    synopsis: "edgesync explain -f <file>... [--json] [options]",
    summary:
      "Says for each pod whether it would be injected, and why: mode, resources, mounts, and the probes before and after.",
    example: "edgesync explain -f deployment.yaml --config webhook.yaml",
  },
] as const;
export type OfflineCommand = (typeof OFFLINE_COMMANDS)[number]["name"];

/** What both take, with the text of the help. */
export const OFFLINE_OPTIONS = [
  [
    "-f, --filename <file>",
    "Objects in YAML or JSON; may be given more than once; - is standard input.",
  ],
  [
    "--config <file>",
    "Objects with the ConfigMaps edgesync-webhook and edgesync-defaults of the cluster, such as those of manifests/base or of kubectl get configmap -o yaml; may be given more than once. What is in --filename counts too.",
  ],
  ["-n, --namespace <name>", "Namespace of objects that state none; default otherwise."],
  ["--image <reference>", "Image of the sidecar, where no ConfigMap edgesync-webhook says it."],
  [
    "--kubelet <version>",
    "Oldest kubelet of the cluster, such as v1.28.9: whether it knows native sidecars. A new one otherwise.",
  ],
  ["--json", "explain: one JSON object with all results."],
] as const;
