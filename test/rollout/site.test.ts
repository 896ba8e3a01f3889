import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { ClusterOptions } from "#core/inject/cluster.ts";
import { CLUSTER, denied, envOf, injected, podWith, sidecarOf } from "../support/inject.ts";

describe("the name of a site in a pod", () => {
  const channel = "web/stable";
  const cluster: ClusterOptions = { ...CLUSTER, site: "store-0042" };
  const siteIn = (annotations: Readonly<Record<string, string>>, options = cluster) =>
    envOf(sidecarOf(injected(podWith(annotations), options).pod))["EDGESYNC_SITE"];

  test("is the annotation's, else the cluster's, else left to the node's", () => {
    assert.equal(siteIn({ channel, site: "kiosk-7" }), "kiosk-7");
    assert.equal(siteIn({ channel }), "store-0042");
    assert.equal(siteIn({ channel }, { ...cluster, site: undefined }), undefined);
  });

  test("is not given to a pod without a payload", () => {
    assert.equal(siteIn({ "secret.db": "secret/data/db" }), undefined);
  });

  test("that is none is refused by name", () => {
    const { code, message } = denied(podWith({ channel, site: "not a name" }));
    assert.equal(code, "ANNOTATION_INVALID");
    assert.match(message, /edgesync\.dev\/site/);
  });
});
