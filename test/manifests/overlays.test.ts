import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { before, describe, test } from "node:test";
import { promisify } from "node:util";
import { parse, parseAllDocuments } from "yaml";
import { SIDECAR_METRICS, WEBHOOK_METRICS } from "#core/metrics.ts";
import { webhookConfig } from "../../webhook/config.ts";
import { customResourceProblems } from "../support/custom-resources.ts";
import { schemaProblems } from "../support/kubernetes-schema.ts";
import { build, read } from "../support/kustomize.ts";
import type { Manifest } from "../support/kustomize.ts";
import { temporaryFolder } from "../support/temporary.ts";

const run = promisify(execFile);
const MANIFESTS = new URL("../../manifests", import.meta.url).pathname;

async function foldersIn(folder: string): Promise<readonly string[]> {
  const entries = await readdir(join(MANIFESTS, folder), { withFileTypes: true });
  return entries
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => join(MANIFESTS, folder, name));
}

const COMPONENTS = await foldersIn("components");
const BUILT = [
  join(MANIFESTS, "base"),
  ...(await foldersIn("overlays")),
  join(MANIFESTS, "examples/edge-namespace"),
];

function problemsIn(object: Manifest): readonly string[] {
  return customResourceProblems(object) ?? schemaProblems(object);
}

function one(objects: readonly Manifest[], kind: string, name?: string): Manifest {
  const found = objects.filter(
    (object) => object.kind === kind && (name === undefined || object.metadata.name === name),
  );
  assert.equal(found.length, 1, `one ${kind}`);
  return found[0] as Manifest;
}

function at(value: unknown, ...path: readonly (string | number)[]): unknown {
  return path.reduce<unknown>(
    (here, key) => (here as Record<string | number, unknown> | undefined)?.[key],
    value,
  );
}

/** An overlay of the base with one component. */
async function withComponent(component: string): Promise<readonly Manifest[]> {
  await using folder = await temporaryFolder();
  const overlay = join(folder.path, "overlay");
  await mkdir(overlay);
  const path = (to: string): string => relative(overlay, to);
  const text = `resources: ["${path(join(MANIFESTS, "base"))}"]\ncomponents: ["${path(component)}"]\n`;
  await writeFile(join(overlay, "kustomization.yaml"), text);
  return await build(overlay);
}

describe("the check of others' kinds", () => {
  test("refuses a field that they do not have", () => {
    const issuer = { apiVersion: "cert-manager.io/v1", kind: "Issuer", metadata: { name: "x" } };
    assert.deepEqual(customResourceProblems({ ...issuer, spec: { selfSigned: {} } }), []);
    assert.deepEqual(customResourceProblems({ ...issuer, spec: { ca: { secret: "x" } } }), [
      "spec.ca.secret is not known",
    ]);
  });

  test("refuses an object without a field that they must have", () => {
    const certificate = { apiVersion: "cert-manager.io/v1", kind: "Certificate", metadata: {} };
    assert.deepEqual(customResourceProblems({ ...certificate, spec: { secretName: "x" } }), [
      "spec.issuerRef is required",
    ]);
  });
});

describe("what is built with kustomize", () => {
  for (const folder of BUILT)
    test(`${relative(MANIFESTS, folder)} holds only objects that the API server's schemas allow, each once`, async () => {
      const objects = await build(folder);
      for (const object of objects) assert.deepEqual(problemsIn(object), []);
      const names = objects.map(
        ({ kind, metadata }) => `${kind} ${metadata.namespace ?? ""}/${metadata.name}`,
      );
      assert.equal(new Set(names).size, names.length);
    });

  for (const component of COMPONENTS)
    test(`components/${relative(join(MANIFESTS, "components"), component)} adds to the base what the schemas allow`, async () => {
      const base = await build(join(MANIFESTS, "base"));
      const objects = await withComponent(component);
      assert.ok(objects.length > base.length);
      for (const object of objects) assert.deepEqual(problemsIn(object), []);
    });

  test("is what kubectl makes of it, where there is one", async (context) => {
    try {
      await run("kubectl", ["version", "--client"]);
    } catch {
      context.diagnostic("there is no kubectl here: not compared with kustomize itself");
      return;
    }
    const key = ({ kind, metadata }: Manifest): string =>
      `${kind} ${metadata.namespace ?? ""}/${metadata.name}`;
    const sorted = (objects: readonly Manifest[]): readonly Manifest[] =>
      objects.toSorted((a, b) => (key(a) < key(b) ? -1 : 1));
    for (const folder of BUILT) {
      const { stdout } = await run("kubectl", ["kustomize", folder]);
      const documents = parseAllDocuments(stdout);
      assert.ok(!("empty" in documents));
      const made = documents.map((document) => document.toJS() as Manifest);
      assert.deepEqual(sorted(await build(folder)), sorted(made), folder);
    }
  });
});

describe("the base", () => {
  let base: readonly Manifest[];
  before(async () => {
    base = await build(join(MANIFESTS, "base"));
  });

  test("holds only kinds that every cluster from 1.27 on has", () => {
    const groups = new Set(base.map(({ apiVersion }) => apiVersion));
    assert.deepEqual([...groups].toSorted(), [
      "admissionregistration.k8s.io/v1",
      "apps/v1",
      "coordination.k8s.io/v1",
      "networking.k8s.io/v1",
      "rbac.authorization.k8s.io/v1",
      "scheduling.k8s.io/v1",
      "v1",
    ]);
    assert.ok(base.every(({ kind }) => kind !== "ValidatingAdmissionPolicy"));
  });

  test("lets the webhook change three objects by name, create events, and do nothing else to anything", () => {
    const rules = base
      .filter(({ kind }) => kind === "Role" || kind === "ClusterRole")
      .flatMap((role) => role["rules"] as Record<string, readonly string[]>[]);
    const WRITE = /^(?!get$|list$|watch$)/;
    const writes = rules
      .filter(({ verbs }) => verbs?.some((verb) => WRITE.test(verb)))
      .map(({ resources, resourceNames = ["*"], verbs = [] }) => [
        resources?.join(),
        resourceNames.join(),
        verbs.filter((verb) => WRITE.test(verb)).join(),
      ]);
    assert.deepEqual(
      writes.toSorted(([a = ""], [b = ""]) => (a < b ? -1 : 1)),
      [
        ["events", "*", "create"],
        ["leases", "edgesync-webhook", "patch"],
        ["mutatingwebhookconfigurations", "edgesync", "patch"],
        ["secrets", "edgesync-webhook-tls", "patch"],
      ],
    );
    for (const { apiGroups = [], resources = [], verbs = [] } of rules)
      assert.ok(![...apiGroups, ...resources, ...verbs].includes("*"));
    const secrets = rules.filter(({ resources }) => resources?.includes("secrets"));
    assert.ok(secrets.every(({ resourceNames }) => resourceNames?.length === 1));
  });

  test("names the objects that the webhook looks for", () => {
    const config = webhookConfig(at(one(base, "ConfigMap"), "data") as Record<string, string>);
    assert.equal(one(base, "Secret").metadata.name, config.tlsSecret);
    assert.equal(one(base, "Lease").metadata.name, config.lease);
    assert.equal(one(base, "Service").metadata.name, config.service);
    assert.equal(one(base, "Namespace").metadata.name, config.namespace);
    const { webhookConfiguration } = config;
    assert.equal(one(base, "MutatingWebhookConfiguration").metadata.name, webhookConfiguration);
  });

  test("applied again takes away nothing that the webhook has written", () => {
    assert.equal(one(base, "Secret")["data"], undefined);
    assert.equal(one(base, "Lease")["spec"], undefined);
    for (const entry of one(base, "MutatingWebhookConfiguration")["webhooks"] as object[])
      assert.ok(!Object.hasOwn(at(entry, "clientConfig") as object, "caBundle"));
  });
});

describe("the overlay", () => {
  test("cert-manager takes the webhook every right to write its certificate", async () => {
    const objects = await build(join(MANIFESTS, "overlays/cert-manager"));
    const rules = ["Role", "ClusterRole"].flatMap(
      (kind) => one(objects, kind)["rules"] as Record<string, readonly string[]>[],
    );
    assert.ok(rules.every(({ verbs }) => verbs?.includes("patch") !== true));
    const config = webhookConfig(at(one(objects, "ConfigMap"), "data") as Record<string, string>);
    assert.equal(config.certificates, "secret");
    const leaf = one(objects, "Certificate", "edgesync-webhook");
    assert.equal(at(leaf, "spec", "secretName"), config.tlsSecret);
    const host = `${config.service}.${config.namespace}.svc`;
    assert.ok((at(leaf, "spec", "dnsNames") as string[]).includes(host));
    assert.deepEqual(one(objects, "MutatingWebhookConfiguration").metadata, {
      ...one(await build(join(MANIFESTS, "base")), "MutatingWebhookConfiguration").metadata,
      annotations: { "cert-manager.io/inject-ca-from": "edgesync/edgesync-webhook" },
    });
  });

  test("ha has a budget, and more replicas than may be away; a budget is nowhere else", async () => {
    const objects = await build(join(MANIFESTS, "overlays/ha"));
    const replicas = at(one(objects, "Deployment"), "spec", "replicas");
    assert.ok(typeof replicas === "number" && replicas > 1);
    assert.equal(at(one(objects, "PodDisruptionBudget"), "spec", "minAvailable"), 1);
    const k3s = await build(join(MANIFESTS, "overlays/k3s"));
    assert.ok(k3s.every(({ kind }) => kind !== "PodDisruptionBudget"));
  });

  test("flux substitutes only what the site states, into paths that the base has", async () => {
    const objects = await build(join(MANIFESTS, "overlays/flux"));
    const stated = Object.keys(at(one(objects, "ConfigMap", "edgesync-site"), "data") as object);
    const kustomization = one(objects, "Kustomization", "edgesync");
    const used = [...JSON.stringify(kustomization).matchAll(/\$\{(\w+)\}/g)].map(
      ([, name = ""]) => name,
    );
    assert.deepEqual([...new Set(used)].toSorted(), stated.toSorted());
    for (const field of ["interval", "retryInterval", "timeout", "prune", "healthChecks"])
      assert.ok(at(kustomization, "spec", field) !== undefined, field);
  });

  test("what flux substitutes stays a text where it is a number", async () => {
    const kustomization = one(
      await build(join(MANIFESTS, "overlays/flux")),
      "Kustomization",
      "edgesync",
    );
    const patches = at(kustomization, "spec", "patches") as readonly { readonly patch: string }[];
    const values = patches.flatMap(({ patch }) => {
      const substituted = patch.replaceAll(/\$\{\w+\}/g, "17");
      return (parse(substituted) as { value: unknown }[]).map(({ value }) => value);
    });
    assert.ok(values.length > 0);
    assert.deepEqual([...new Set(values)], ["17"]);
  });
});

describe("what watches over it", () => {
  const known = new Set([...Object.keys(SIDECAR_METRICS), ...Object.keys(WEBHOOK_METRICS)]);
  const metricsIn = (text: string): readonly string[] =>
    [...text.matchAll(/\bedgesync_[a-z_]+/g)].map(([name]) =>
      name.replace(/_(?:bucket|count|sum)$/, ""),
    );

  for (const file of ["prometheus-rules/prometheus-rules.yaml", "grafana-dashboard/edgesync.json"])
    test(`${file} asks for metrics that there are`, async () => {
      const names = metricsIn(await readFile(join(MANIFESTS, "components", file), "utf8"));
      assert.ok(names.length > 10);
      assert.deepEqual(
        names.filter((name) => !known.has(name)),
        [],
      );
    });

  test("the monitors find ports that there are", async () => {
    const pod = one(await withComponent(join(MANIFESTS, "components/pod-monitor")), "PodMonitor");
    assert.equal(at(pod, "spec", "podMetricsEndpoints", 0, "port"), "edgesync");
    const objects = await withComponent(join(MANIFESTS, "components/service-monitor"));
    const service = one(objects, "Service", "edgesync-webhook-metrics");
    const monitor = one(objects, "ServiceMonitor");
    const labels = at(monitor, "spec", "selector", "matchLabels") as Record<string, string>;
    for (const [key, value] of Object.entries(labels))
      assert.equal(service.metadata.labels?.[key], value);
    assert.equal(
      at(monitor, "spec", "endpoints", 0, "port"),
      at(service, "spec", "ports", 0, "name"),
    );
  });
});

describe("the examples of workloads", () => {
  for (const name of ["inference", "kiosk", "gateway"])
    test(`${name} stays where it is while its node is cut off, for a stated time of at least a day`, async () => {
      const objects = await read(join(MANIFESTS, "examples", `${name}.yaml`));
      const pod = at(one(objects, "Deployment"), "spec", "template", "spec");
      const tolerations = at(pod, "tolerations") as Record<string, unknown>[];
      for (const key of ["node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"]) {
        const found = tolerations.find((toleration) => toleration["key"] === key);
        assert.ok(Number(found?.["tolerationSeconds"]) >= 86_400, key);
      }
    });
});
