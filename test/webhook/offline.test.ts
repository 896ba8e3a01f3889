import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { parseAllDocuments } from "yaml";
import type { OfflineCommand } from "#core/inject/commands.ts";
import { EdgeSyncError } from "#core/errors.ts";
import { inject } from "#core/inject/inject.ts";
import type { Pod } from "#core/inject/pod.ts";
import { readObjects } from "../../webhook/objects.ts";
import { runOffline } from "../../webhook/offline.ts";
import { CLUSTER, podWith } from "../support/inject.ts";
import { startNode } from "../support/process.ts";

interface Ran {
  readonly exit: number;
  readonly out: string;
  readonly notes: string;
}

async function run(
  command: OfflineCommand,
  args: readonly string[],
  files: Readonly<Record<string, string>>,
): Promise<Ran> {
  let [out, notes] = ["", ""];
  const exit = await runOffline(command, args, {
    read: (file) =>
      Promise.resolve(files[file] ?? Promise.reject(new EdgeSyncError("USAGE", `no ${file}`))),
    out: (text) => (out += text),
    note: (text) => (notes += text),
    now: () => 0,
    image: "edgesync:test",
  });
  return { exit, out, notes };
}

const CONFIG = `apiVersion: v1
kind: ConfigMap
metadata:
  name: edgesync-webhook
  namespace: edgesync
data:
  EDGESYNC_IMAGE: ${CLUSTER.image}
  EDGESYNC_REPOSITORY: ${CLUSTER.repository ?? ""}
`;

const OTHERS = `# What comes before.
apiVersion: v1
kind: ConfigMap
metadata: {name: x,   labels: {a:   b}}
data:
  mode: 0644   # odd spaces stay
  text: |
    ---not a mark
`;

const DEPLOYMENT = `---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: detector # the name
  namespace: shop
spec:
  template:
    metadata:
      annotations:
        # follows stable
        edgesync.dev/channel: detector/stable
    spec:
      containers:
      - name: web
        image: web:1
        args: ["yes", 'on']
        livenessProbe:
          httpGet:
            path: /livez
            port: 8080
`;

function values(text: string): readonly unknown[] {
  return [...parseAllDocuments(text, { version: "1.1" })].map((one): unknown => one.toJS());
}

function podsOf(text: string): readonly Pod[] {
  return values(text).map((value) => {
    const { spec } = value as {
      spec: { template: Pod; jobTemplate?: { spec: { template: Pod } } };
    };
    return spec.jobTemplate?.spec.template ?? spec.template;
  });
}

describe("edgesync inject", () => {
  const files = { "config.yaml": CONFIG, "app.yaml": DEPLOYMENT, "others.yaml": OTHERS };
  const configured = ["--config", "config.yaml"];

  test("prints the pod that the webhook would make", async () => {
    const { exit, out } = await run("inject", ["-f", "app.yaml", ...configured], files);
    assert.equal(exit, 0);
    const [before] = podsOf(DEPLOYMENT);
    const wanted = inject(before ?? {}, CLUSTER);
    assert.ok(wanted.kind === "injected");
    assert.deepEqual(podsOf(out), [JSON.parse(JSON.stringify(wanted.pod))]);
  });

  test("keeps every byte of other documents, and the comments of those that it changes", async () => {
    const both = { ...files, "-": OTHERS + DEPLOYMENT };
    const { out } = await run("inject", ["-f", "-", ...configured], both);
    assert.ok(out.startsWith(`${OTHERS}---\n`), out.slice(0, 400));
    assert.match(out, /name: detector # the name/);
    assert.match(out, /# follows stable\n/);
    assert.match(out, /^ {6}- name: web$/m);
  });

  test("gives what it is given when that is injected already", async () => {
    const { out } = await run("inject", ["-f", "app.yaml", ...configured], files);
    const again = await run("inject", ["-f", "-", ...configured], { ...files, "-": out });
    assert.equal(again.out, out);
    assert.match(again.notes, /shop\/detector: not injected \(already_injected\)/);
  });

  test("prints files as documents of one stream", async () => {
    const args = ["-f", "others.yaml", "-f", "app.yaml", "-f", "others.yaml", ...configured];
    const { out } = await run("inject", args, files);
    assert.deepEqual(
      values(out).map((value) => (value as { kind: string }).kind),
      ["ConfigMap", "Deployment", "ConfigMap"],
    );
  });

  const shapes: readonly (readonly [string, (template: object) => object])[] = [
    ["StatefulSet", (template) => ({ kind: "StatefulSet", spec: { template } })],
    ["DaemonSet", (template) => ({ kind: "DaemonSet", spec: { template } })],
    ["Job", (template) => ({ kind: "Job", spec: { template } })],
    ["CronJob", (template) => ({ kind: "CronJob", spec: { jobTemplate: { spec: { template } } } })],
    ["Rollout of another project", (template) => ({ kind: "Rollout", spec: { template } })],
  ];
  for (const [what, shape] of shapes)
    test(`finds the pods of a ${what}, in YAML and in JSON`, async () => {
      const { metadata, spec } = podWith({ channel: "web/stable" });
      const object = { apiVersion: "x/v1", metadata: { name: "x" }, ...shape({ metadata, spec }) };
      const { out } = await run("inject", ["-f", "-", ...configured], {
        ...files,
        "-": JSON.stringify(object),
      });
      assert.equal(podsOf(out)[0]?.spec?.initContainers?.[0]?.name, "edgesync");
    });

  test("finds pods in a List, and leaves the other items", async () => {
    const list = {
      apiVersion: "v1",
      kind: "List",
      items: [{ apiVersion: "v1", kind: "Secret", metadata: {} }, podWith({ channel: "web/x" })],
    };
    const { out } = await run("inject", ["-f", "-", ...configured], {
      ...files,
      "-": JSON.stringify(list),
    });
    const [{ items } = { items: [] }] = values(out) as { items: Pod[] }[];
    assert.deepEqual(items[0], list.items[0]);
    assert.equal(items[1]?.spec?.initContainers?.[0]?.name, "edgesync");
  });

  test("changes one of two pods that share an anchor, and not the other", async () => {
    const text = `apiVersion: v1
kind: List
items:
- kind: Pod
  metadata: {name: a, annotations: {edgesync.dev/channel: web/stable}}
  spec: &spec
    containers:
    - {name: web, image: "web:1"}
- kind: Pod
  metadata: {name: b}
  spec: *spec
`;
    const { out } = await run("inject", ["-f", "-", ...configured], { ...files, "-": text });
    const [{ items } = { items: [] }] = values(out) as { items: Pod[] }[];
    assert.equal(items[0]?.spec?.initContainers?.[0]?.name, "edgesync");
    assert.deepEqual(items[1]?.spec, { containers: [{ name: "web", image: "web:1" }] });
  });

  test("prints nothing when a pod is denied, and says each thing that is wrong", async () => {
    const text = DEPLOYMENT.replace("detector/stable", "detector").replace("/channel", "/chanel");
    const { exit, out, notes } = await run("inject", ["-f", "-", ...configured], {
      ...files,
      "-": text,
    });
    assert.deepEqual([exit, out], [65, ""]);
    assert.match(notes, /shop\/detector: denied \(ANNOTATION_INVALID\):\n {2}- .*chanel/);
  });

  test("warns that annotations around a template do nothing", async () => {
    const text = `kind: Deployment
metadata: {name: web, annotations: {edgesync.dev/channel: web/stable}}
spec: {template: {spec: {containers: [{name: web}]}}}
`;
    const { exit, notes } = await run("inject", ["-f", "-"], { "-": text });
    assert.equal(exit, 0);
    assert.match(notes, /annotation of the Deployment.*spec\.template\.metadata\.annotations/);
  });

  test("warns that the webhook is not asked about a namespace that is not labelled", async () => {
    const namespace = (label: string): string =>
      `---\nkind: Namespace\nmetadata: {name: shop, labels: {${label}}}\n`;
    const notes = async (label: string): Promise<string> => {
      const given = { ...files, "-": namespace(label) + DEPLOYMENT };
      return (await run("inject", ["-", ...configured], given)).notes;
    };
    assert.match(await notes("a: b"), /shop\/detector: its namespace is not labelled/);
    assert.doesNotMatch(await notes("edgesync.dev/injection: enabled"), /not labelled/);
    assert.doesNotMatch((await run("inject", ["app.yaml"], files)).notes, /not labelled/);
  });

  test("says when there is no pod at all", async () => {
    const { exit, out, notes } = await run("inject", ["-f", "others.yaml"], files);
    assert.deepEqual([exit, out], [0, OTHERS]);
    assert.match(notes, /no pod and no template of pods/);
  });

  test("holds pods against the operator's lists when it is told of them, and says when not", async () => {
    const text = DEPLOYMENT.replace(
      "detector/stable",
      "detector/stable\n        edgesync.dev/repository: https://evil.example",
    );
    const given = { ...files, "-": text };
    assert.equal((await run("inject", ["-f", "-", ...configured], given)).exit, 65);
    const { exit, notes } = await run("inject", ["-f", "-"], given);
    assert.equal(exit, 0);
    assert.match(notes, /no ConfigMap edgesync-webhook was given/);
  });

  test("takes defaults of the namespace and of the cluster from their ConfigMaps", async () => {
    const defaults = (namespace: string, data: string): string =>
      `---\nkind: ConfigMap\nmetadata: {name: edgesync-defaults, namespace: ${namespace}}\ndata: {${data}}\n`;
    const config =
      CONFIG +
      defaults("shop", "poll-interval: 2h") +
      defaults("edgesync", "poll-interval: 3h, log-level: debug") +
      defaults("other", "log-level: error");
    const { out } = await run("inject", ["-f", "app.yaml", ...configured], {
      ...files,
      "config.yaml": config,
    });
    const env = podsOf(out)[0]?.spec?.initContainers?.[0]?.env ?? [];
    const value = (name: string): unknown => env.find((one) => one.name === name)?.value;
    assert.equal(value("EDGESYNC_POLL_INTERVAL"), "2h");
    assert.equal(value("EDGESYNC_LOG_LEVEL"), "debug");
  });

  test("makes the pod for old kubelets when told so", async () => {
    const args = ["-f", "app.yaml", "--kubelet", "v1.28.9", ...configured];
    const { out } = await run("inject", args, files);
    assert.equal(podsOf(out)[0]?.spec?.containers?.[0]?.name, "edgesync");
  });

  const mistakes: readonly (readonly [string, readonly string[], string, string, RegExp])[] = [
    ["no file", [], "", "USAGE", /-f is missing/],
    ["an unknown option", ["-f", "-", "--dry"], "", "USAGE", /--dry/],
    ["a version that is none", ["-f", "-", "--kubelet", "old"], "", "USAGE", /--kubelet/],
    ["text that is no YAML", ["-f", "-"], "a: [", "OBJECT_INVALID", /standard input, line 1/],
    ["YAML that is no object", ["-f", "-"], "just text", "OBJECT_INVALID", /document 1/],
    [
      "a pod of a wrong form",
      ["-f", "-"],
      "kind: Job\nmetadata: {name: x}\nspec: {template: {spec: {containers: [{name: 5}]}}}",
      "OBJECT_INVALID",
      /Job x is not valid at spec\.template\.spec\.containers\.0\.name/,
    ],
    [
      "more aliases than an honest file has",
      ["-f", "-"],
      `a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c,*c,*c,*c]`,
      "OBJECT_INVALID",
      /alias/i,
    ],
  ];
  for (const [what, args, text, code, message] of mistakes)
    test(`refuses ${what}`, async () => {
      await assert.rejects(run("inject", args, { "-": text }), (error: unknown) => {
        assert.ok(error instanceof EdgeSyncError);
        assert.equal(error.code, code);
        assert.match(error.message, message);
        return true;
      });
    });
});

describe("objects in a text", () => {
  const document = fc.constantFrom(
    OTHERS,
    DEPLOYMENT,
    "# only a comment\n",
    "kind: Secret\nstringData:\n  a: |-\n    x\n\n\n",
    '{"kind": "ConfigMap", "data": {"a": "b"}}\n',
    "kind: ConfigMap\r\ndata: {a: 'x'}\r\n",
    "",
  );
  const mark = fc.constantFrom("---\n", "--- # next\n", "...\n---\n", "---\n\n# about\n");

  test("are given back byte by byte when none is changed", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(mark, document), { maxLength: 5 }), (parts) => {
        const text = parts.flat().join("");
        assert.equal(readObjects(text, "x").withPods(new Map()), text);
      }),
    );
  });

  test("are found whatever stands between them", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(mark, document), { maxLength: 5 }), (parts) => {
        const text = parts.flat().join("");
        const deployments = parts.filter(([, one]) => one === DEPLOYMENT);
        assert.equal(readObjects(text, "x").pods.length, deployments.length);
      }),
    );
  });
});

describe("edgesync explain", () => {
  test("says what would be injected, where, with what, and how probes change", async () => {
    const { exit, out } = await run("explain", ["-f", "-"], {
      "-": DEPLOYMENT.replace(
        "detector/stable",
        "detector/stable\n        edgesync.dev/repository: https://r.example",
      ),
    });
    assert.equal(exit, 0);
    for (const line of [
      /^Deployment shop\/detector: injected$/m,
      /needs +label edgesync\.dev\/injection=enabled on the namespace/,
      /sidecar +native sidecar/,
      /requests +cpu 5m, memory 48Mi/,
      /web +\/payload +edgesync-payload +read-only/,
      /web +liveness +http :8080\/livez, every 10s, 3 failures -> http :19465\/app\/web\/live/,
    ])
      assert.match(out, line);
  });

  test("says why not, and ends with 65 for a denial", async () => {
    const plain = `kind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: web}]}\n`;
    const skipped = await run("explain", ["-f", "-"], { "-": plain });
    assert.match(skipped.out, /Pod default\/x: not injected \(not_requested\)/);
    assert.equal(skipped.exit, 0);
    const denied = await run("explain", ["-f", "-"], { "-": DEPLOYMENT });
    assert.match(denied.out, /denied \(ANNOTATION_INVALID\).*\n {2}- edgesync\.dev\/repository is/);
    assert.equal(denied.exit, 65);
  });

  test("names the main container, also where kubectl is led to a native sidecar", async () => {
    const pod = podWith(
      { channel: "web/stable", repository: "https://releases.example" },
      { initContainers: [{ name: "proxy", image: "proxy:1", restartPolicy: "Always" }] },
    );
    const annotations = {
      ...pod.metadata?.annotations,
      "kubectl.kubernetes.io/default-container": "proxy",
    };
    const led = { ...pod, metadata: { ...pod.metadata, annotations } };
    const { out } = await run("explain", ["--json", "-f", "-"], { "-": JSON.stringify(led) });
    assert.match(out, /"main": ?"web"/);
  });

  test("gives tools one object", async () => {
    const { metadata, spec } = podWith({ channel: "web/stable", repository: "https://r.example" });
    const labels = { "edgesync.dev/inject": "true" };
    const pod = { kind: "Pod", metadata: { ...metadata, labels, namespace: "shop" }, spec };
    const { out } = await run("explain", ["--json", "-f", "-"], { "-": JSON.stringify(pod) });
    const { pods } = JSON.parse(out) as { pods: readonly Readonly<Record<string, unknown>>[] };
    const { kind, namespace, name, outcome, mode, needs, main } = pods[0] ?? {};
    assert.deepEqual(
      { kind, namespace, name, outcome, mode, needs, main },
      {
        kind: "Pod",
        namespace: "shop",
        name: "web",
        outcome: "injected",
        mode: "native",
        needs: null,
        main: "web",
      },
    );
  });
});

describe("as commands", () => {
  const bin = new URL("../../bin/edgesync.ts", import.meta.url).pathname;
  const root = new URL("../..", import.meta.url).pathname;

  test("they take the manifests of the project as they are", async () => {
    const example = join(root, "manifests/examples/web.yaml");
    assert.match(await readFile(example, "utf8"), /edgesync\.dev\//);
    await using ran = startNode([
      bin,
      "explain",
      "-f",
      example,
      "--config",
      join(root, "manifests/base/config.yaml"),
      "--json",
    ]);
    await ran.ended();
    assert.match(ran.output(), /"pods":\[/);
  });

  test("they say a mistake in one line with its code", async () => {
    await using ran = startNode([bin, "inject", "-f", "/nowhere.yaml"]);
    assert.equal(await ran.ended(), 64);
    assert.match(ran.output(), /^edgesync: USAGE: \/nowhere\.yaml cannot be read.*\n$/);
  });
});
