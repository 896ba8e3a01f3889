/** What is kept of one decision for the pods that come after: never another answer than each would have got alone. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { openMemory } from "#core/inject/alike.ts";
import type { Memory } from "#core/inject/alike.ts";
import { PLAIN_FACTS } from "#core/inject/facts.ts";
import type { Facts } from "#core/inject/facts.ts";
import type { Pod } from "#core/inject/pod.ts";
import { answerReview } from "../../webhook/review.ts";
import type { Injected, Reviewed } from "../../webhook/review.ts";
import { CLUSTER, podWith, WEB } from "../support/inject.ts";
import { placesIn, replaced } from "../support/json-places.ts";
import { vectors } from "../support/vectors.ts";

const BUDGET = 1 << 20;
const BYTES = 4_096;

const TOKEN = "kube-api-access-zc5x2";

/** As the API server sends it: with the volume of its token in each container. */
function withToken(pod: Pod, token = TOKEN): Pod {
  const mount = { name: token, mountPath: "/var/run/secrets/kubernetes.io/serviceaccount" };
  const { spec } = pod;
  return copy({
    ...pod,
    spec: {
      ...spec,
      containers: (spec?.containers ?? []).map((one) => ({
        ...one,
        volumeMounts: [...(one.volumeMounts ?? []), mount],
      })),
      volumes: [...(spec?.volumes ?? []), { name: token, projected: {} }],
    },
  });
}

function copy<T>(value: T): T {
  return JSON.parse(JSON.stringify(value)) as T;
}

function reviewOf(pod: unknown): object {
  const kind = { group: "", version: "v1", kind: "Pod" };
  return {
    apiVersion: "admission.k8s.io/v1",
    kind: "AdmissionReview",
    request: { uid: "705ab4f5", kind, operation: "CREATE", namespace: "shop", object: pod },
  };
}

interface Watched extends Memory<Injected> {
  recalled: number;
}

function memoryOf(budget = BUDGET): Watched {
  const memory = openMemory<Injected>(budget);
  const watched: Watched = {
    recalled: 0,
    recall(pod, facts) {
      const found = memory.recall(pod, facts);
      if (found !== undefined) watched.recalled++;
      return found;
    },
    keep: (...given) => memory.keep(...given),
  };
  return watched;
}

function answered(pod: unknown, memory: Memory<Injected>, facts = PLAIN_FACTS): Reviewed | string {
  return tried(() =>
    answerReview(reviewOf(copy(pod)), CLUSTER, () => facts, { memory, bytes: BYTES }),
  );
}

function alone(pod: unknown, facts = PLAIN_FACTS): Reviewed | string {
  return tried(() => answerReview(reviewOf(copy(pod)), CLUSTER, () => facts));
}

function tried(answer: () => Reviewed): Reviewed | string {
  try {
    return answer();
  } catch (error) {
    return String(error);
  }
}

/** A memory in which a pod of a workload has been twice, as it takes. */
function after(pod: Pod, facts?: Facts): Watched {
  const memory = memoryOf();
  for (let turn = 0; turn < 2; turn++) answered(pod, memory, facts);
  assert.equal(memory.recalled, 0);
  return memory;
}

const POD = withToken({
  ...podWith({ channel: "web/stable", "secret.db": "database/creds/web" }),
  metadata: {
    generateName: "web-5d4-",
    labels: { "pod-template-hash": "5d4" },
    annotations: { "edgesync.dev/channel": "web/stable" },
    ownerReferences: [
      { apiVersion: "apps/v1", kind: "ReplicaSet", name: "web-5d4", uid: "1", controller: true },
    ],
  },
});

/** The pod with another value at a place. */
function but(path: string, value: unknown, pod: Pod = POD): Pod {
  return replaced(pod, path.split("."), value) as Pod;
}

const RENAMED = JSON.parse(JSON.stringify(POD).replaceAll(TOKEN, "kube-api-access-99999")) as Pod;

function backwards(value: object | null | undefined): object {
  return Object.fromEntries(Object.entries(value ?? {}).toReversed());
}

describe("a pod like one that has come twice", () => {
  for (const [what, pod] of [
    ["the same one", POD],
    ["of which only the token volume has another name", RENAMED],
    ["with other variables", but("spec.containers.0.env", [{ name: "SHARD", value: "7" }])],
    ["for another node, as those of a DaemonSet are", but("spec.affinity", { nodeAffinity: {} })],
    ["with another name of its host, as those of a StatefulSet are", but("spec.hostname", "web-7")],
    ["with other labels of the application's", but("metadata.labels.tier", "web")],
  ] as const)
    test(`is answered by what is kept: ${what}`, () => {
      const memory = after(POD);
      assert.deepEqual(answered(pod, memory), alone(pod));
      assert.equal(memory.recalled, 1);
    });

  for (const [what, pod] of [
    [
      "another annotation of ours",
      but("metadata.annotations", { "edgesync.dev/channel": "web/beta" }),
    ],
    ["another annotation of anybody's", but("metadata.annotations.note", "x")],
    [
      "another label for the injection",
      but("metadata.labels", { "pod-template-hash": "5d4", "edgesync.dev/inject": "false" }),
    ],
    ["another controller", but("metadata.ownerReferences.0.kind", "Job")],
    ["another container", but("spec.containers.1", { name: "other", image: "other:1" })],
    ["another port", but("spec.containers.0.ports.0.containerPort", 8_081)],
    [
      "another mount",
      but("spec.containers.0.volumeMounts.1", { name: "data", mountPath: "/data" }),
    ],
    ["another volume", but("spec.volumes.1", { name: "data", emptyDir: {} })],
    ["an end of its own", but("spec.restartPolicy", "Never")],
    ["the node's network", but("spec.hostNetwork", true)],
    ["two volumes that look like a token's", but("spec.volumes.0.name", "kube-api-access-99999")],
    [
      "a token volume of another kind of name",
      JSON.parse(JSON.stringify(POD).replaceAll(TOKEN, "token")) as Pod,
    ],
    ["a list for an object", but("spec.volumes.0.projected", [])],
    [
      "two names for one token volume",
      but("spec.volumes.0.name", "kube-api-access-88888", RENAMED),
    ],
    ["the fields of its spec in another order", but("spec", backwards(POD.spec))],
    ["those of a container", but("spec.containers.0", backwards(POD.spec?.containers?.[0]))],
    [
      "its fields in another order",
      { spec: POD.spec, metadata: POD.metadata, kind: "Pod", apiVersion: "v1" },
    ],
  ] as const)
    test(`is decided on by itself where it has ${what}`, () => {
      const memory = after(POD);
      assert.deepEqual(answered(pod, memory), alone(pod));
      assert.equal(memory.recalled, 0);
    });

  test("is decided on by itself where the cluster is another by then", () => {
    const defaults = [{ source: "ConfigMap shop/edgesync", values: { "poll-interval": "5m" } }];
    for (const [facts, recalled] of [
      [{ ...PLAIN_FACTS, nativeSidecars: false, defaults }, 0],
      [PLAIN_FACTS, 0],
      [{ ...PLAIN_FACTS, defaults: copy(defaults) }, 0],
      [{ ...PLAIN_FACTS, defaults: [...defaults], now: 7 }, 1],
    ] as const) {
      const memory = after(POD, { ...PLAIN_FACTS, defaults });
      assert.deepEqual(answered(POD, memory, facts), alone(POD, facts));
      assert.equal(memory.recalled, recalled);
    }
  });

  test("is decided on by itself where it has null for an empty list", () => {
    const memory = after(but("spec.initContainers", []));
    const pod = but("spec.initContainers", null);
    assert.deepEqual(answered(pod, memory), alone(pod));
    assert.equal(memory.recalled, 0);
  });

  test("has warnings and an event for its own owner", () => {
    const memory = after(POD);
    const reviewed = answered(but("metadata.ownerReferences.0.uid", "2"), memory);
    assert.ok(typeof reviewed === "object" && memory.recalled === 1);
    assert.match(reviewed.response.response.warnings?.join() ?? "", /ephemeral/);
    assert.equal(reviewed.event?.owner.uid, "2");
  });
});

describe("nothing is kept", () => {
  for (const [what, pod] of [
    [
      "of a pod whose answer depends on the time",
      but("metadata.annotations", {
        "edgesync.dev/channel": "web/stable",
        "edgesync.dev/hold": "2030-01-01T00:00:00Z",
      }),
    ],
    ["of two containers of one name", but("spec.initContainers", [{ name: "a" }, { name: "a" }])],
    [
      "of two volumes that look like a token's",
      but("spec.volumes.1", { name: "kube-api-access-99999", emptyDir: {} }),
    ],
    ["of a container with such a name", but("spec.containers.0.name", "kube-api-access-99999")],
    [
      "of a sidecar from an earlier call",
      but("spec.initContainers", [{ name: "a", args: ["agent"] }]),
    ],
  ] as const)
    test(what, () => {
      const memory = memoryOf();
      const expected = alone(pod);
      assert.ok(typeof expected === "object" && expected.outcome === "injected");
      for (let turn = 0; turn < 4; turn++) assert.deepEqual(answered(pod, memory), expected);
      assert.equal(memory.recalled, 0);
    });

  test("of a pod that goes deeper than any type of Kubernetes", () => {
    const deep = JSON.parse(`${"[".repeat(100_000)}${"]".repeat(100_000)}`) as unknown;
    const pod = { ...POD, spec: { ...POD.spec, volumes: [{ name: "deep", deep }] } };
    const memory = openMemory<string>(BUDGET);
    for (let turn = 0; turn < 2; turn++) memory.keep(pod, PLAIN_FACTS, "x", BYTES, "");
    assert.equal(memory.recall(pod, PLAIN_FACTS), undefined);
  });

  test("whose text has the name of the token volume in it", () => {
    for (const [text, kept] of [
      ["[]", "x"],
      [`["${TOKEN}"]`, undefined],
    ] as const) {
      const memory = openMemory<string>(BUDGET);
      for (let turn = 0; turn < 2; turn++) memory.keep(POD, PLAIN_FACTS, "x", BYTES, text);
      assert.equal(memory.recall(POD, PLAIN_FACTS), kept);
    }
  });

  test("of a large pod, or for longer than there is room", () => {
    const memory = openMemory<string>(80);
    const of = (name: string): Pod => but("metadata.generateName", name);
    const keep = (name: string, bytes: number): void =>
      memory.keep(of(name), PLAIN_FACTS, name, bytes, "");
    const known = (): readonly string[] =>
      ["a", "b", "c", "d", "e", "f", "g", "h", "i", "large"].filter(
        (name) => memory.recall(of(name), PLAIN_FACTS) === name,
      );
    for (let turn = 0; turn < 2; turn++) {
      keep("large", 11);
      for (const name of ["a", "b", "c", "d", "e", "f", "g", "h", "i"]) keep(name, 10);
    }
    assert.deepEqual(known(), ["b", "c", "d", "e", "f", "g", "h", "i"]);
    keep("b", 10);
    keep("a", 10);
    assert.deepEqual(known(), ["a", "b", "d", "e", "f", "g", "h", "i"]);
  });
});

describe("any pod after any other", async () => {
  const bases = (await vectors()).flatMap(({ pod }) => [pod, withToken(pod)]);
  const values = fc.constantFrom<unknown>(
    undefined,
    null,
    "",
    "web",
    "kube-api-access-99999",
    TOKEN,
    0,
    8080,
    true,
    [],
    {},
    [WEB],
    { name: "x" },
  );
  const edits = fc.array(fc.tuple(fc.nat(), values), { maxLength: 2 });

  test("gets the answer that it would get alone", () => {
    let recalled = 0;
    const edited = (pod: unknown, changes: readonly (readonly [number, unknown])[]): unknown =>
      changes.reduce<unknown>((before, [at, value]) => {
        const places = placesIn(before);
        return replaced(before, places[at % places.length] ?? [], value);
      }, pod);
    const property = fc.property(
      fc.constantFrom(...bases),
      edits,
      edits,
      fc.boolean(),
      (base, first, then, renamed) => {
        const memory = memoryOf();
        const before = edited(base, first);
        for (let turn = 0; turn < 2; turn++) answered(before, memory);
        const changed = edited(before, then);
        const pod: unknown = renamed
          ? JSON.parse(
              (JSON.stringify(changed) ?? "null").replaceAll(TOKEN, "kube-api-access-bcdf2"),
            )
          : changed;
        assert.deepEqual(answered(pod, memory), alone(pod));
        recalled += memory.recalled;
      },
    );
    fc.assert(property, { numRuns: RUNS });
    assert.ok(recalled > RUNS / 10, `${recalled} of ${RUNS} were answered by what was kept`);
  });
});

const RUNS = 2_000;
