/** What the image runs are bundles: that each of them works without a module beside it. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { buildSubjects, start } from "../bench/subjects.ts";
import type { Subject } from "../bench/subjects.ts";
import { podWith } from "./support/inject.ts";
import { startNode } from "./support/process.ts";
import { temporaryFolder } from "./support/temporary.ts";
import { call, startWebhook } from "./support/webhook.ts";

describe("a bundle of the image", () => {
  let folder: Awaited<ReturnType<typeof temporaryFolder>>;
  let sidecar: Subject | undefined;
  before(async () => {
    folder = await temporaryFolder();
    sidecar = (await buildSubjects(folder.path)).find(({ name }) => name === "sidecar");
  });
  after(() => folder[Symbol.asyncDispose]());

  test("runs the sidecar, which is scraped and tells its status", async () => {
    assert.ok(sidecar !== undefined);
    await using running = await start(sidecar);
    assert.match(await running.get("/metrics"), /^process_resident_memory_bytes /m);
    assert.equal(typeof JSON.parse(await running.get("/status")), "object");
  });

  test("runs the webhook, which reviews a pod and is scraped", async () => {
    const program = join(folder.path, "edgesync.mjs");
    await using webhook = await startWebhook({}, undefined, program);
    const reply = await call({
      port: webhook.port,
      path: "/mutate",
      ca: webhook.files.ca,
      body: JSON.stringify({
        apiVersion: "admission.k8s.io/v1",
        kind: "AdmissionReview",
        request: {
          uid: "1",
          kind: { group: "", version: "v1", kind: "Pod" },
          resource: { group: "", version: "v1", resource: "pods" },
          operation: "CREATE",
          namespace: "shop",
          object: podWith({ channel: "web/stable" }),
        },
      }),
    });
    assert.equal(reply.status, 200);
    assert.match(reply.text, /"allowed":true/);
    const scraped = await fetch(`http://127.0.0.1:${webhook.metricsPort}/metrics`);
    assert.match(await scraped.text(), /^edgesync_webhook_reviews_total\{/m);
  });

  test("runs the publisher", async () => {
    await using publisher = startNode([join(folder.path, "edgesync.mjs"), "--help"]);
    assert.equal(await publisher.ended(), 0);
    assert.match(publisher.output(), /release add/);
  });
});
