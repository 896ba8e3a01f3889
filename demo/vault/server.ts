/**
 * A development Vault: the HTTP API of HashiCorp Vault and OpenBao as far as edgesync and its tests use it, with the shapes and
 * status codes of the real one. It stands in for a server that is not to be had on a bare machine, keeps all in memory, and is
 * no part of what is shipped.
 */
import { randomUUID } from "node:crypto";
import { createServer as plainServer } from "node:http";
import type { IncomingMessage, RequestListener, ServerResponse } from "node:http";
import { createServer as tlsServer } from "node:https";
import { TLSSocket } from "node:tls";
import type { Clock } from "#core/clock.ts";
import { Refusal, denied, invalid, isRecord, needed } from "./exchange.ts";
import type { Answer, Call, Fields, Operation } from "./exchange.ts";
import { listen, readText } from "./listen.ts";
import { authorize, handleSystem, handleToken, mountOf, openSystem } from "./system.ts";
import type { System } from "./system.ts";
import { openTokenStore } from "./tokens.ts";
import { openWrapping } from "./wrapping.ts";

/** A fault: what a request meets instead of, or before, its answer. */
export interface Fault {
  /** A request is met when its path matches; every request when absent. */
  readonly path?: RegExp;
  readonly method?: string;
  /** Answered with this status and no work done. */
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as it is, whatever it is; needs a status. */
  readonly body?: string;
  /** Never answered: the connection stays open. */
  readonly stall?: true;
  /** The work is done and the answer then lost, as when a link breaks. */
  readonly dropAnswer?: true;
}

/** Outside the API, for tests only. */
export interface VaultControl {
  /** As `bao operator seal` would: 503 for everything. */
  seal(sealed: boolean): void;
  /** As a node that does not forward: 429 at sys/health, 503 elsewhere. */
  standby(standby: boolean): void;
  /** Replaces the faults that hold; the first that matches counts. */
  faults(...faults: readonly Fault[]): void;
  /** Requests so far, `<METHOD> <path>`, oldest first. */
  readonly requests: readonly string[];
}

export interface DevVault extends AsyncDisposable {
  readonly url: string;
  readonly rootToken: string;
  readonly control: VaultControl;
}

export interface DevVaultOptions {
  /** PEM; without it the server speaks plain HTTP. */
  readonly tls?: { readonly cert: string; readonly key: string };
  /** Host in the address; the server listens on the loopback interface. */
  readonly host?: string;
  readonly port?: number;
  readonly clock: Clock;
}

export const BODY_LIMIT_BYTES = 1_048_576;

const OPERATIONS: Readonly<Record<string, Operation>> = {
  GET: "read",
  LIST: "list",
  PUT: "write",
  POST: "write",
  DELETE: "delete",
};

export async function openDevVault(options: DevVaultOptions): Promise<DevVault> {
  const { clock, tls } = options;
  const tokens = openTokenStore(clock);
  const system = openSystem(tokens, () => clock.now());
  const root = tokens.issueRoot();
  const wrapping = openWrapping(() => clock.now());
  const state = { sealed: false, standby: false, faults: [] as readonly Fault[] };
  const requests: string[] = [];

  const serve = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const url = new URL(request.url ?? "/", "http://localhost");
    const path = decodeURIComponent(url.pathname.replace(/^\/v1\//, ""));
    requests.push(`${request.method} ${path}`);
    const fault = state.faults.find(
      (f) => (f.path?.test(path) ?? true) && (f.method ?? request.method) === request.method,
    );
    const body = await readText(request, BODY_LIMIT_BYTES);
    if (fault?.stall === true) return;
    if (fault?.status !== undefined) {
      response.writeHead(fault.status, { "content-type": "application/json", ...fault.headers });
      response.end(fault.body ?? JSON.stringify({ errors: ["a fault of the test"] }));
      return;
    }
    const result = await settle(async () => {
      if (path === "sys/health" || path === "sys/seal-status") return health(state, clock.now());
      if (state.sealed) throw new Refusal(503, ["Vault is sealed"]);
      if (state.standby) throw new Refusal(503, ["Vault is in standby mode"]);
      const call = callOf(request, url, path, body);
      const token = request.headers["x-vault-token"];
      if (path === "sys/wrapping/unwrap" && typeof token === "string")
        return wrapping.unwrap(token);
      if (path === "sys/wrapping/lookup") return wrapping.lookup(needed(call.fields, "token"));
      const answered = await route(system, call, token);
      const ttl = request.headers["x-vault-wrap-ttl"];
      return typeof ttl === "string" ? wrapping.wrap(path, answered, ttl) : answered;
    });
    if (fault?.dropAnswer === true) request.socket.destroy();
    else send(response, result);
  };
  const listener: RequestListener = (request, response) => {
    serve(request, response).catch((error: unknown) => {
      if (error instanceof RangeError)
        send(response, { status: 413, body: { errors: ["http: request body too large"] } });
      else response.destroy();
    });
  };

  const server = await listen(
    tls === undefined
      ? plainServer(listener)
      : // Whoever has a certificate shows it; whether it is good is the auth method's to say.
        tlsServer({ ...tls, requestCert: true, rejectUnauthorized: false }, listener),
    options.port,
  );
  const stop = new AbortController();
  const expiry = tokens.run(stop.signal);

  return {
    url: `${tls === undefined ? "http" : "https"}://${options.host ?? "127.0.0.1"}:${server.port}`,
    rootToken: root.id,
    control: {
      seal(sealed) {
        state.sealed = sealed;
      },
      standby(standby) {
        state.standby = standby;
      },
      faults(...faults) {
        state.faults = faults;
      },
      requests,
    },
    async [Symbol.asyncDispose]() {
      stop.abort();
      await Promise.all([server[Symbol.asyncDispose](), expiry]);
    },
  };
}

function callOf(request: IncomingMessage, url: URL, path: string, body: string): Call {
  const operation = OPERATIONS[request.method ?? ""];
  if (operation === undefined) throw new Refusal(405, []);
  const isList = operation === "read" && url.searchParams.get("list") === "true";
  return {
    operation: isList ? "list" : operation,
    path: path.replace(/\/$/, ""),
    fields: { ...Object.fromEntries(url.searchParams), ...parseFields(body) },
    certificate:
      request.socket instanceof TLSSocket
        ? request.socket.getPeerX509Certificate()?.toString()
        : undefined,
  };
}

function parseFields(body: string): Fields {
  if (body === "") return {};
  try {
    const parsed: unknown = JSON.parse(body);
    if (isRecord(parsed)) return parsed;
  } catch {
    // Answered below, like anything else that is no object.
  }
  throw invalid("failed to parse JSON input");
}

async function route(
  system: System,
  call: Call,
  header: string | readonly string[] | undefined,
): Promise<Answer> {
  const [method, auth] = mountOf(system.methods, call.path) ?? [];
  if (method !== undefined && auth !== undefined && call.path === `${method}login`) {
    if (call.operation !== "write") throw new Refusal(405, []);
    return auth.login(call);
  }
  const token = typeof header === "string" ? system.tokens.find(header) : undefined;
  if (token === undefined) throw denied();
  authorize(system, token, call);
  if (call.path.startsWith("sys/")) return handleSystem(system, call);
  if (call.path.startsWith("auth/token/")) return handleToken(system, call, token);
  if (method !== undefined && auth !== undefined)
    return auth.handle({ ...call, path: call.path.slice(method.length) });
  const [mount, mounted] = mountOf(system.engines, call.path) ?? [];
  if (mount === undefined || mounted === undefined)
    throw new Refusal(404, [`no handler for route "${call.path}". route entry not found.`]);
  return mounted.handle({ ...call, path: call.path.slice(mount.length) }, token);
}

async function settle(work: () => Promise<Answer>): Promise<Answer> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof Refusal) return { status: error.status, body: error.body };
    return { status: 500, body: { errors: ["internal error"] } };
  }
}

function health(state: { sealed: boolean; standby: boolean }, now: number): Promise<Answer> {
  const healthy = state.standby ? 429 : 200;
  return Promise.resolve({
    status: state.sealed ? 503 : healthy,
    body: {
      initialized: true,
      sealed: state.sealed,
      standby: state.standby,
      performance_standby: false,
      server_time_utc: Math.floor(now / 1_000),
      version: "edgesync-development",
    },
  });
}

function send(response: ServerResponse, { status, body }: Answer): void {
  const headers = { "cache-control": "no-store", "x-request-id": randomUUID() };
  if (body === undefined) {
    response.writeHead(status, headers).end();
    return;
  }
  response.writeHead(status, { ...headers, "content-type": "application/json" });
  response.end(JSON.stringify(body));
}
