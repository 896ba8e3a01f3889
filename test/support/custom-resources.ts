/**
 * The kinds of others that the manifests use, strictly, as far as they use them. The shapes and all of the manifests' objects of these kinds have been
 * held against the custom resource definitions of the Prometheus Operator 0.93, cert-manager 1.21, and Flux' source-controller and kustomize-controller
 * 1.9, in which each field is of that type; the rules in them are about fields that are not used here.
 */

type Shape =
  | "text"
  | "number"
  | "flag"
  | "map"
  /** Whatever core Kubernetes means by it. */
  | "any"
  | readonly [Shape]
  | { readonly [field: string]: Shape };

const selector = { matchLabels: "map", matchExpressions: "any" } as const;
const endpoint = { port: "text", path: "text", interval: "text", relabelings: "any" } as const;
const reference = { apiVersion: "text", kind: "text", name: "text", namespace: "text" } as const;
const rule = {
  alert: "text",
  expr: "text",
  for: "text",
  labels: "map",
  annotations: "map",
} as const;

const SPECS: Readonly<Record<string, Readonly<Record<string, Shape>>>> = {
  "monitoring.coreos.com/v1 ServiceMonitor": { selector, endpoints: [endpoint] },
  "monitoring.coreos.com/v1 PodMonitor": {
    selector,
    namespaceSelector: { any: "flag", matchNames: ["text"] },
    podMetricsEndpoints: [endpoint],
  },
  "monitoring.coreos.com/v1 PrometheusRule": { groups: [{ name: "text", rules: [rule] }] },
  "cert-manager.io/v1 Issuer": { selfSigned: {}, ca: { secretName: "text" } },
  "cert-manager.io/v1 Certificate": {
    isCA: "flag",
    commonName: "text",
    secretName: "text",
    duration: "text",
    renewBefore: "text",
    dnsNames: ["text"],
    privateKey: { algorithm: "text", size: "number", rotationPolicy: "text" },
    issuerRef: { group: "text", kind: "text", name: "text" },
  },
  "source.toolkit.fluxcd.io/v1 GitRepository": {
    interval: "text",
    timeout: "text",
    url: "text",
    ref: { tag: "text", branch: "text", semver: "text" },
    ignore: "text",
  },
  "kustomize.toolkit.fluxcd.io/v1 Kustomization": {
    sourceRef: reference,
    path: "text",
    interval: "text",
    retryInterval: "text",
    timeout: "text",
    prune: "flag",
    wait: "flag",
    dependsOn: [{ name: "text", namespace: "text" }],
    healthChecks: [reference],
    patches: [{ target: { kind: "text", name: "text" }, patch: "text" }],
    postBuild: { substitute: "map", substituteFrom: [{ kind: "text", name: "text" }] },
  },
};

/** Fields of `spec` that their definitions require. */
const REQUIRED: Readonly<Record<string, readonly string[]>> = {
  ServiceMonitor: ["endpoints", "selector"],
  PodMonitor: ["selector"],
  Certificate: ["issuerRef", "secretName"],
  GitRepository: ["interval", "url"],
  Kustomization: ["interval", "prune", "sourceRef"],
};

/** `undefined` for a kind that is not one of these. */
export function customResourceProblems(
  object: Readonly<Record<string, unknown>>,
): readonly string[] | undefined {
  const shape = SPECS[`${String(object["apiVersion"])} ${String(object["kind"])}`];
  if (shape === undefined) return undefined;
  const problems: string[] = [];
  const { kind, spec } = object;
  check("spec", spec, shape, problems);
  for (const field of REQUIRED[String(kind)] ?? [])
    if (typeof spec !== "object" || spec === null || !(field in spec))
      problems.push(`spec.${field} is required`);
  for (const key of Object.keys(object))
    if (!["apiVersion", "kind", "metadata", "spec"].includes(key))
      problems.push(`${key} is not known`);
  return problems;
}

const TYPES = { text: "string", number: "number", flag: "boolean" } as const;

function check(path: string, value: unknown, shape: Shape, problems: string[]): void {
  if (shape === "any") return;
  if (shape === "map" || (typeof shape === "object" && !Array.isArray(shape))) {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      problems.push(`${path} is not an object`);
      return;
    }
    if (shape === "map") return;
    const fields = shape as Readonly<Record<string, Shape>>;
    for (const [key, one] of Object.entries(value)) {
      const field = fields[key];
      if (field === undefined) problems.push(`${path}.${key} is not known`);
      else check(`${path}.${key}`, one, field, problems);
    }
  } else if (Array.isArray(shape)) {
    const [item] = shape as readonly [Shape];
    if (!Array.isArray(value)) problems.push(`${path} is not a list`);
    else value.forEach((one, index) => check(`${path}[${index}]`, one, item, problems));
  } else if (typeof value !== TYPES[shape]) problems.push(`${path} is not a ${shape}`);
}
