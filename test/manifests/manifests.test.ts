import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { describe, test } from "node:test";
import { parseAllDocuments } from "yaml";
import { PREFIX } from "#core/annotations.ts";
import { isPod } from "#core/inject/pod.ts";
import type { Pod } from "#core/inject/pod.ts";
import { clusterOptions, webhookConfig } from "../../webhook/config.ts";
import { injected } from "../support/inject.ts";
import { schemaProblems } from "../support/kubernetes-schema.ts";

const BASE = new URL("../../manifests/base/", import.meta.url);
const EXAMPLES = new URL("../../manifests/examples/", import.meta.url);

const CLUSTER_WIDE = [
  "Namespace",
  "ClusterRole",
  "ClusterRoleBinding",
  "PriorityClass",
  "MutatingWebhookConfiguration",
];

type Document = Readonly<Record<string, unknown>>;

async function documents(folder: URL, file: string): Promise<readonly Document[]> {
  const text = await readFile(new URL(file, folder), "utf8");
  const parsed = parseAllDocuments(text, { strict: true, uniqueKeys: true });
  if ("empty" in parsed) return [];
  return parsed.map((document) => {
    assert.deepEqual(document.errors, [], `${file} is YAML`);
    return document.toJS() as Document;
  });
}

async function files(folder: URL): Promise<readonly string[]> {
  return (await readdir(folder)).filter((name) => name.endsWith(".yaml")).toSorted();
}

/** The documents of the base, by kind and name. */
async function base(): Promise<readonly Document[]> {
  const names = (await files(BASE)).filter((name) => name !== "kustomization.yaml");
  return (await Promise.all(names.map((name) => documents(BASE, name)))).flat();
}

async function one(kind: string): Promise<Document> {
  const found = (await base()).filter((document) => document["kind"] === kind);
  assert.equal(found.length, 1, `one ${kind}`);
  return found[0] ?? {};
}

function at(value: unknown, ...path: readonly (string | number)[]): unknown {
  return path.reduce<unknown>(
    (here, key) => (here as Record<string | number, unknown> | undefined)?.[key],
    value,
  );
}

describe("the schema check", () => {
  const pod = { apiVersion: "v1", kind: "Pod", spec: { containers: [{ name: "web" }] } };
  const problems = (spec: object): readonly string[] => schemaProblems({ ...pod, spec });

  test("accepts a pod", () => {
    assert.deepEqual(schemaProblems(pod), []);
  });
  test("refuses an unknown field, a wrong type and a missing field", () => {
    assert.deepEqual(problems({ containers: [{ name: "web", probe: {} }] }), [
      "Pod.spec.containers[0].probe is not known",
    ]);
    assert.deepEqual(problems({ containers: [{ name: 1 }] }), [
      "Pod.spec.containers[0].name is not of type string",
    ]);
    assert.deepEqual(problems({ containers: [{ image: "web" }] }), [
      "Pod.spec.containers[0].name is missing",
    ]);
  });
  test("refuses a kind that Kubernetes does not have", () => {
    assert.equal(schemaProblems({ apiVersion: "v1", kind: "Pods" }).length, 1);
  });
});

describe("the base", () => {
  test("lists exactly the files that there are", async () => {
    const [kustomization] = await documents(BASE, "kustomization.yaml");
    const { resources, ...rest } = kustomization ?? {};
    assert.deepEqual(rest, {
      apiVersion: "kustomize.config.k8s.io/v1beta1",
      kind: "Kustomization",
      namespace: "edgesync",
    });
    assert.ok(Array.isArray(resources));
    assert.deepEqual(
      [...(resources as string[]), "kustomization.yaml"].toSorted(),
      await files(BASE),
    );
  });

  test("holds only objects that the API server's schema allows", async () => {
    for (const document of await base()) assert.deepEqual(schemaProblems(document), []);
  });

  test("keeps every namespaced object in its own namespace", async () => {
    for (const document of await base()) {
      const kind = String(document["kind"]);
      const clusterWide = CLUSTER_WIDE.includes(kind);
      assert.equal(at(document, "metadata", "namespace"), clusterWide ? undefined : "edgesync");
    }
  });

  test("calls the webhook for created pods only, and never for its own namespace", async () => {
    const webhooks = at(await one("MutatingWebhookConfiguration"), "webhooks");
    assert.ok(Array.isArray(webhooks) && webhooks.length === 2);
    for (const webhook of webhooks) {
      assert.deepEqual(at(webhook, "rules"), [
        {
          apiGroups: [""],
          apiVersions: ["v1"],
          operations: ["CREATE"],
          resources: ["pods"],
          scope: "Namespaced",
        },
      ]);
      assert.equal(at(webhook, "failurePolicy"), "Fail");
      assert.equal(at(webhook, "sideEffects"), "NoneOnDryRun");
      assert.equal(at(webhook, "reinvocationPolicy"), "IfNeeded");
      assert.deepEqual(at(webhook, "namespaceSelector", "matchExpressions", 0), {
        key: "kubernetes.io/metadata.name",
        operator: "NotIn",
        values: ["edgesync", "kube-system", "kube-node-lease"],
      });
    }
  });

  test("sends the API server to the port and path at which the webhook listens", async () => {
    const service = await one("Service");
    const container = at(await one("Deployment"), "spec", "template", "spec", "containers", 0);
    assert.deepEqual(at(service, "spec", "ports", 0, "targetPort"), "https");
    assert.deepEqual(at(container, "ports", 0), {
      name: "https",
      containerPort: webhookConfig({ EDGESYNC_IMAGE: "edgesync:1" }).tlsPort,
      protocol: "TCP",
    });
    const selector = at(service, "spec", "selector");
    const labels = at(await one("Deployment"), "spec", "template", "metadata", "labels");
    for (const [key, value] of Object.entries(selector as object))
      assert.equal(at(labels, key), value);
  });

  test("configures the webhook with values that it takes", async () => {
    const data = at(await one("ConfigMap"), "data") as Record<string, string>;
    const config = webhookConfig(data);
    assert.equal(clusterOptions(config).repository, undefined);
    assert.equal(
      config.image,
      at(await one("Deployment"), "spec", "template", "spec", "containers", 0, "image"),
    );
  });

  test("asks whether the webhook is alive where no certificate is needed", async () => {
    const probe = at(await one("Deployment"), "spec", "template", "spec", "containers", 0);
    const { path, port, scheme } = at(probe, "livenessProbe", "httpGet") as Document;
    assert.deepEqual([path, port, scheme], ["/healthz", "metrics", undefined]);
  });

  test("runs the webhook as the restricted Pod Security Standard asks", async () => {
    const pod = at(await one("Deployment"), "spec", "template", "spec");
    assert.equal(at(pod, "securityContext", "runAsNonRoot"), true);
    assert.deepEqual(at(pod, "securityContext", "seccompProfile"), { type: "RuntimeDefault" });
    assert.deepEqual(at(pod, "containers", 0, "securityContext"), {
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ["ALL"] },
    });
  });
});

describe("the examples", async () => {
  for (const file of await files(EXAMPLES)) {
    test(`${file} holds only objects that the API server's schema allows`, async () => {
      for (const document of await documents(EXAMPLES, file))
        assert.deepEqual(schemaProblems(document), []);
    });

    test(`${file} has a pod that is injected, and the result is allowed too`, async () => {
      const pods = (await documents(EXAMPLES, file)).flatMap((document) => podsIn(document));
      assert.ok(pods.length > 0);
      for (const pod of pods) {
        const result = injected(pod).pod;
        assert.deepEqual(schemaProblems({ apiVersion: "v1", kind: "Pod", ...result }), []);
      }
    });
  }
});

/** The pod, or the pod of the template, if it asks for injection. */
function podsIn(document: Document): readonly Pod[] {
  const candidate = document["kind"] === "Pod" ? document : at(document, "spec", "template");
  if (!isPod(candidate)) return [];
  const keys = Object.keys(candidate.metadata?.annotations ?? {});
  return keys.some((key) => key.startsWith(PREFIX)) ? [candidate] : [];
}
