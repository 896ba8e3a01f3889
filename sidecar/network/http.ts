/**
 * The sidecar's HTTP client, for the repository and for Vault: made for links that are slow, stall and break. Time is bounded
 * between bytes and never in total, because a large download over a thin link takes hours and is well.
 */
import { X509Certificate } from "node:crypto";
import { Agent as PlainAgent, request as plainRequest } from "node:http";
import type { ClientRequest, IncomingHttpHeaders, IncomingMessage } from "node:http";
import { Agent as TlsAgent, request as tlsRequest } from "node:https";
import type { Socket } from "node:net";
import { TLSSocket, createSecureContext } from "node:tls";
import type { SecureContext } from "node:tls";
import { EdgeSyncError } from "#core/errors.ts";
import type { Proxies, Proxy } from "./proxy.ts";
import { openTunnel } from "./tunnel.ts";

export interface HttpResponse {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** Can be iterated once. To stop early gives the connection up; so does not to begin within the idle time-out. */
  readonly body: AsyncIterable<Uint8Array>;
}

export interface HttpRequest {
  readonly method: "GET" | "HEAD" | "POST" | "PUT" | "LIST";
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
}

export interface Http {
  /**
   * Resolves when the headers of the response are there, whatever its status; redirects are not followed. An abort rejects with
   * the signal's reason, unchanged, until the body has ended.
   *
   * @throws EdgeSyncError TLS_UNTRUSTED before anything of the request is sent; for every other failure of the connection the
   *   code that `openHttp` was given, with its cause. Reading the body throws the same.
   */
  request(request: HttpRequest, signal: AbortSignal): Promise<HttpResponse>;
  /** Closes every connection. */
  close(): void;
}

export interface HttpOptions {
  /** PEM. These authorities are then trusted and no others; without it the public ones that Node knows. */
  readonly ca?: string;
  /** Milliseconds without a byte, also while connecting, after which a request is given up. */
  readonly idleTimeoutMs: number;
  readonly unavailable: "ORIGIN_UNAVAILABLE" | "VAULT_UNAVAILABLE";
  /** Without them everything is reached directly. */
  readonly proxies?: Proxies;
}

/** Enough to keep a link with a long round trip busy; each costs the sidecar a TLS session's memory. */
const MAX_SOCKETS = 4;

/**
 * Milliseconds that an unused connection is kept: it serves a burst of requests, not the next poll. Below the five seconds after
 * which Node's server closes one, so that a request seldom meets a connection that is just being closed.
 */
const KEEP_ALIVE_MS = 4_000;

/**
 * Milliseconds for one of several addresses of a host. Node's own 250 are less than a satellite's round trip, and only the
 * last address would ever connect.
 */
const ADDRESS_ATTEMPT_MS = 2_000;

/** Sending these twice is the same as sending them once (RFC 9110, 9.2.2; LIST is Vault's). */
const IDEMPOTENT: ReadonlySet<HttpRequest["method"]> = new Set(["GET", "HEAD", "PUT", "LIST"]);

/** @throws EdgeSyncError CONFIG_INVALID when `ca` holds no certificate that can be read */
export function openHttp(options: HttpOptions): Http {
  const pool = {
    keepAlive: true,
    maxSockets: MAX_SOCKETS,
    timeout: KEEP_ALIVE_MS,
    autoSelectFamilyAttemptTimeout: ADDRESS_ATTEMPT_MS,
  };
  const plain = new PlainAgent(pool);
  // Made once: reading the authorities for each connection costs milliseconds and megabytes.
  const context = secureContext(options.ca);
  const tls = new TlsAgent({ ...pool, secureContext: context });
  const tunnels = openTunnels(new TlsAgent({ ...pool, secureContext: context }), context, options);

  const open = (request: HttpRequest, signal: AbortSignal): ClientRequest => {
    const url = new URL(request.url);
    const proxy = options.proxies?.of(url);
    const headers = {
      "user-agent": "edgesync",
      // Digests and sizes are of the bytes as published; a server must not recode them on the way.
      "accept-encoding": "identity",
      ...(request.body === undefined ? {} : { "content-length": request.body.byteLength }),
      ...request.headers,
    };
    const init = { method: request.method, signal, headers };
    if (url.protocol === "https:" && proxy !== undefined) {
      // Node waits for the connection before it tells a request that it was aborted, and hides the signal from the agent.
      const tunnelled = { ...init, agent: tunnels.agent(proxy), abortedBy: signal };
      return tlsRequest(url, tunnelled);
    }
    if (url.protocol === "https:") return tlsRequest(url, { ...init, agent: tls });
    if (proxy === undefined) return plainRequest(url, { ...init, agent: plain });
    const through = { ...init, ...forwarded(url, headers, proxy) };
    return proxy.secure
      ? tlsRequest({ ...through, agent: tls })
      : plainRequest({ ...through, agent: plain });
  };

  return {
    async request(request, signal) {
      signal.throwIfAborted();
      // A kept connection may have been closed by the other side just now. One more than there can be kept connections.
      for (let attempt = 0; attempt < MAX_SOCKETS && IDEMPOTENT.has(request.method); attempt++) {
        const outgoing = open(request, signal);
        try {
          return await exchange(outgoing, request, options, signal);
        } catch (error) {
          if (!outgoing.reusedSocket || !isReset(error)) throw error;
        }
      }
      return exchange(open(request, signal), request, options, signal);
    },
    close() {
      plain.destroy();
      tls.destroy();
      tunnels.close();
    },
  };
}

/** A request in the clear for a proxy to pass on (RFC 9112, 3.2.2). Credentials of the server are not for it. */
function forwarded(
  url: URL,
  headers: Readonly<Record<string, string | number>>,
  { host, port, authorization }: Proxy,
): object {
  const { authorization: _, ...others } = headers;
  const own = authorization === undefined ? {} : { "proxy-authorization": authorization };
  return { host, port, path: url.href, headers: { ...others, host: url.host, ...own } };
}

interface Tunnels {
  agent(proxy: Proxy): TlsAgent;
  close(): void;
}

/** Makes an agent connect through a proxy. There is one proxy at most, because it depends on nothing but the scheme. */
function openTunnels(agent: TlsAgent, secureContext: SecureContext, options: HttpOptions): Tunnels {
  const underWay = new Set<() => void>();
  const { idleTimeoutMs: timeoutMs, unavailable } = options;
  const way = { secureContext, timeoutMs, unavailable, addressAttemptMs: ADDRESS_ATTEMPT_MS };
  const secure = agent.createConnection.bind(agent);
  return {
    agent(proxy) {
      agent.createConnection = (to, connected): undefined => {
        const { host, port } = to;
        const target = `${host?.includes(":") === true ? `[${host}]` : host}:${port ?? 443}`;
        const { abortedBy: signal } = to as { readonly abortedBy?: AbortSignal };
        const giveUp = openTunnel(proxy, target, way, (error, socket) => {
          underWay.delete(giveUp);
          signal?.removeEventListener("abort", giveUp);
          if (error !== undefined) connected?.(error, undefined as never);
          else connected?.(null, secure({ ...to, socket } as typeof to) as Socket);
        });
        underWay.add(giveUp);
        signal?.addEventListener("abort", giveUp, { once: true });
      };
      return agent;
    },
    close() {
      for (const giveUp of underWay) giveUp();
      agent.destroy();
    },
  };
}

function secureContext(ca: string | undefined): SecureContext {
  if (ca === undefined) return createSecureContext({ minVersion: "TLSv1.2" });
  // Node skips what it cannot read, and then trusts nobody without saying why.
  const certificates = ca.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  if (certificates.length === 0)
    throw new EdgeSyncError("CONFIG_INVALID", "the CA bundle holds no PEM certificate");
  for (const [index, pem] of certificates.entries()) {
    try {
      void new X509Certificate(pem);
    } catch (cause) {
      const which = `certificate ${index + 1} of ${certificates.length}`;
      throw new EdgeSyncError("CONFIG_INVALID", `${which} in the CA bundle cannot be read`, {
        cause,
      });
    }
  }
  return createSecureContext({ minVersion: "TLSv1.2", ca: certificates });
}

function isReset(error: unknown): boolean {
  const cause = error instanceof EdgeSyncError ? error.cause : undefined;
  return (
    cause instanceof Error &&
    "code" in cause &&
    ["ECONNRESET", "EPIPE"].includes(String(cause.code))
  );
}

/** Sends one request and waits for the headers of its response. */
function exchange(
  outgoing: ClientRequest,
  request: HttpRequest,
  { idleTimeoutMs, unavailable }: HttpOptions,
  signal: AbortSignal,
): Promise<HttpResponse> {
  const { origin, pathname } = new URL(request.url);
  const explain = (cause: unknown): unknown => {
    if (signal.aborted) return signal.reason;
    if (cause instanceof EdgeSyncError) return cause;
    const code = refusesCertificate(outgoing) ? "TLS_UNTRUSTED" : unavailable;
    const what = cause instanceof Error ? cause.message : String(cause);
    return new EdgeSyncError(code, `${request.method} ${origin}${pathname}: ${what}`, { cause });
  };
  const stalled = (): EdgeSyncError =>
    new EdgeSyncError(
      unavailable,
      `${request.method} ${origin}${pathname}: no bytes for ${idleTimeoutMs} ms`,
    );
  return new Promise((resolve, reject) => {
    let incoming: IncomingMessage | undefined;
    const idle = watchdog(idleTimeoutMs, () => {
      // Through the response where there is one: its reader then gets this error and not the reset that follows from it.
      (incoming ?? outgoing).destroy(stalled());
    });
    const send = (): void => {
      idle.feed();
      outgoing.end(request.body);
    };
    outgoing.once("socket", (socket) => {
      // Not earlier: waiting for a free connection is no stall.
      idle.feed();
      // A kept connection will not connect again, and would only collect listeners.
      if (socket.connecting) socket.once("connect", idle.feed);
      // The headers hold credentials. Node would queue them before it has verified the certificate; here they wait.
      if (socket instanceof TLSSocket && !socket.authorized) socket.once("secureConnect", send);
      else send();
    });
    outgoing.on("error", (cause) => {
      idle.stop();
      reject(explain(cause));
    });
    outgoing.once("close", () => {
      idle.stop();
      // An answer 101 is neither a response nor an error to Node. What has been answered is settled by now.
      reject(explain(new Error("closed without an answer")));
    });
    outgoing.once("response", (response) => {
      incoming = response;
      resolve({
        status: response.statusCode ?? 0,
        headers: response.headers,
        body: bodyOf(response, idle, explain),
      });
    });
  });
}

/** Whether the connection ended because Node did not accept the other side's certificate, for whichever of OpenSSL's reasons. */
function refusesCertificate({ socket }: ClientRequest): boolean {
  return socket instanceof TLSSocket && Boolean(socket.authorizationError);
}

interface Watchdog {
  /** Starts, or starts again. */
  readonly feed: () => void;
  readonly stop: () => void;
}

function watchdog(ms: number, bark: () => void): Watchdog {
  let timer: NodeJS.Timeout | undefined;
  return {
    feed() {
      clearTimeout(timer);
      timer = setTimeout(bark, ms);
    },
    stop() {
      clearTimeout(timer);
    },
  };
}

/**
 * The time-out runs while bytes are waited for and not while the reader is busy with those it has. What has arrived is given out before
 * the error that came after it: Node's own iterator drops up to 64 KiB there, which a download would have to fetch again.
 */
function bodyOf(
  response: IncomingMessage,
  idle: Watchdog,
  explain: (cause: unknown) => unknown,
): AsyncIterable<Uint8Array> {
  let end: { readonly error?: unknown } | undefined;
  let wake = (): void => undefined;
  const over = (how: { readonly error?: unknown }): void => {
    end ??= how;
    wake();
  };
  response.on("readable", () => wake());
  response.once("end", () => over({}));
  response.on("error", (error) => over({ error }));
  response.once("close", () => over({ error: new Error("closed before its end") }));
  idle.feed();

  async function next(): Promise<IteratorResult<Uint8Array, undefined>> {
    idle.feed();
    try {
      for (;;) {
        const value: Buffer | null = response.read();
        if (value !== null) return { done: false, value };
        if (end !== undefined && "error" in end) throw explain(end.error);
        if (end !== undefined) return { done: true, value: undefined };
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    } finally {
      idle.stop();
    }
  }

  return {
    [Symbol.asyncIterator]: () => ({
      next,
      async return() {
        idle.stop();
        response.destroy();
        return { done: true, value: undefined };
      },
    }),
  };
}

/**
 * The whole body.
 *
 * @param limit bytes
 * @throws EdgeSyncError RESPONSE_TOO_LARGE as soon as it is known, without reading on; and what reading a body throws
 */
export async function readBody(
  response: HttpResponse,
  limit: number,
  signal: AbortSignal,
): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  const announced = Number(response.headers["content-length"] ?? 0);
  for await (const chunk of response.body) {
    signal.throwIfAborted();
    size += chunk.byteLength;
    if (size > limit || announced > limit)
      throw new EdgeSyncError(
        "RESPONSE_TOO_LARGE",
        `the response has more than the ${limit} bytes that are allowed`,
      );
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size);
}
