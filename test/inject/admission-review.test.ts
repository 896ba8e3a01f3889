import assert from "node:assert/strict";
import { describe, test } from "node:test";
import * as fc from "../support/property.ts";
import { admit, boundWarnings, readReview, refuse } from "#core/admission-review.ts";
import { podWith } from "../support/inject.ts";

const REQUEST = {
  uid: "705ab4f5-6393-11e8-b7cc-42010a800002",
  kind: { group: "", version: "v1", kind: "Pod" },
  resource: { group: "", version: "v1", resource: "pods" },
  namespace: "shop",
  operation: "CREATE",
  userInfo: { username: "system:serviceaccount:kube-system:replicaset-controller" },
  object: podWith({ channel: "web/stable" }),
};

const review = (request: object, apiVersion = "admission.k8s.io/v1"): object => ({
  apiVersion,
  kind: "AdmissionReview",
  request: { ...REQUEST, ...request },
});

describe("reading a review", () => {
  test("takes the pod as it is, the very object", () => {
    const { pod, uid, namespace, name, dryRun } = readReview(review({ name: "" }));
    assert.equal(pod, REQUEST.object);
    assert.deepEqual(
      { uid, namespace, name, dryRun },
      { uid: REQUEST.uid, namespace: "shop", name: undefined, dryRun: false },
    );
  });

  test("has no pod when none is being created", () => {
    for (const request of [
      { operation: "UPDATE" },
      { operation: "DELETE", object: null },
      { operation: "CREATE", subResource: "eviction", object: {} },
    ])
      assert.equal(readReview(review(request)).pod, undefined);
  });

  const malformed: readonly (readonly [string, unknown])[] = [
    ["no object", "review"],
    ["null", null],
    ["a list", []],
    ["another version of the API", review({}, "admission.k8s.io/v1beta1")],
    ["another kind", { apiVersion: "v1", kind: "Pod" }],
    ["no request", { apiVersion: "admission.k8s.io/v1", kind: "AdmissionReview" }],
    ["no uid", review({ uid: "" })],
    [
      "an object that is no pod",
      review({ kind: { group: "apps", version: "v1", kind: "Deployment" } }),
    ],
    ["a pod without the pod", review({ object: undefined })],
    ["containers that are no list", review({ object: { spec: { containers: {} } } })],
    ["a container without a name", review({ object: { spec: { containers: [{}] } } })],
    ["an annotation that is no text", review({ object: { metadata: { annotations: { a: 1 } } } })],
  ];
  for (const [what, input] of malformed)
    test(`refuses ${what}`, () => {
      assert.throws(() => readReview(input), { code: "REVIEW_INVALID" });
    });

  test("never ends in anything but a pod or REVIEW_INVALID", () => {
    const anything = fc.anything();
    fc.assert(
      fc.property(
        fc.oneof(
          anything,
          anything.map((object) => review({ object })),
        ),
        (input) => {
          try {
            readReview(input);
          } catch (error) {
            assert.equal((error as { code?: string }).code, "REVIEW_INVALID");
          }
        },
      ),
    );
  });
});

describe("answering a review", () => {
  test("admits without a patch when there is nothing to change", () => {
    assert.deepEqual(admit("u", [], []).response, { uid: "u", allowed: true });
  });

  test("carries the patch in base64", () => {
    const operations = [{ op: "add", path: "/metadata/labels", value: { ä: "ß" } }] as const;
    const { patchType, patch } = admit("u", operations, []).response;
    assert.equal(patchType, "JSONPatch");
    assert.deepEqual(JSON.parse(Buffer.from(patch ?? "", "base64").toString()), operations);
  });

  test("refuses with the code in the message", () => {
    const { allowed, status } = refuse("u", "ANNOTATION_INVALID", "channel is missing").response;
    assert.equal(allowed, false);
    assert.equal(status?.code, 422);
    assert.match(status.message, /^ANNOTATION_INVALID: channel/);
  });

  test("keeps warnings within the API server's limits", () => {
    fc.assert(
      fc.property(fc.array(fc.string({ maxLength: 400 })), (warnings) => {
        const bounded = boundWarnings(warnings);
        assert.ok(bounded.every((warning) => warning.length <= 256));
        assert.ok(Buffer.byteLength(bounded.join("")) <= 4096);
        assert.ok(bounded.length === warnings.length || warnings.join("").length > 3_000);
      }),
    );
  });
});
