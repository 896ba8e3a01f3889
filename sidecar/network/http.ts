/**
 * The sidecar's HTTP client, for the repository and for Vault: made for links that are slow, stall and break. Time is bounded
 * between bytes and never in total, because a large download over a thin link takes hours and is well.
 */
import { request as plainRequest } from "node:http";
import type { ClientRequest, IncomingHttpHeaders, IncomingMessage } from "node:http";
import { request as tlsRequest } from "node:https";
import { TLSSocket } from "node:tls";
import { EdgeSyncError } from "#core/errors.ts";
import { MAX_SOCKETS, openAgents } from "./agents.ts";
import { isOffClock } from "./off-clock.ts";
import type { OffClock } from "./off-clock.ts";
import type { Proxies, Proxy } from "./proxy.ts";

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

/** A certificate with its private key, PEM. */
export interface Identity {
  readonly cert: string;
  readonly key: string;
}

export interface HttpOptions {
  /** PEM. These authorities are then trusted and no others; without it the public ones that Node knows. */
  readonly ca?: string;
  /** Shown to servers that ask for one. */
  readonly identity?: Identity;
  /** The name that every server's certificate must have, whatever the address. */
  readonly serverName?: string;
  /** Milliseconds without a byte, also while connecting, after which a request is given up. */
  readonly idleTimeoutMs: number;
  readonly unavailable: "ORIGIN_UNAVAILABLE" | "VAULT_UNAVAILABLE";
  /** Without them everything is reached directly. */
  readonly proxies?: Proxies;
  /** Without it a certificate is good or not by this node's clock. */
  readonly offClock?: OffClock;
}

/** Sending these twice is the same as sending them once (RFC 9110, 9.2.2; LIST is Vault's). */
const IDEMPOTENT: ReadonlySet<HttpRequest["method"]> = new Set(["GET", "HEAD", "PUT", "LIST"]);

/** @throws EdgeSyncError CONFIG_INVALID when `ca` holds no certificate that can be read, or a key does not fit its certificate */
export function openHttp(options: HttpOptions): Http {
  const agents = openAgents(options);
  const { proxies, serverName } = options;
  /** Servers whose certificate is out of its time by this node's clock, and was allowed. */
  const offClock = new Set<string>();

  const open = (request: HttpRequest, isOff: boolean, signal: AbortSignal): ClientRequest => {
    const url = new URL(request.url);
    const proxy = proxies?.of(url);
    const headers = {
      "user-agent": "edgesync",
      // Digests and sizes are of the bytes as published; a server must not recode them on the way.
      "accept-encoding": "identity",
      ...(request.body === undefined ? {} : { "content-length": request.body.byteLength }),
      ...request.headers,
    };
    const init = { method: request.method, signal, headers };
    if (url.protocol === "https:") {
      // Node waits for the connection before it tells a request that it was aborted, and hides the signal from the agent.
      const waiting = { ...init, abortedBy: signal, agent: agents.of(proxy, isOff) };
      return tlsRequest(
        url,
        serverName === undefined ? waiting : { ...waiting, servername: serverName },
      );
    }
    if (proxy === undefined) return plainRequest(url, { ...init, agent: agents.plain });
    const through = { ...init, ...forwarded(url, headers, proxy) };
    return proxy.secure
      ? tlsRequest({ ...through, agent: agents.tls })
      : plainRequest({ ...through, agent: agents.plain });
  };

  const send = async (
    request: HttpRequest,
    isOff: boolean,
    signal: AbortSignal,
  ): Promise<HttpResponse> => {
    // A kept connection may have been closed by the other side just now. One more than there can be kept connections.
    for (let attempt = 0; attempt < MAX_SOCKETS && IDEMPOTENT.has(request.method); attempt++) {
      const outgoing = open(request, isOff, signal);
      try {
        return await exchange(outgoing, request, options, signal);
      } catch (error) {
        if (!outgoing.reusedSocket || !isReset(error)) throw error;
      }
    }
    return exchange(open(request, isOff, signal), request, options, signal);
  };

  return {
    async request(request, signal) {
      signal.throwIfAborted();
      const { origin } = new URL(request.url);
      if (!offClock.has(origin))
        try {
          return await send(request, false, signal);
        } catch (error) {
          // Nothing of the request has been sent.
          if (!agents.isAllowed || !isOffClock(error)) throw error;
        }
      try {
        const response = await send(request, true, signal);
        offClock.add(origin);
        return response;
      } catch (error) {
        offClock.delete(origin);
        throw error;
      }
    },
    close: () => agents.close(),
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
    // The answer as it came, which Node's parser adds to what it throws: whoever shows the error must not show that.
    if (cause instanceof Error && "rawPacket" in cause) delete cause.rawPacket;
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
