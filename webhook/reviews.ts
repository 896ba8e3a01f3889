/** The route of the admission reviews: from a request to its answer, with the line in the log and the metrics of each. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { fail, responseText } from "#core/admission-review.ts";
import type { ReviewResponse } from "#core/admission-review.ts";
import type { Clock } from "#core/clock.ts";
import { codeOf } from "#core/errors.ts";
import { openMemory } from "#core/inject/alike.ts";
import type { Memory } from "#core/inject/alike.ts";
import type { ClusterOptions } from "#core/inject/cluster.ts";
import type { Log, LogFields, WebhookMetrics } from "#core/telemetry.ts";
import { BODY_LIMIT_BYTES, openBodies } from "./bodies.ts";
import type { Problem, Read } from "./bodies.ts";
import type { WebhookConfig } from "./config.ts";
import type { OwnerEvent } from "./events.ts";
import { answerReview } from "./review.ts";
import type { FactsOf, Injected } from "./review.ts";

export interface ReviewsDeps {
  readonly config: WebhookConfig;
  readonly cluster: ClusterOptions;
  /** Absent without an API server. */
  readonly facts?: FactsOf | undefined;
  /** Told of what its owner is to know of a pod, when the answer about it has been sent. */
  readonly tell?: ((event: OwnerEvent) => void) | undefined;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: WebhookMetrics;
}

export interface Reviews {
  /** Bytes that the bodies of reviews in flight hold, or have set aside. */
  held(): number;
  /** Answers, counts and logs a request with a review; returns at once. */
  answer(request: IncomingMessage, response: ServerResponse): void;
  /** Whatever was thrown: the request's fault is told, ours is logged. */
  fail(response: ServerResponse, error: unknown): void;
}

/** Whether a request is for {@link Reviews.answer}, as API servers ask: they add their time-out behind the path. */
export function isForReviews({ method, url = "" }: IncomingMessage): boolean {
  return method === "POST" && (url === "/mutate" || url.startsWith("/mutate?"));
}

/** Bytes of the pods whose decisions are kept for those that are like them. */
const MEMORY_BYTES = 4 * 2 ** 20;

interface Deps extends ReviewsDeps {
  readonly memory: Memory<Injected>;
}

export function openReviews(given: ReviewsDeps): Reviews {
  const deps: Deps = { ...given, memory: openMemory(MEMORY_BYTES) };
  const { clock, config } = deps;
  let held = 0;
  const bodies = openBodies({
    budgetBytes: config.bodyMemory,
    patienceMs: config.requestTimeout / 2,
    clock,
    // A gauge for each of them would be set a thousand times for each time that it is asked for.
    held: (bytes) => (held = bytes),
  });
  return {
    held: () => held,
    answer(request, response) {
      const startedAt = clock.monotonic();
      const problem = headersProblem(request);
      if (problem !== undefined) refuse(response, deps, startedAt, problem);
      else
        bodies
          .read(request, (body) => answer(request, body, response, deps, startedAt))
          .catch((error: unknown) => failed(response, deps, startedAt, error));
    },
    fail: (response, error) => failed(response, deps, clock.monotonic(), error),
  };
}

interface Refusal {
  readonly code: number;
  readonly reason: string;
  readonly message: string;
}

function status(code: number, reason: string, message: string): Refusal {
  return { code, reason, message };
}

/** What is wrong with a request whatever its body is. */
function headersProblem({ headers }: IncomingMessage): Refusal | undefined {
  const reason = "UnsupportedMediaType";
  if (!/^application\/json\s*(?:;|$)/i.test(headers["content-type"] ?? ""))
    return status(415, reason, "expected a body of type application/json");
  const { "content-encoding": encoding = "identity" } = headers;
  if (encoding.toLowerCase() !== "identity")
    return status(415, reason, "expected a body without Content-Encoding");
  return undefined;
}

const PROBLEMS: Readonly<Record<Exclude<Problem, "incomplete">, Refusal>> = {
  "too-large": status(
    413,
    "RequestEntityTooLarge",
    `the body is larger than ${BODY_LIMIT_BYTES} bytes`,
  ),
  busy: status(503, "ServiceUnavailable", "too many large reviews at one time"),
  "not-utf8": status(400, "BadRequest", "the body is not UTF-8"),
};

function answer(
  request: IncomingMessage,
  body: Read,
  response: ServerResponse,
  deps: Deps,
  startedAt: number,
): void {
  if (!body.ok) {
    const { problem } = body;
    if (problem === "incomplete") {
      // The other side has gone, or was too slow: there is nobody to answer.
      const fields = { detail: "the body did not arrive" };
      record(deps, startedAt, "failed", "REVIEW_INVALID", fields);
      request.socket.destroy();
      return;
    }
    if (problem === "busy") response.setHeader("Retry-After", "1");
    refuse(response, deps, startedAt, PROBLEMS[problem]);
    return;
  }
  const parsed = parseJson(body.text);
  if (parsed === undefined) {
    const problem = status(400, "BadRequest", "the body cannot be read as JSON");
    refuse(response, deps, startedAt, problem);
    return;
  }
  const remembering = { memory: deps.memory, bytes: body.text.length };
  const reviewed = answerReview(parsed.value, deps.cluster, deps.facts, remembering);
  const { response: review, outcome, reason, fields, event } = reviewed;
  if (event !== undefined) response.once("finish", () => deps.tell?.(event));
  send(response, 200, review);
  record(deps, startedAt, outcome, reason, fields);
}

function parseJson(text: string): { readonly value: unknown } | undefined {
  try {
    return { value: JSON.parse(text) };
  } catch {
    // Whatever it is instead is nobody's business.
    return undefined;
  }
}

/** As one text, which goes out in one piece with the headers. */
function send(response: ServerResponse, code: number, review: ReviewResponse): void {
  response.statusCode = code;
  response.setHeader("Content-Type", "application/json; charset=utf-8");
  response.end(responseText(review));
}

/** An answer about no pod. */
export function answerStatus(response: ServerResponse, problem: Refusal): void {
  send(response, problem.code, fail("", problem));
}

/** The request's fault, and what to do about it, told to whoever sent it. */
function refuse(
  response: ServerResponse,
  deps: ReviewsDeps,
  startedAt: number,
  problem: Refusal,
): void {
  answerStatus(response, problem);
  record(deps, startedAt, "failed", "REVIEW_INVALID", { detail: problem.message });
}

function record(
  { clock, log, metrics }: ReviewsDeps,
  startedAt: number,
  outcome: string,
  reason: string,
  fields: LogFields,
): void {
  const durationMs = clock.monotonic() - startedAt;
  metrics.add("edgesync_webhook_reviews_total", { outcome, reason });
  metrics.observe("edgesync_webhook_review_duration_seconds", {}, durationMs / 1000);
  const level = outcome === "failed" ? "error" : outcome === "denied" ? "warn" : "info";
  log[level]({ ...fields, outcome, reason, durationMs }, "review answered");
}

function failed(
  response: ServerResponse,
  deps: ReviewsDeps,
  startedAt: number,
  error: unknown,
): void {
  const code = codeOf(error);
  if (response.headersSent) {
    // It has its answer, and what came after that failed.
    record(deps, startedAt, "failed", code, { err: error, code });
    return;
  }
  if (code === "REVIEW_INVALID" && error instanceof Error) {
    refuse(response, deps, startedAt, status(400, "BadRequest", error.message));
    return;
  }
  const told = error instanceof Error && "status" in error ? error.status : undefined;
  if (typeof told === "number" && told >= 400 && told < 500) {
    refuse(response, deps, startedAt, status(told, "BadRequest", "the request cannot be read"));
    return;
  }
  const message = "edgesync failed; the webhook's log says why";
  answerStatus(response, status(500, "InternalError", message));
  record(deps, startedAt, "failed", code, { err: error, code });
}
