import assert from "node:assert/strict";
import https from "node:https";
import { after, before, describe, test } from "node:test";
import { connect as connectTls } from "node:tls";
import {
  assert as check,
  asyncProperty,
  constant,
  constantFrom,
  json,
  jsonValue,
  oneof,
  string as text,
  uint8Array,
} from "../support/property.ts";
import type { ReviewResponse } from "#core/admission-review.ts";
import { podWith } from "../support/inject.ts";
import { placesIn, replaced } from "../support/json-places.ts";
import { call, startWebhook } from "../support/webhook.ts";
import type { RunningWebhook } from "../support/webhook.ts";

const RUNS = 150;

const REVIEW = {
  apiVersion: "admission.k8s.io/v1",
  kind: "AdmissionReview",
  request: {
    uid: "705ab4f5",
    kind: { group: "", version: "v1", kind: "Pod" },
    resource: { group: "", version: "v1", resource: "pods" },
    operation: "CREATE",
    namespace: "shop",
    dryRun: true,
    object: podWith({ channel: "web/stable", "secret.db": "database/creds/web" }),
  },
};

describe("whatever is sent to the webhook", () => {
  let webhook: RunningWebhook;
  const agent = new https.Agent({ keepAlive: true });
  before(async () => {
    webhook = await startWebhook();
  });
  after(async () => {
    agent.destroy();
    await webhook[Symbol.asyncDispose]();
  });

  const send = async (
    body: string,
    type?: string,
  ): Promise<{ code: number; allowed: boolean; patch: string | undefined }> => {
    const { port, files } = webhook;
    const more = type === undefined ? {} : { type };
    const reply = await call({ port, path: "/mutate", ca: files.ca, agent, body, ...more });
    const { allowed, patch } = (JSON.parse(reply.text) as ReviewResponse).response;
    return { code: reply.status, allowed, patch };
  };

  test("is answered with a review: 200, or a refusal that says whose fault it is, never an admission by mistake", async () => {
    await check(
      asyncProperty(oneof(text(), json(), text({ unit: "binary" })), async (body) => {
        const { code, allowed } = await send(body);
        assert.deepEqual([code, allowed], [400, false]);
      }),
      { numRuns: RUNS },
    );
  });

  test("is answered when any one part of a review is missing or something else", async () => {
    const anything = oneof(
      constant(undefined),
      jsonValue(),
      constantFrom("__proto__", "x".repeat(70_000), -1, 1e308, [[[]]], { constructor: {} }),
    );
    await check(
      asyncProperty(constantFrom(...placesIn(REVIEW)), anything, async (place, by) => {
        const body = JSON.stringify(replaced(REVIEW, place, by)) ?? "";
        const { code, allowed } = await send(body);
        assert.ok(code === 200 || code === 400, `${code} for ${place.join(".")}`);
        if (code === 400) assert.equal(allowed, false);
      }),
      { numRuns: RUNS },
    );
    assert.deepEqual(
      webhook.lines.filter(({ code }) => code === "INTERNAL"),
      [],
    );
  });

  test("of a newer API server is taken: fields that nobody knows yet change nothing", async () => {
    const known = await send(JSON.stringify(REVIEW));
    const newer = {
      ...REVIEW,
      futureField: [1],
      request: { ...REVIEW.request, options: { kind: "CreateOptions" }, requestSubResource2: {} },
    };
    assert.deepEqual(await send(JSON.stringify(newer)), known);
    assert.ok(known.patch !== undefined);
  });

  test("as bytes that are no HTTP leaves it alive", async () => {
    await check(
      asyncProperty(uint8Array({ minLength: 1, maxLength: 300 }), async (bytes) => {
        const socket = connectTls({
          port: webhook.port,
          host: "127.0.0.1",
          servername: "localhost",
          ca: webhook.files.ca,
        });
        const closed = new Promise((resolve) => socket.once("close", resolve));
        socket.on("error", () => {
          // A reset is a good end too.
        });
        socket.resume();
        socket.end(Buffer.from(bytes));
        await closed;
      }),
      { numRuns: 25 },
    );
    assert.equal((await send(JSON.stringify(REVIEW))).code, 200);
  });
});
