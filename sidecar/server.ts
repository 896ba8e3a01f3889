/**
 * What the sidecar says to the kubelet, to people and to a scraper, over plain HTTP on the pod's network. Whoever can reach the pod
 * can ask, so there is nothing to learn here: no Vault path, no value of a secret. The one thing that asking changes is the lever, which
 * takes every probe for the kubelet's; the threat model says what that is worth to a neighbour.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { unreachable } from "#core/errors.ts";
import type { Answer } from "#core/lever.ts";
import type { GateReason } from "#core/reasons.ts";
import type { Log, SidecarMetrics } from "#core/telemetry.ts";
import { boundedServer, closeServer, listenOn } from "./connections.ts";

export interface ServerDeps {
  readonly port: number;
  /** Without one: the kubelet comes to the pod's address, of either family. */
  readonly address?: string | undefined;
  readonly log: Log;
  readonly metrics: SidecarMetrics;
  start(): GateReason;
  ready(): GateReason;
  /** Anything that JSON can hold. */
  status(): unknown;
  scrape(): Promise<{ readonly contentType: string; readonly text: string }>;
  /** The restart lever; `undefined` when there is no such container. */
  lever(container: string, probe: "startup" | "liveness"): Answer;
}

export interface Server extends AsyncDisposable {
  readonly port: number;
}

const CONNECTIONS = 64;

const ROUTES = ["/startup", "/ready", "/live", "/status", "/metrics"] as const;
const LEVER = /^\/app\/([a-z0-9][-a-z0-9]{0,62})\/(startup|live)$/;

/** @throws NodeJS.ErrnoException when the port cannot be listened on */
export async function openServer(deps: ServerDeps): Promise<Server> {
  const server = boundedServer(CONNECTIONS, (request, response) => {
    answer(request, response, deps).catch((err: unknown) => {
      deps.log.error({ err }, "cannot answer a request");
      response.destroy();
    });
  });
  await listenOn(server, deps.port, deps.address);
  // Accepting may fail for a moment, for want of descriptors; the next one may be well.
  server.on("error", (err) => deps.log.error({ err }, "server error"));
  return {
    port: deps.port,
    [Symbol.asyncDispose]: () => closeServer(server),
  };
}

interface Reply {
  /** A closed set of names, for the metric. */
  readonly route: string;
  readonly status: number;
  readonly body: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  deps: ServerDeps,
): Promise<void> {
  const { route, status, body, headers } = await reply(request, deps);
  deps.metrics.add("edgesync_sidecar_http_requests_total", { route, status: String(status) });
  const bytes = Buffer.from(typeof body === "string" ? body : `${JSON.stringify(body)}\n`);
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": bytes.byteLength,
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    // Nobody reads a request's body here, so the connection cannot be used again after one.
    ...(hasBody(request) ? { connection: "close" } : {}),
    ...headers,
  });
  response.end(request.method === "HEAD" ? undefined : bytes);
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers["transfer-encoding"] !== undefined || (headers["content-length"] ?? "0") !== "0";
}

async function reply(request: IncomingMessage, deps: ServerDeps): Promise<Reply> {
  const path = (request.url ?? "").split("?", 1)[0] ?? "";
  const route = ROUTES.find((known) => known === path);
  const lever = LEVER.exec(path);
  if (route === undefined && lever === null)
    return { route: "other", status: 404, body: { reason: "not_found" } };
  const name = route ?? `/app/${lever?.[2] ?? ""}`;
  if (request.method !== "GET" && request.method !== "HEAD")
    return {
      route: name,
      status: 405,
      body: { reason: "method_not_allowed" },
      headers: { allow: "GET, HEAD" },
    };
  const gate = (reason: GateReason): Reply => ({
    route: name,
    status: reason === "ok" ? 200 : 503,
    body: { reason },
  });
  if (route === undefined) return pull(name, lever?.[1] ?? "", deps);
  switch (route) {
    case "/startup":
      return gate(deps.start());
    case "/ready":
      return gate(deps.ready());
    case "/live":
      // That this is answered at all is the whole answer: liveness depends on nothing else.
      return gate("ok");
    case "/status":
      return { route: name, status: 200, body: deps.status() };
    case "/metrics": {
      const { contentType, text } = await deps.scrape();
      return { route: name, status: 200, body: text, headers: { "content-type": contentType } };
    }
    default:
      return unreachable(route);
  }
}

function pull(route: string, container: string, deps: ServerDeps): Reply {
  try {
    const status = deps.lever(container, route === "/app/startup" ? "startup" : "liveness");
    if (status === undefined) return { route, status: 404, body: { reason: "not_found" } };
    return { route, status, body: { reason: status === 200 ? "ok" : "unhealthy" } };
  } catch (err) {
    // A fault of ours must not take the application down.
    deps.log.error({ err, container }, "restart lever failed");
    return { route, status: 200, body: { reason: "ok" } };
  }
}
