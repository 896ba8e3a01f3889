import assert from "node:assert/strict";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import https from "node:https";
import { connect } from "node:net";
import { after, before, describe, test } from "node:test";
import { connect as connectTls } from "node:tls";
import patches from "fast-json-patch";
import type { ReviewResponse } from "#core/admission-review.ts";
import type { Pod } from "#core/inject/pod.ts";
import { podWith, sidecarOf, WEB } from "../support/inject.ts";
import { call, localCertificate, startWebhook } from "../support/webhook.ts";
import type { Reply, RunningWebhook } from "../support/webhook.ts";

const POD = podWith({ channel: "web/stable", "secret.db": "database/creds/web" });

function reviewOf(object: unknown, request: object = {}, version = "v1"): string {
  return JSON.stringify({
    apiVersion: `admission.k8s.io/${version}`,
    kind: "AdmissionReview",
    request: {
      uid: "705ab4f5",
      kind: { group: "", version: "v1", kind: "Pod" },
      resource: { group: "", version: "v1", resource: "pods" },
      operation: "CREATE",
      namespace: "shop",
      object,
      ...request,
    },
  });
}

function responseOf(reply: Reply): ReviewResponse["response"] {
  const { apiVersion, kind, response } = JSON.parse(reply.text) as ReviewResponse;
  assert.deepEqual([apiVersion, kind], ["admission.k8s.io/v1", "AdmissionReview"]);
  return response;
}

function post(webhook: RunningWebhook, body: string, more: object = {}): Promise<Reply> {
  return call({ port: webhook.port, path: "/mutate", ca: webhook.files.ca, body, ...more });
}

function get(webhook: RunningWebhook, path: string, ca = webhook.files.ca): Promise<Reply> {
  return call({ port: webhook.port, path, ca });
}

describe("the webhook", () => {
  let webhook: RunningWebhook;
  before(async () => {
    webhook = await startWebhook();
  });
  after(() => webhook[Symbol.asyncDispose]());

  test("is ready and alive, under the names of its Service", async () => {
    for (const host of ["localhost", "edgesync-webhook.edgesync.svc"]) {
      const ready = await call({
        port: webhook.port,
        path: "/readyz",
        ca: webhook.files.ca,
        host,
      });
      assert.equal(ready.status, 200);
    }
    assert.equal((await get(webhook, "/healthz")).status, 200);
    // Where no certificate is needed.
    const alive = await fetch(`http://127.0.0.1:${webhook.metricsPort}/healthz`);
    assert.equal(alive.status, 200);
  });

  test("injects a pod by a patch that anybody can apply", async () => {
    const reply = await post(webhook, reviewOf(POD));
    assert.equal(reply.status, 200);
    const { uid, allowed, patchType, patch } = responseOf(reply);
    assert.deepEqual([uid, allowed, patchType], ["705ab4f5", true, "JSONPatch"]);
    const operations = JSON.parse(Buffer.from(patch ?? "", "base64").toString()) as [];
    const pod: Pod = patches.applyPatch(structuredClone(POD), operations, true).newDocument;
    assert.equal(sidecarOf(pod).image, "edgesync:test");
    assert.equal(responseOf(await post(webhook, reviewOf(pod))).patch, undefined);
  });

  test("answers a dry run in the same way", async () => {
    const [real, dry] = await Promise.all([
      post(webhook, reviewOf(POD)),
      post(webhook, reviewOf(POD, { dryRun: true })),
    ]);
    assert.equal(real.text, dry.text);
  });

  test("denies with every problem, and still says 200", async () => {
    const wrong = podWith({ chanel: "x", "poll-interval": "soon", repository: "ftp://x" });
    const reply = await post(webhook, reviewOf(wrong));
    assert.equal(reply.status, 200);
    const { allowed, patch, status } = responseOf(reply);
    assert.deepEqual([allowed, patch, status?.code], [false, undefined, 422]);
    for (const key of ["chanel", "poll-interval", "repository"])
      assert.ok(status?.message.includes(`edgesync.dev/${key}`), key);
  });

  test("leaves a pod that does not ask, and anything but a creation, as it is", async () => {
    const quiet = { uid: "705ab4f5", allowed: true };
    const other = { spec: { containers: [{ name: "other" }] } };
    assert.deepEqual(responseOf(await post(webhook, reviewOf(other))), quiet);
    assert.deepEqual(
      responseOf(await post(webhook, reviewOf(POD, { operation: "UPDATE" }))),
      quiet,
    );
  });

  test("tells who asked for injection of a Windows pod why there is none", async () => {
    const windows = podWith({ channel: "web/stable" }, { os: { name: "windows" } });
    const { allowed, warnings } = responseOf(await post(webhook, reviewOf(windows)));
    assert.equal(allowed, true);
    assert.match(warnings?.join() ?? "", /Linux/);
  });

  const refused: readonly (readonly [string, number, () => Promise<Reply>])[] = [
    ["a review of another version", 400, () => post(webhook, reviewOf(POD, {}, "v1beta1"))],
    ["a body that is no JSON", 400, () => post(webhook, "{")],
    ["a review of no pod", 400, () => post(webhook, reviewOf({ spec: { containers: 1 } }))],
    ["another content type", 415, () => post(webhook, reviewOf(POD), { type: "text/yaml" })],
    ["a body that is too large", 413, () => post(webhook, reviewOf("x".repeat(3 * 2 ** 20)))],
    ["another method", 405, () => get(webhook, "/mutate")],
    ["another path", 404, () => get(webhook, "/metrics")],
  ];
  for (const [what, status, ask] of refused)
    test(`refuses ${what} with ${status}, never with an admission`, async () => {
      const reply = await ask();
      assert.equal(reply.status, status);
      const response = responseOf(reply);
      assert.equal(response.allowed, false);
      assert.equal(response.status?.code, status);
    });

  test("takes a pod of 1.5 MiB", async () => {
    const env = [{ name: "LARGE", value: "x".repeat(1.5 * 2 ** 20) }];
    const spec = { ...POD.spec, containers: [{ ...WEB, env }] };
    const reply = await post(webhook, reviewOf({ ...POD, spec }));
    assert.equal(responseOf(reply).allowed, true);
  });

  test("counts what it answered, on a port of its own", async () => {
    const reply = await fetch(`http://127.0.0.1:${webhook.metricsPort}/metrics`);
    const text = await reply.text();
    for (const labels of [
      'outcome="injected",reason="ok"',
      'outcome="skipped",reason="not_requested"',
      'outcome="skipped",reason="already_injected"',
      'outcome="denied",reason="ANNOTATION_INVALID"',
      'outcome="failed",reason="REVIEW_INVALID"',
    ])
      assert.match(text, new RegExp(`edgesync_webhook_reviews_total\\{${labels}\\} [1-9]`));
    assert.match(text, /edgesync_webhook_review_duration_seconds_count [1-9]/);
    const expiry = /^edgesync_webhook_certificate_expiry_timestamp_seconds (\S+)/m.exec(text)?.[1];
    assert.ok(Math.abs(Number(expiry) - Date.now() / 1000 - 30 * 86_400) < 3_600);
    const { version } = JSON.parse(await readFile("package.json", "utf8")) as { version: string };
    assert.ok(
      text.includes(`edgesync_build_info{version="${version}",node="${process.version}"} 1`),
    );
    assert.match(text, /^edgesync_webhook_bodies_held_bytes 0$/m);
    assert.equal((await fetch(`http://127.0.0.1:${webhook.metricsPort}/`)).status, 404);
  });

  test("logs one line for each review, with what was decided", () => {
    const decided = webhook.lines.filter(({ msg }) => msg === "review answered");
    assert.ok(
      decided.every(({ outcome, reason }) => outcome !== undefined && reason !== undefined),
    );
    const denied = decided.find(({ outcome }) => outcome === "denied");
    assert.equal(denied?.["namespace"], "shop");
    assert.equal(denied?.["code"], "ANNOTATION_INVALID");
  });

  test("speaks no TLS before 1.2", async () => {
    const socket = connectTls({
      port: webhook.port,
      host: "127.0.0.1",
      rejectUnauthorized: false,
      minVersion: "TLSv1.1",
      maxVersion: "TLSv1.1",
      ciphers: "DEFAULT@SECLEVEL=0",
    });
    const [error] = (await once(socket, "error")) as [{ code?: string }];
    assert.match(error.code ?? "", /^ERR_SSL_|ECONNRESET/);
    socket.destroy();
  });
});

describe("a slow or silent client", () => {
  test("is cut off, whether it stops before, in or after the headers, and others are served", async () => {
    await using webhook = await startWebhook({ EDGESYNC_REQUEST_TIMEOUT: "1s" });
    const silent = connect(webhook.port, "127.0.0.1");
    const secure = (): ReturnType<typeof connectTls> =>
      connectTls({
        port: webhook.port,
        host: "127.0.0.1",
        servername: "localhost",
        ca: webhook.files.ca,
      });
    const sockets = [silent, secure(), secure(), secure()];
    const [, idle, inHeaders, inBody] = sockets;
    const closed = sockets.map((socket) => {
      socket.on("error", () => {
        // A reset is a good end too.
      });
      socket.resume();
      return once(socket, "close");
    });
    inHeaders?.write("POST /mutate HTTP/1.1\r\nHost: x\r\nX-");
    inBody?.write(
      "POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
    );
    assert.ok(idle !== undefined);
    assert.equal((await get(webhook, "/readyz")).status, 200);
    await Promise.all(closed);
    assert.equal((await get(webhook, "/readyz")).status, 200);
  });

  test("cannot hold more connections than are allowed", async () => {
    await using webhook = await startWebhook({ EDGESYNC_MAX_CONNECTIONS: "4" });
    const sockets = Array.from({ length: 8 }, () => connect(webhook.port, "127.0.0.1"));
    let dropped = 0;
    const { promise, resolve } = Promise.withResolvers<undefined>();
    for (const socket of sockets) {
      socket.on("error", () => {
        // Counted by its close.
      });
      socket.resume();
      socket.on("close", () => {
        if (++dropped === 4) resolve(undefined);
      });
    }
    await promise;
    for (const socket of sockets) socket.destroy();
  });
});

describe("connections of one address", () => {
  test("never take the places of all others", { timeout: 60_000 }, async () => {
    await using webhook = await startWebhook({ EDGESYNC_MAX_CONNECTIONS: "8" });
    await using held = new AsyncDisposableStack();
    const refused = Promise.withResolvers<undefined>();
    let closed = 0;
    // Another address of the loopback interface, as a pod beside the API server. It says nothing, so that none of its connections is idle.
    for (let count = 0; count < 12; count++) {
      const socket = connect({
        port: webhook.port,
        host: "127.0.0.1",
        localAddress: "127.0.0.2",
      });
      socket.on("error", () => {
        // A reset is what those get that are too many.
      });
      socket.on("close", () => {
        if (++closed === 8) refused.resolve(undefined);
      });
      held.defer(() => void socket.destroy());
    }
    await refused.promise;
    for (let count = 0; count < 3; count++)
      assert.equal((await get(webhook, "/readyz")).status, 200);
    assert.equal(closed, 8);
  });
});

describe("connections that nobody uses", () => {
  test("make room for others when all places are taken", async () => {
    await using webhook = await startWebhook({ EDGESYNC_MAX_CONNECTIONS: "4" });
    const { ca } = webhook.files;
    await using held = new AsyncDisposableStack();
    for (let count = 0; count < 4; count++) {
      const agent = new https.Agent({ keepAlive: true, ca, servername: "localhost" });
      held.defer(() => agent.destroy());
      const asked = https.get({ agent, port: webhook.port, host: "127.0.0.1", path: "/healthz" });
      const [response] = (await once(asked, "response")) as [IncomingMessage];
      await once(response.resume(), "end");
    }
    assert.equal((await get(webhook, "/readyz")).status, 200);
  });

  test("do not keep liveness waiting for longer than a request may take", async () => {
    await using webhook = await startWebhook({ EDGESYNC_REQUEST_TIMEOUT: "1s" });
    const sockets = Array.from({ length: 32 }, () => connect(webhook.metricsPort, "127.0.0.1"));
    const closed = sockets.map((socket) => {
      socket.on("error", () => {
        // A reset is a good end too.
      });
      socket.resume();
      return once(socket, "close", { signal: AbortSignal.timeout(20_000) });
    });
    await Promise.all(closed);
    const alive = await fetch(`http://127.0.0.1:${webhook.metricsPort}/healthz`);
    assert.equal(alive.status, 200);
  });
});

describe("the serving certificate", () => {
  test("is swapped live, without a failed request", async () => {
    await using webhook = await startWebhook();
    const next = await localCertificate();
    const both = webhook.files.ca + next.ca;
    const stop = new AbortController();
    let answered = 0;
    const load = Array.from({ length: 4 }, async () => {
      while (!stop.signal.aborted) {
        const reply = await post(webhook, reviewOf(POD), { ca: both });
        assert.equal(responseOf(reply).allowed, true);
        answered++;
        // A new connection would go to another replica: this one is out of the Service.
        if (reply.headers.connection === "close") return;
      }
    });
    await webhook.publish(next);
    await webhook.logged("serving certificate loaded", 2);
    stop.abort();
    await Promise.all(load);
    assert.ok(answered > 0);
    assert.equal((await get(webhook, "/readyz", next.ca)).status, 200);
    await assert.rejects(get(webhook, "/readyz"));
  });

  test("stays when the new one has another's key, until that is mended", async () => {
    await using webhook = await startWebhook();
    const next = await localCertificate();
    await webhook.publish({ ...next, key: webhook.files.key });
    // Levels are words, as in the sidecar's log and in the setting.
    assert.equal((await webhook.logged("serving certificate not usable")).level, "error");
    assert.equal((await get(webhook, "/readyz")).status, 200);
    await webhook.publish(next);
    assert.equal((await webhook.logged("serving certificate loaded", 2)).level, "info");
    assert.equal((await get(webhook, "/readyz", next.ca)).status, 200);
  });

  test("makes the webhook unready when it has expired, and alive all the same", async () => {
    const expired = await localCertificate(31 * 86_400_000);
    await using webhook = await startWebhook({}, expired);
    const status = async (path: string): Promise<number | undefined> => {
      // As the kubelet probes: without a look at the certificate.
      const request = https.get({
        host: "127.0.0.1",
        port: webhook.port,
        path,
        rejectUnauthorized: false,
        agent: false,
      });
      const [response] = (await once(request, "response")) as [
        { statusCode?: number; resume(): void },
      ];
      response.resume();
      return response.statusCode;
    };
    assert.equal(await status("/readyz"), 503);
    assert.equal(await status("/healthz"), 200);
  });
});

describe("SIGTERM", () => {
  test("loses no admission under load, and ends with 0", async () => {
    await using webhook = await startWebhook({ EDGESYNC_DRAIN_DELAY: "300ms" });
    const agent = new https.Agent({ keepAlive: true, maxSockets: 8 });
    const body = reviewOf(POD);
    let accepted = 0;
    let answered = 0;
    const over = new AbortController();
    const load = Array.from({ length: 8 }, async () => {
      // Until the webhook accepts no more: from then on the Service would send this to another replica.
      while (!over.signal.aborted) {
        let owed = false;
        const reply = await post(webhook, body, {
          agent,
          accepted() {
            owed = true;
            accepted++;
          },
        }).catch((error: unknown) => {
          if (owed) throw error;
          over.abort();
        });
        if (reply === undefined) return;
        assert.equal(responseOf(reply).allowed, true);
        answered++;
      }
    });
    await webhook.logged("review answered", 20);
    webhook.terminate();
    await webhook.logged("shutting down");
    assert.equal((await get(webhook, "/readyz")).status, 503);
    await Promise.all(load);
    agent.destroy();
    assert.equal(await webhook.exited, 0);
    assert.ok(answered > 20);
    assert.equal(answered, accepted);
  });

  test("waits for a review that is still on its way", async () => {
    await using webhook = await startWebhook({ EDGESYNC_DRAIN_DELAY: "0s" });
    const body = reviewOf(POD);
    const request = https.request({
      host: "127.0.0.1",
      servername: "localhost",
      port: webhook.port,
      ca: webhook.files.ca,
      path: "/mutate",
      method: "POST",
      agent: false,
      headers: { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) },
    });
    request.write(body.slice(0, 10));
    await once(request, "socket");
    // An answer to another request shows that the first is with the server.
    await get(webhook, "/healthz");
    webhook.terminate();
    await webhook.logged("shutting down");
    request.end(body.slice(10));
    const [response] = (await once(request, "response")) as [
      { statusCode?: number; resume(): void },
    ];
    response.resume();
    assert.equal(response.statusCode, 200);
    assert.equal(await webhook.exited, 0);
  });
});
