import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { ClusterOptions } from "#core/inject/cluster.ts";
import { answerReview } from "../../webhook/review.ts";
import { podWith } from "../support/inject.ts";

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
