/** The API server's side of an admission: the review of a pod, posted over TLS, and its patch. */
import { randomUUID } from "node:crypto";
import { request } from "node:https";
import { text } from "node:stream/consumers";
import type { V1Pod } from "@kubernetes/client-node";
import jsonPatch from "fast-json-patch";

export interface Admission {
  readonly allowed: boolean;
  /** Why not. */
  readonly message: string;
  readonly warnings: readonly string[];
  /** Operations of the JSON Patch. */
  readonly operations: number;
  /** The pod with the patch applied. */
  readonly pod: V1Pod;
  /** From the first byte sent to the last byte received. */
  readonly durationMs: number;
}

interface ReviewResponse {
  readonly response: {
    readonly uid: string;
    readonly allowed: boolean;
    readonly status?: { readonly message?: string };
    readonly warnings?: readonly string[];
    readonly patch?: string;
  };
}

export async function admit(pod: V1Pod, webhook: string, ca: string): Promise<Admission> {
  const uid = randomUUID();
  const review = {
    apiVersion: "admission.k8s.io/v1",
    kind: "AdmissionReview",
    request: {
      uid,
      kind: { group: "", version: "v1", kind: "Pod" },
      resource: { group: "", version: "v1", resource: "pods" },
      name: pod.metadata?.name,
      namespace: pod.metadata?.namespace,
      operation: "CREATE",
      userInfo: { username: "demo" },
      object: pod,
      dryRun: false,
    },
  };
  const begin = performance.now();
  const { response } = JSON.parse(
    await post(`${webhook}/mutate`, JSON.stringify(review), ca),
  ) as ReviewResponse;
  const durationMs = performance.now() - begin;
  if (response.uid !== uid) throw new Error("the answer is to another review");
  const operations =
    response.patch === undefined
      ? []
      : (JSON.parse(Buffer.from(response.patch, "base64").toString()) as jsonPatch.Operation[]);
  const patched = jsonPatch.applyPatch(structuredClone(pod), operations, true).newDocument;
  return {
    allowed: response.allowed,
    message: response.status?.message ?? "",
    warnings: response.warnings ?? [],
    operations: operations.length,
    pod: patched,
    durationMs,
  };
}

async function post(url: string, body: string, ca: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const call = request(
      url,
      { method: "POST", ca, agent: false, headers: { "Content-Type": "application/json" } },
      (response) => {
        text(response).then(resolve, reject);
      },
    );
    call.once("error", reject);
    call.end(body);
  });
}
