import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { ClusterOptions } from "#core/inject/cluster.ts";
import { PLAIN_FACTS } from "#core/inject/facts.ts";
import type { Pod } from "#core/inject/pod.ts";
import { answerReview } from "../../webhook/review.ts";
import type { Reviewed } from "../../webhook/review.ts";
import { CLUSTER, podWith } from "../support/inject.ts";

const POD = podWith({ channel: "web/stable", repository: "https://a.example" });

const review = {
  apiVersion: "admission.k8s.io/v1",
  kind: "AdmissionReview",
  request: {
    uid: "705ab4f5",
    kind: { group: "", version: "v1", kind: "Pod" },
    operation: "CREATE",
    namespace: "shop",
    object: {
      ...POD,
      metadata: { ...POD.metadata, name: undefined, generateName: "web-" },
    },
  },
};

describe("an error of ours", () => {
  // What no configuration gives: the decision then fails half-way.
  const { response, outcome, reason, fields } = answerReview(review, {} as ClusterOptions);

  test("refuses the pod, and says nothing of its cause", () => {
    const { uid, allowed, status } = response.response;
    assert.deepEqual([uid, allowed, status?.code], ["705ab4f5", false, 500]);
    assert.doesNotMatch(status?.message ?? "", /undefined|TypeError/);
  });

  test("is counted and logged with its cause, and with what is known of the pod", () => {
    assert.deepEqual([outcome, reason], ["failed", "INTERNAL"]);
    assert.ok(fields.err instanceof Error);
    assert.deepEqual([fields.namespace, fields.pod, fields.uid], ["shop", "web-", "705ab4f5"]);
  });
});

const OWNER = {
  apiVersion: "apps/v1",
  kind: "ReplicaSet",
  name: "web-5d4",
  uid: "1-2-3",
  controller: true,
};

function reviewOf(pod: Pod, more: object = {}): object {
  return { ...review, request: { ...review.request, object: pod, ...more } };
}

function owned(pod: Pod, owner: object = OWNER): Pod {
  // As it arrives: parsed from JSON.
  return JSON.parse(
    JSON.stringify({ ...pod, metadata: { ...pod.metadata, ownerReferences: [owner] } }),
  ) as Pod;
}

describe("the owner of a pod", () => {
  const event = (pod: Pod, more: object = {}): Reviewed["event"] =>
    answerReview(reviewOf(pod, more), CLUSTER).event;

  test("hears why it was denied, by the word that the log and the metric have too", () => {
    const pod = owned(podWith({ channel: "web/stable", chanel: "x" }));
    const { reason, event } = answerReview(reviewOf(pod), CLUSTER);
    assert.equal(reason, "ANNOTATION_INVALID");
    assert.equal(event?.reason, "InjectionDenied");
    assert.equal(event.namespace, "shop");
    assert.deepEqual(event.owner, OWNER);
    assert.match(event.message, /^ANNOTATION_INVALID: .*chanel/);
  });

  test("hears that a pod was left as it is although it asked", () => {
    const windows = podWith({ channel: "web/stable" }, { os: { name: "windows" } });
    assert.match(event(owned(windows))?.message ?? "", /^windows: /);
    assert.equal(event(owned(windows))?.reason, "InjectionSkipped");
    const labels = { "edgesync.dev/inject": "false" };
    const out = { ...windows, metadata: { ...windows.metadata, labels } };
    assert.equal(event(owned(out)), undefined);
  });

  test("hears the warnings that only who sends the pod would see", () => {
    const told = event(owned(podWith({ channel: "web/stable" })));
    assert.equal(told?.reason, "InjectionWarned");
    assert.match(told.message, /payload-storage is ephemeral/);
    const calm = podWith({ channel: "web/stable", "payload-storage": "claim/models" });
    assert.equal(event(owned(calm)), undefined);
  });

  test("hears nothing of a dry run, nor does anybody where there is none", () => {
    const pod = podWith({ chanel: "x" });
    assert.notEqual(event(owned(pod)), undefined);
    assert.equal(event(owned(pod), { dryRun: true }), undefined);
    assert.equal(event(pod), undefined);
    assert.equal(event(owned(pod, { ...OWNER, controller: false })), undefined);
  });
});

describe("what is known of the cluster", () => {
  test("is asked for by the namespace of the request and the node of the pod", () => {
    const asked: unknown[] = [];
    const pod = podWith({ channel: "web/stable" }, { nodeName: "node-7" });
    const { response } = answerReview(reviewOf(pod), CLUSTER, (...of) => {
      asked.push(of);
      return { ...PLAIN_FACTS, nativeSidecars: false };
    });
    assert.deepEqual(asked, [["shop", "node-7"]]);
    const patch = Buffer.from(response.response.patch ?? "", "base64").toString();
    assert.match(patch, /"--wait"/);
  });
});
