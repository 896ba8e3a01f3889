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
import { answerReview } from "./review.ts";
import type { FactsOf } from "./review.ts";

/** An API object is at most about 1.5 MiB, and a review may hold it twice. */
const BODY_LIMIT_BYTES = 3 * 2 ** 20;

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
  const { clock } = deps;
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
  app.post(
    "/mutate",
    (_request, response, next) => {
      response.locals["startedAt"] = clock.monotonic();
      next();
    },
    express.json({ limit: BODY_LIMIT_BYTES, inflate: false, type: "application/json" }),
    (request, response) => {
      answer(request, response, deps);
    },
  );
  app.all("/mutate", (_request, response) => {
    response.set("Allow", "POST").status(405);
    response.json(fail("", status(405, "MethodNotAllowed", "expected POST")));
  });
  app.use((_request, response) => {
    response.status(404).json(fail("", status(404, "NotFound", "no such path")));
  });
  app.use(refusal(deps));
  return app;
}

function status(
  code: number,
  reason: string,
  message: string,
): { readonly code: number; readonly reason: string; readonly message: string } {
  return { code, reason, message };
}

function answer(request: Request, response: Response, deps: ServerDeps): void {
  // express leaves the body of another type alone.
  if (request.body === undefined) {
    const message = "expected a body of type application/json";
    response.status(415).json(fail("", status(415, "UnsupportedMediaType", message)));
    record(response, deps, "failed", "REVIEW_INVALID", { detail: message });
    return;
  }
  const {
    response: review,
    outcome,
    reason,
    fields,
    event,
  } = answerReview(request.body, deps.cluster, deps.facts);
  if (event !== undefined) response.once("finish", () => deps.tell?.(event));
  response.json(review);
  record(response, deps, outcome, reason, fields);
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

/** The fields of an error of express's body parser that say what was wrong with the request. */
interface HttpProblem {
  readonly status: number;
  readonly message: string;
}

function httpProblem(error: unknown): HttpProblem | undefined {
  if (codeOf(error) === "REVIEW_INVALID" && error instanceof Error)
    return { status: 400, message: error.message };
  if (!(error instanceof Error) || !("status" in error) || typeof error.status !== "number")
    return undefined;
  if (error.status === 413)
    return { status: 413, message: `the body is larger than ${BODY_LIMIT_BYTES} bytes` };
  return error.status >= 400 && error.status < 500
    ? { status: error.status, message: "the body cannot be read as JSON" }
    : undefined;
}

const REASONS: Readonly<Record<number, string>> = {
  413: "RequestEntityTooLarge",
  415: "UnsupportedMediaType",
};

/** Whatever a handler throws: the request's fault is told, ours is logged. express knows an error handler by its four parameters. */
function refusal(deps: ServerDeps): ErrorRequestHandler {
  return (error: unknown, request, response, _next) => {
    const problem = httpProblem(error);
    if (request.destroyed && !request.complete) {
      // The other side has gone, or was too slow: there is nobody to answer.
      record(response, deps, "failed", "REVIEW_INVALID", { detail: "the body did not arrive" });
      request.socket.destroy();
      return;
    }
    if (problem === undefined) {
      const message = "edgesync failed; the webhook's log says why";
      response.status(500).json(fail("", status(500, "InternalError", message)));
      record(response, deps, "failed", codeOf(error), { err: error, code: codeOf(error) });
      return;
    }
    // Node throws away what is left of a body that is too large, within the request's time-out; closing at once would reset the
    // connection, and the answer with it.
    response.status(problem.status);
    const reason = REASONS[problem.status] ?? "BadRequest";
    response.json(fail("", status(problem.status, reason, problem.message)));
    record(response, deps, "failed", "REVIEW_INVALID", { detail: problem.message });
  };
}
