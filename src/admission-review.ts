/** The two ends of an admission.k8s.io/v1 AdmissionReview: what the API server asks, and what it is told. */
import { Buffer } from "node:buffer";
import * as s from "valibot";
import type { ErrorCode } from "./errors.ts";
import { EdgeSyncError } from "./errors.ts";
import { podProblem } from "./inject/pod.ts";
import type { Pod } from "./inject/pod.ts";
import { boolean, fields, optional, text } from "./inject/shape.ts";
import type { Operation } from "./json-patch.ts";
import { base64Of, patchText } from "./json-text.ts";

const API_VERSION = "admission.k8s.io/v1";
const KIND = "AdmissionReview";

export interface PodReview {
  readonly uid: string;
  /** Absent for a pod with generateName only. */
  readonly name: string | undefined;
  /** Of the request: a pod's own may be empty. */
  readonly namespace: string | undefined;
  readonly dryRun: boolean;
  /** `undefined` unless a pod itself is being created. */
  readonly pod: Pod | undefined;
}

/** Characters. */
const MAX_UID = 253;

const head = s.looseObject({ apiVersion: s.string(), kind: s.literal(KIND) });

const request = s.looseObject({
  uid: s.pipe(s.string(), s.minLength(1), s.maxLength(MAX_UID)),
  kind: s.looseObject({ group: s.string(), version: s.string(), kind: s.string() }),
  operation: s.string(),
  subResource: s.optional(s.string(), ""),
  name: s.optional(s.string()),
  namespace: s.optional(s.string()),
  dryRun: s.optional(s.boolean(), false),
  object: s.optional(s.unknown()),
});

const review = s.looseObject({ request });

type Request = s.InferInput<typeof request>;

/** The types of `request` once more, for the reviews with which nothing is wrong: those are nearly all, and to copy them takes longer than to look at them. */
const shape = fields({
  apiVersion: text,
  request: fields({
    uid: text,
    kind: fields({ group: text, version: text, kind: text }),
    operation: text,
    subResource: optional(text),
    name: optional(text),
    namespace: optional(text),
    dryRun: optional(boolean),
  }),
});

function isReview(input: unknown): input is Readonly<Record<string, unknown>> & {
  readonly request: Request;
} {
  if (shape(input) !== undefined) return false;
  // The shape has just said that these are there.
  const {
    apiVersion,
    kind,
    request: asked,
  } = input as Record<string, unknown> & { request: Request };
  const { length } = asked.uid;
  return apiVersion === API_VERSION && kind === KIND && length > 0 && length <= MAX_UID;
}

/** @throws EdgeSyncError REVIEW_INVALID, which says what is wrong with it */
function requestOf(input: unknown): Request {
  if (isReview(input)) return input.request;
  const start = s.safeParse(head, input);
  if (!start.success) throw invalid(`expected an ${KIND}: ${problemIn(start.issues)}`);
  if (start.output.apiVersion !== API_VERSION)
    throw invalid(`apiVersion is ${quote(start.output.apiVersion)}; expected ${API_VERSION}`);
  const result = s.safeParse(review, input);
  if (!result.success) throw invalid(problemIn(result.issues));
  return result.output.request;
}

/**
 * Reads a review from parsed JSON. Fields that are not needed are not looked at.
 *
 * @throws EdgeSyncError REVIEW_INVALID
 */
export function readReview(input: unknown): PodReview {
  const asked = requestOf(input);
  const { uid, kind, operation, subResource = "", name, namespace, dryRun = false, object } = asked;
  if (kind.group !== "" || kind.version !== "v1" || kind.kind !== "Pod")
    throw invalid(
      `request.kind is ${quote(`${kind.group}/${kind.version} ${kind.kind}`)}; expected a v1 Pod`,
    );
  const creates = operation === "CREATE" && subResource === "";
  return {
    uid,
    name: name === "" ? undefined : name,
    namespace: namespace === "" ? undefined : namespace,
    dryRun,
    pod: creates ? readPod(object) : undefined,
  };
}

function readPod(object: unknown): Pod {
  const problem = podProblem(object);
  if (problem !== undefined) throw invalid(`request.object is not a pod at ${problem}`);
  // podProblem has just said that it is one; a parsed copy would have lost the order of its fields.
  return object as Pod;
}

function problemIn(issues: readonly s.BaseIssue<unknown>[]): string {
  const [issue] = issues;
  if (issue === undefined) return "it has no known form";
  const path = (issue.path ?? []).map((item) => String(item.key)).join(".");
  return `${path === "" ? "the body" : path} is ${issue.received}; expected ${issue.expected ?? "another value"}`;
}

function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}...` : text);
}

function invalid(message: string): EdgeSyncError {
  return new EdgeSyncError("REVIEW_INVALID", message);
}

/** What an AdmissionReview's `response` holds. */
export interface Answer {
  readonly uid: string;
  readonly allowed: boolean;
  readonly patchType?: "JSONPatch";
  /** Base64 of the operations' JSON. */
  readonly patch?: string;
  readonly status?: { readonly code: number; readonly reason: string; readonly message: string };
  readonly warnings?: readonly string[];
}

export interface ReviewResponse {
  readonly apiVersion: typeof API_VERSION;
  readonly kind: typeof KIND;
  readonly response: Answer;
}

function respond(response: Answer): ReviewResponse {
  return { apiVersion: API_VERSION, kind: KIND, response };
}

/** The pod is admitted, changed by the operations when there are any. */
export function admit(
  uid: string,
  operations: readonly Operation[],
  warnings: readonly string[],
): ReviewResponse {
  return admitted(uid, operations.length === 0 ? undefined : patchText(operations), warnings);
}

/** As {@link admit}, with the JSON of the operations when there are any. */
export function admitted(
  uid: string,
  operations: string | undefined,
  warnings: readonly string[],
): ReviewResponse {
  const bounded = boundWarnings(warnings);
  return respond({
    uid,
    allowed: true,
    ...(operations === undefined ? {} : { patchType: "JSONPatch", patch: base64Of(operations) }),
    ...(bounded.length === 0 ? {} : { warnings: bounded }),
  });
}

/** The answer to another review, given to this one. */
export function again(uid: string, { response }: ReviewResponse): ReviewResponse {
  return respond({ ...response, uid });
}

/** A response as JSON.stringify writes it, which would look at each character of a patch for what must be escaped; base64 has nothing of the kind. */
export function responseText(review: ReviewResponse): string {
  const { uid, allowed, patchType, patch, status, warnings } = review.response;
  if (patch === undefined || patchType === undefined || status !== undefined)
    return JSON.stringify(review);
  const warned = warnings === undefined ? "" : `,"warnings":${JSON.stringify(warnings)}`;
  return `{"apiVersion":"${API_VERSION}","kind":"${KIND}","response":{"uid":${JSON.stringify(uid)},"allowed":${allowed},"patchType":"${patchType}","patch":"${patch}"${warned}}}`;
}

/** The pod is refused because of what it asks for. 422, as for any other object that is not valid. */
export function refuse(uid: string, code: ErrorCode, message: string): ReviewResponse {
  return fail(uid, { code: 422, reason: "Invalid", message: `${code}: ${message}` });
}

/** The review cannot be answered as asked. Never an admission: a pod without its secrets is worse than one that waits. */
export function fail(uid: string, status: NonNullable<Answer["status"]>): ReviewResponse {
  return respond({ uid, allowed: false, status });
}

/** Limits of the API server (admission/v1 AdmissionResponse.warnings): past them it cuts warnings off. */
const WARNING_CHARACTERS = 256;
const ALL_WARNINGS_CHARACTERS = 4096;

export function boundWarnings(warnings: readonly string[]): readonly string[] {
  const bounded: string[] = [];
  let left = ALL_WARNINGS_CHARACTERS;
  for (const warning of warnings) {
    const text =
      warning.length > WARNING_CHARACTERS
        ? `${warning.slice(0, WARNING_CHARACTERS - 1)}…`
        : warning;
    // The limit is in bytes of UTF-8 for the header that carries the warning.
    left -= Buffer.byteLength(text);
    if (left < 0) break;
    bounded.push(text);
  }
  return bounded;
}
