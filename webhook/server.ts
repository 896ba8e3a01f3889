/** The two listeners of the webhook: admission and its probes over TLS, the metrics in plain HTTP on a port of their own. */
import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import http from "node:http";
import https from "node:https";
import type { AddressInfo, Socket } from "node:net";
import express from "express";
import type { ErrorRequestHandler, Express } from "express";
import { codeOf, EdgeSyncError } from "#core/errors.ts";
import { answerStatus, isForReviews, openReviews } from "./reviews.ts";
import type { Reviews, ReviewsDeps } from "./reviews.ts";

/** Longer than the 90 s after which an API server drops an idle connection, so that it never writes to one that is being closed. */
const KEEP_ALIVE_MS = 120_000;

/** What is still being answered after the drain delay gets this long; more than any webhook call's own time-out. */
const FINISH_MS = 30_000;

/** Connections to the port of the metrics at one time. */
const MAX_SCRAPES = 32;

/** Any TLS before 1.2 is broken (RFC 8996). */
const MIN_VERSION = "TLSv1.2";

export interface ServerDeps extends ReviewsDeps {
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
  const reviews = openReviews(deps);
  const others = application(reviews, state);
  // Of both listeners: liveness is asked for beside the metrics.
  const timeouts = {
    headersTimeout: config.requestTimeout / 2,
    requestTimeout: config.requestTimeout,
    connectionsCheckingInterval: Math.max(20, config.requestTimeout / 10),
  };
  const admission = https.createServer(
    {
      minVersion: MIN_VERSION,
      handshakeTimeout: config.requestTimeout,
      ...timeouts,
      keepAliveTimeout: KEEP_ALIVE_MS,
    },
    (request, response) => {
      // So that no connection is idle when the listener closes, and no request is on its way on one that is.
      if (state.draining) response.setHeader("Connection", "close");
      // Past express, whose own work would be more than that for the pod.
      if (isForReviews(request)) reviews.answer(request, response);
      else others(request, response);
    },
  );
  limitConnections(admission, config.maxConnections);
  // Broken handshakes are the other side's affair; a scan of the port must not fill the log.
  admission.on("tlsClientError", () => {});
  const scraped = http.createServer(timeouts, (request, response) => {
    metrics.set("edgesync_webhook_bodies_held_bytes", {}, reviews.held());
    void answerScrape(request, response, deps);
  });
  limitConnections(scraped, MAX_SCRAPES);
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

/**
 * When the last place is taken, connections without a request give up theirs: to hold them costs nothing, and would keep everybody else out. One address has
 * half of the places at most: every pod can reach this port, and one that takes all it can get must not keep the API server out.
 */
function limitConnections(server: http.Server | https.Server, most: number): void {
  server.maxConnections = most;
  const share = Math.ceil(most / 2);
  const open = new Map<string, number>();
  server.on("connection", (socket: Socket) => {
    const { remoteAddress: address = "" } = socket;
    const own = (open.get(address) ?? 0) + 1;
    open.set(address, own);
    socket.once("close", () => {
      const left = (open.get(address) ?? 1) - 1;
      if (left > 0) open.set(address, left);
      else open.delete(address);
    });
    if (own > share) socket.destroy();
    if (own >= share) server.closeIdleConnections();
    server.getConnections((_error, count) => {
      if (count >= most) server.closeIdleConnections();
    });
  });
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

function application(reviews: Reviews, state: State): Express {
  const app = express();
  app.disable("x-powered-by");
  app.disable("etag");
  app.get("/healthz", (_request, response) => {
    response.type("text").send("ok\n");
  });
  app.get("/readyz", (_request, response) => {
    const problem = state.draining ? "shutting down" : state.problem;
    response.status(problem === undefined ? 200 : 503);
    response.type("text").send(`${problem ?? "ok"}\n`);
  });
  // As express reads paths: with a slash at the end, or in capitals.
  app.post("/mutate", (request, response) => reviews.answer(request, response));
  app.all("/mutate", (_request, response) => {
    response.set("Allow", "POST");
    answerStatus(response, { code: 405, reason: "MethodNotAllowed", message: "expected POST" });
  });
  app.use((_request, response) => {
    answerStatus(response, { code: 404, reason: "NotFound", message: "no such path" });
  });
  app.use(failure(reviews));
  return app;
}

/** Such as a path that is no URI, which express itself refuses. It knows an error handler by its four parameters. */
function failure(reviews: Reviews): ErrorRequestHandler {
  return (error: unknown, _request, response, _next) => reviews.fail(response, error);
}
