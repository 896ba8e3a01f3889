/** The two listeners of the webhook: admission and its probes over TLS, the metrics in plain HTTP on a port of their own. */
import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import http from "node:http";
import https from "node:https";
import type { AddressInfo } from "node:net";
import express from "express";
import type { ErrorRequestHandler, Express, Request, Response } from "express";
import { fail } from "#core/admission-review.ts";
import type { Clock } from "#core/clock.ts";
import { codeOf, EdgeSyncError } from "#core/errors.ts";
import type { ClusterOptions } from "#core/inject/cluster.ts";
import type { Log, LogFields, WebhookMetrics } from "#core/telemetry.ts";
import type { WebhookConfig } from "./config.ts";
import type { OwnerEvent } from "./events.ts";
import { BODY_LIMIT_BYTES, openBodies } from "./bodies.ts";
import type { Problem, Read } from "./bodies.ts";
import { answerReview } from "./review.ts";
import type { FactsOf } from "./review.ts";

/** Longer than the 90 s after which an API server drops an idle connection, so that it never writes to one that is being closed. */
const KEEP_ALIVE_MS = 120_000;

/** What is still being answered after the drain delay gets this long; more than any webhook call's own time-out. */
const FINISH_MS = 30_000;

/** Any TLS before 1.2 is broken (RFC 8996). */
const MIN_VERSION = "TLSv1.2";

export interface ServerDeps {
  readonly config: WebhookConfig;
  readonly cluster: ClusterOptions;
  /** Absent without an API server. */
  readonly facts?: FactsOf | undefined;
  /** Told of what its owner is to know of a pod, when the answer about it has been sent. */
  readonly tell?: ((event: OwnerEvent) => void) | undefined;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: WebhookMetrics;
  /** The metrics in Prometheus' text form. */
  readonly scrape: () => Promise<{ readonly contentType: string; readonly text: string }>;
}

export interface Server extends AsyncDisposable {
  readonly port: number;
  readonly metricsPort: number;
  /** Serves with this certificate, PEM, from the next connection on. */
  use(certificate: { readonly cert: string; readonly key: string }): void;
  /** Why no admission should be sent here, which makes it unready; `undefined` when it should. */
  judge(problem: string | undefined): void;
  /** Unready at once; after the delay no more connections; returns when every request is answered. */
  drain(signal: AbortSignal): Promise<void>;
}

interface State {
  problem: string | undefined;
  draining: boolean;
}

export async function openServer(deps: ServerDeps): Promise<Server> {
  const { config, clock, metrics } = deps;
  const state: State = { problem: "no serving certificate yet", draining: false };
  await using opened = new AsyncDisposableStack();
  const admission = https.createServer(
    {
      minVersion: MIN_VERSION,
      handshakeTimeout: config.requestTimeout,
      headersTimeout: config.requestTimeout / 2,
      requestTimeout: config.requestTimeout,
      connectionsCheckingInterval: Math.max(20, config.requestTimeout / 10),
      keepAliveTimeout: KEEP_ALIVE_MS,
    },
    application(deps, state),
  );
  admission.maxConnections = config.maxConnections;
  // Broken handshakes are the other side's affair; a scan of the port must not fill the log.
  admission.on("tlsClientError", () => {});
  const scraped = http.createServer((request, response) => {
    void answerScrape(request, response, deps);
  });
  scraped.maxConnections = 32;
  for (const server of [admission, scraped]) opened.defer(() => close(server));
  const port = await listen(admission, config.tlsPort, config.listenAddress);
  const metricsPort = await listen(scraped, config.metricsPort, config.listenAddress);
  const closers = opened.move();
  return {
    port,
    metricsPort,
    use({ cert, key }) {
      admission.setSecureContext({ cert, key, minVersion: MIN_VERSION });
      const expiry = new X509Certificate(cert).validToDate.getTime() / 1000;
      metrics.set("edgesync_webhook_certificate_expiry_timestamp_seconds", {}, expiry);
    },
    judge(problem) {
      state.problem = problem;
    },
    async drain(signal) {
      state.draining = true;
      await clock.sleep(config.drainDelay, signal);
      const closed = once(admission, "close");
      admission.close();
      admission.closeIdleConnections();
      const enough = new AbortController();
      const late = clock.sleep(FINISH_MS, AbortSignal.any([signal, enough.signal])).then(
        () => admission.closeAllConnections(),
        () => {},
      );
      await closed;
      enough.abort();
      await late;
    },
    [Symbol.asyncDispose]: () => closers.disposeAsync(),
  };
}

async function listen(
  server: http.Server | https.Server,
  port: number,
  host: string | undefined,
): Promise<number> {
  server.listen({ port, ...(host === undefined ? {} : { host }) });
  await once(server, "listening").catch((cause: unknown) => {
    throw new EdgeSyncError(
      "CONFIG_INVALID",
      `cannot listen on ${host ?? "any address"}, port ${port}`,
      {
        cause,
      },
    );
  });
  return (server.address() as AddressInfo).port;
}

async function close(server: http.Server | https.Server): Promise<void> {
  if (!server.listening) return;
  const closed = once(server, "close");
  server.close();
  server.closeAllConnections();
  await closed;
}

async function answerScrape(
  request: http.IncomingMessage,
  response: http.ServerResponse,
  { scrape, log }: ServerDeps,
): Promise<void> {
  try {
    // Liveness is asked for here: on the other port nobody is answered before there is a certificate, and a restart brings none.
    if (request.method === "GET" && request.url === "/healthz") {
      response.writeHead(200, { "Content-Type": "text/plain" }).end("ok\n");
      return;
    }
    if (request.method !== "GET" || request.url !== "/metrics") {
      response.writeHead(404).end();
      return;
    }
    const { contentType, text } = await scrape();
    response.writeHead(200, { "Content-Type": contentType }).end(text);
  } catch (err) {
    log.error({ err, code: codeOf(err), route: "/metrics" }, "scrape failed");
    response.writeHead(500).end();
  }
}

function application(deps: ServerDeps, state: State): Express {
  const { clock, config, metrics } = deps;
  const bodies = openBodies({
    budgetBytes: config.bodyMemory,
    patienceMs: config.requestTimeout / 2,
    clock,
    held: (bytes) => metrics.set("edgesync_webhook_bodies_held_bytes", {}, bytes),
  });
  const app = express();
  app.disable("x-powered-by");
  app.disable("etag");
  app.use((_request, response, next) => {
    // So that no connection is idle when the listener closes, and no request is on its way on one that is.
    if (state.draining) response.set("Connection", "close");
    next();
  });
  app.get("/healthz", (_request, response) => {
    response.type("text").send("ok\n");
  });
  app.get("/readyz", (_request, response) => {
    const problem = state.draining ? "shutting down" : state.problem;
    response.status(problem === undefined ? 200 : 503);
    response.type("text").send(`${problem ?? "ok"}\n`);
  });
  app.post("/mutate", async (request, response) => {
    response.locals["startedAt"] = clock.monotonic();
    const problem = headersProblem(request);
    if (problem !== undefined) refuse(response, deps, problem);
    else await bodies.read(request, (body) => answer(request, body, response, deps));
  });
  app.all("/mutate", (_request, response) => {
    response.set("Allow", "POST").status(405);
    response.json(fail("", status(405, "MethodNotAllowed", "expected POST")));
  });
  app.use((_request, response) => {
    response.status(404).json(fail("", status(404, "NotFound", "no such path")));
  });
  app.use(failure(deps));
  return app;
}

function status(code: number, reason: string, message: string): Refusal {
  return { code, reason, message };
}

interface Refusal {
  readonly code: number;
  readonly reason: string;
  readonly message: string;
}

/** What is wrong with a request whatever its body is. */
function headersProblem({ headers }: Request): Refusal | undefined {
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

function answer(request: Request, body: Read, response: Response, deps: ServerDeps): void {
  if (!body.ok) {
    const { problem } = body;
    if (problem === "incomplete") {
      // The other side has gone, or was too slow: there is nobody to answer.
      record(response, deps, "failed", "REVIEW_INVALID", { detail: "the body did not arrive" });
      request.socket.destroy();
      return;
    }
    if (problem === "busy") response.set("Retry-After", "1");
    refuse(response, deps, PROBLEMS[problem]);
    return;
  }
  const parsed = parseJson(body.text);
  if (parsed === undefined) {
    refuse(response, deps, status(400, "BadRequest", "the body cannot be read as JSON"));
    return;
  }
  const reviewed = answerReview(parsed.value, deps.cluster, deps.facts);
  const { response: review, outcome, reason, fields, event } = reviewed;
  if (event !== undefined) response.once("finish", () => deps.tell?.(event));
  response.json(review);
  record(response, deps, outcome, reason, fields);
}

function parseJson(text: string): { readonly value: unknown } | undefined {
  try {
    return { value: JSON.parse(text) };
  } catch {
    // Whatever it is instead is nobody's business.
    return undefined;
  }
}

/** The request's fault, and what to do about it, told to whoever sent it. */
function refuse(response: Response, deps: ServerDeps, problem: Refusal): void {
  response.status(problem.code).json(fail("", problem));
  record(response, deps, "failed", "REVIEW_INVALID", { detail: problem.message });
}

function record(
  response: Response,
  { clock, log, metrics }: ServerDeps,
  outcome: string,
  reason: string,
  fields: LogFields,
): void {
  const startedAt: unknown = response.locals["startedAt"];
  const durationMs = typeof startedAt === "number" ? clock.monotonic() - startedAt : 0;
  metrics.add("edgesync_webhook_reviews_total", { outcome, reason });
  metrics.observe("edgesync_webhook_review_duration_seconds", {}, durationMs / 1000);
  const level = outcome === "failed" ? "error" : outcome === "denied" ? "warn" : "info";
  log[level]({ ...fields, outcome, reason, durationMs }, "review answered");
}

/** Whatever a handler throws: the request's fault is told, ours is logged. express knows an error handler by its four parameters. */
function failure(deps: ServerDeps): ErrorRequestHandler {
  return (error: unknown, _request, response, _next) => {
    const code = codeOf(error);
    if (code === "REVIEW_INVALID" && error instanceof Error) {
      refuse(response, deps, status(400, "BadRequest", error.message));
      return;
    }
    // Such as a path that is no URI, which express itself refuses.
    const told = error instanceof Error && "status" in error ? error.status : undefined;
    if (typeof told === "number" && told >= 400 && told < 500) {
      refuse(response, deps, status(told, "BadRequest", "the request cannot be read"));
      return;
    }
    const message = "edgesync failed; the webhook's log says why";
    response.status(500).json(fail("", status(500, "InternalError", message)));
    record(response, deps, "failed", code, { err: error, code });
  };
}
