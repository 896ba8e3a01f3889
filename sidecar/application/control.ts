/**
 * The control port, on the loopback interface only: the application holds updates by it, and a person asks for the status, another look
 * or another try. Whoever can run a program in the pod may use it, and nobody else: no page in a browser, nothing on the network.
 */
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Clock } from "#core/clock.ts";
import { HOLDS_PATH, STATUS_PATH, UPDATE_ORDERS, isLocalCaller } from "#core/control.ts";
import type { UpdateOrder } from "#core/control.ts";
import { OPERATOR, OWNER_FORM, REQUEST_FORM, isOwner, parseHoldRequest } from "#core/hold.ts";
import type { Log } from "#core/telemetry.ts";
import { aborted } from "../aborted.ts";
import type { UpdateStatus } from "../update/report.ts";
import { boundedServer, closeServer, listenOn } from "../connections.ts";
import { errnoOf } from "../disk/durable.ts";
import { holdView } from "./hold.ts";
import type { HoldBook } from "./hold.ts";

export interface ControlDeps {
  readonly port: number;
  readonly clock: Clock;
  readonly log: Log;
  readonly holds: Pick<HoldBook, "list" | "put" | "remove">;
  /** Anything that JSON can hold. */
  readonly status: () => unknown;
  /** Empty when nothing follows a channel, and when nothing that does is up. */
  readonly order: (order: UpdateOrder) => readonly Ordered[];
}

/** What an order was given to, as it was before. */
export interface Ordered {
  readonly payload: string;
  readonly blocked: UpdateStatus["blocked"];
  /** What it is at: a look, or another try, comes when a download or a trial is over. */
  readonly phase: UpdateStatus["phase"];
  /** The pod that leads the shared volume, where only that one can do it. */
  readonly leader?: string;
}

const CONNECTIONS = 16;

/** Bytes of a request's body. */
const BODY_LIMIT = 4 * 1024;

/** Milliseconds between two orders of a kind: an application that asks all the time is none of the repository's business. */
const ORDER_GAP_MS = 5_000;

interface Reply {
  readonly status: number;
  readonly body: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

/** @throws NodeJS.ErrnoException when the port cannot be listened on */
export async function openControl(deps: ControlDeps): Promise<AsyncDisposable> {
  const closing = new AbortController();
  const answer = openAnswers(deps, closing.signal);
  const servers: Server[] = [];
  const close = async (): Promise<void> => {
    closing.abort(new Error("the control port closes"));
    await Promise.all(servers.map(closeServer));
  };
  for (const host of ["127.0.0.1", "::1"]) {
    const server = boundedServer(CONNECTIONS, (request, response) => {
      respond(request, response, answer).catch((err: unknown) => {
        if (!closing.signal.aborted) deps.log.error({ err }, "cannot answer a request");
        response.destroy();
      });
    });
    try {
      await listenOn(server, deps.port, host);
    } catch (error) {
      // A machine without IPv6 has no ::1.
      if (host === "::1" && ["EADDRNOTAVAIL", "EAFNOSUPPORT"].includes(errnoOf(error) ?? ""))
        continue;
      await close();
      throw error;
    }
    server.on("error", (err) => deps.log.error({ err }, "server error"));
    servers.push(server);
  }
  return { [Symbol.asyncDispose]: close };
}

/** Milliseconds between two tries to listen: another process may hold the port, and the sidecar does its work without it. */
const LISTEN_RETRY_MS = 60_000;

/** Keeps the control port open until aborted; never rejects. */
export async function keepControl(deps: ControlDeps, signal: AbortSignal): Promise<void> {
  const { clock, log, port } = deps;
  for (let attempt = 0; !signal.aborted; attempt++) {
    try {
      await using _ = await openControl(deps);
      log.info({ port }, "control port open");
      await aborted(signal);
      return;
    } catch (err) {
      if (attempt === 0) log.warn({ err, port }, "cannot listen on the control port");
    }
    await clock
      .sleep(Math.min(LISTEN_RETRY_MS, 1_000 * 2 ** attempt), signal)
      .catch(() => undefined);
  }
}

type Answers = (request: IncomingMessage) => Promise<Reply>;

async function respond(
  request: IncomingMessage,
  response: ServerResponse,
  answer: Answers,
): Promise<void> {
  const { status, body, headers } = isLocalCaller(request.headers)
    ? await answer(request)
    : problem(
        403,
        "not_local",
        "only programs of this machine or pod are answered, under the name localhost",
      );
  const bytes = Buffer.from(`${JSON.stringify(body)}\n`);
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": bytes.byteLength,
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    // What was not read of a body must not be taken for the next request.
    ...(request.complete ? {} : { connection: "close" }),
    ...headers,
  });
  response.end(bytes);
}

function problem(status: number, reason: string, detail: string): Reply {
  return { status, body: { reason, detail } };
}

function openAnswers({ holds, status, order, clock }: ControlDeps, signal: AbortSignal): Answers {
  const ordered = new Map<UpdateOrder, number>();

  function give(what: UpdateOrder): Reply {
    const now = clock.monotonic();
    const left = (ordered.get(what) ?? -Infinity) + ORDER_GAP_MS - now;
    if (left > 0)
      return {
        ...problem(429, "too_often", "asked for a moment ago"),
        headers: { "retry-after": String(Math.ceil(left / 1000)) },
      };
    const payloads = order(what);
    if (payloads.length === 0)
      return problem(409, "no_updates", "nothing here follows a channel, or it is not up yet");
    const [elsewhere] = payloads;
    if (elsewhere !== undefined && payloads.every(({ leader }) => leader !== undefined))
      return problem(
        409,
        "not_leading",
        `this pod follows; ask the one that leads the shared volume: ${elsewhere.leader ?? ""}`,
      );
    ordered.set(what, now);
    return { status: 202, body: { asked: what, payloads } };
  }

  async function hold(owner: string, request: IncomingMessage): Promise<Reply> {
    if (!isOwner(owner)) return problem(400, "bad_owner", `the owner must be ${OWNER_FORM}`);
    if (request.method === "DELETE")
      return { status: 200, body: { owner, ...(await holds.remove(owner)) } };
    const body = await bodyOf(request);
    if (body === undefined)
      return problem(413, "too_large", `at most ${BODY_LIMIT} bytes are read`);
    const asked = parseHoldRequest(jsonOf(body));
    if (asked === undefined) return problem(400, "bad_request", `expected ${REQUEST_FORM}`);
    const taken = await holds.put(owner, asked);
    if (taken === undefined)
      return problem(
        409,
        "too_many",
        `there are too many holds already: release one, or wait for its end; only ${OPERATOR} has a place of its own`,
      );
    return { status: 200, body: { ...holdView(taken), saved: taken.saved } };
  }

  return async (request) => {
    const { method = "" } = request;
    const path = (request.url ?? "").split("?", 1)[0] ?? "";
    const only = (...allowed: readonly string[]): Reply | undefined =>
      allowed.includes(method)
        ? undefined
        : {
            ...problem(405, "method_not_allowed", `expected ${allowed.join(" or ")}`),
            headers: { allow: allowed.join(", ") },
          };
    if (path === STATUS_PATH || path === HOLDS_PATH) {
      const refused = only("GET");
      if (refused !== undefined) return refused;
      // Looked at now: while nothing waits nobody else does.
      const list = await holds.list(signal);
      return { status: 200, body: path === STATUS_PATH ? status() : { holds: list.map(holdView) } };
    }
    if (path.startsWith(`${HOLDS_PATH}/`))
      return only("PUT", "DELETE") ?? (await hold(path.slice(HOLDS_PATH.length + 1), request));
    const what = UPDATE_ORDERS.find((name) => path === `/v1/update/${name}`);
    if (what !== undefined) return only("POST") ?? give(what);
    return problem(404, "not_found", "docs/operations.md lists what there is");
  };
}

/** `undefined` when it is too long. */
async function bodyOf(request: IncomingMessage): Promise<string | undefined> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    if (!(chunk instanceof Buffer)) continue;
    size += chunk.byteLength;
    if (size > BODY_LIMIT) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Not JSON, and so not a request: the caller says what one is.
    return undefined;
  }
}
