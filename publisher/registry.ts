/** Requests to an OCI registry, to read and to write one repository of it: the login that its challenge wants, and what its answers mean. */
import type { ClientRequest, IncomingHttpHeaders } from "node:http";
import type { Socket } from "node:net";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { TLSSocket } from "node:tls";
import { isLoopback } from "#core/addresses.ts";
import type { OciAddress } from "#core/addresses.ts";
import type { Login } from "#core/docker-config.ts";
import { EdgeSyncError } from "#core/errors.ts";
import { parseChallenge, parseToken, tokenUrl } from "#core/oci.ts";

export interface RegistryAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

export interface RegistryRequest {
  readonly method: "GET" | "HEAD" | "POST" | "PUT";
  /** Behind `/v2/<name>`, or an address that the registry has given. */
  readonly path: string | URL;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Content;
}

/** Bytes that can be sent more than once. */
export interface Content {
  readonly size: number;
  open(): AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

export interface Registry extends Disposable {
  /**
   * The answer, whatever its status, after a login where one was asked for.
   *
   * @throws EdgeSyncError ORIGIN_UNAVAILABLE, TLS_UNTRUSTED, and ORIGIN_REFUSED when the login fails
   */
  send(request: RegistryRequest, signal: AbortSignal): Promise<RegistryAnswer>;
}

export type Credential =
  ({ readonly kind: "basic" } & Login) | { readonly kind: "bearer"; readonly token: string };

export interface RegistryOptions {
  readonly credential: Credential | undefined;
  /** PEM of the only authorities that are trusted; without it those that Node knows. */
  readonly ca: Buffer | undefined;
  /** Where HTTPS_PROXY and NO_PROXY are. */
  readonly environment: Readonly<Record<string, string | undefined>>;
}

const ANSWER_LIMIT = 4 * 1024 * 1024;
/** Milliseconds without a byte. */
const IDLE_MS = 60_000;

export async function openRegistry(
  address: OciAddress,
  options: RegistryOptions,
): Promise<Registry> {
  const { credential, ca, environment: proxyEnv } = options;
  // Loaded here, because they take 14 MiB of memory that no other command needs; `delta apply` has a bound to keep.
  const [http, https] = await Promise.all([import("node:http"), import("node:https")]);
  const plain = new http.Agent({ keepAlive: true, proxyEnv });
  const tls = new https.Agent({ keepAlive: true, proxyEnv, ...(ca === undefined ? {} : { ca }) });
  const base = `${address.origin}/v2/${address.name}`;
  let authorization = credential?.kind === "bearer" ? `Bearer ${credential.token}` : undefined;

  const exchange = (
    url: URL,
    { method, headers, body }: Omit<RegistryRequest, "path">,
    signal: AbortSignal,
  ): Promise<RegistryAnswer> => {
    const size = body === undefined ? (method === "POST" ? 0 : undefined) : body.size;
    const all = {
      "user-agent": "edgesync",
      ...(size === undefined ? {} : { "content-length": size }),
      ...headers,
    };
    const init = { method, headers: all, signal, timeout: IDLE_MS };
    const outgoing =
      url.protocol === "https:"
        ? https.request(url, { ...init, agent: tls })
        : http.request(url, { ...init, agent: plain });
    return answerTo(outgoing, body, `${method} ${url.origin}${url.pathname}`, signal);
  };

  /** Whether to send the request again, with what the registry wants. */
  async function logIn(answer: RegistryAnswer, signal: AbortSignal): Promise<boolean> {
    const challenge = parseChallenge(answer.headers["www-authenticate"]);
    if (challenge === undefined || credential?.kind === "bearer") return false;
    const basic =
      credential === undefined
        ? undefined
        : `Basic ${Buffer.from(`${credential.username}:${credential.password}`).toString("base64")}`;
    if (challenge.scheme === "basic") {
      if (basic === undefined || authorization === basic) return false;
      authorization = basic;
      return true;
    }
    const url = tokenUrl(challenge, address.name, "pull,push");
    const shown = url.origin + url.pathname;
    const local = isLoopback(url) && isLoopback(new URL(address.origin));
    if (url.protocol !== "https:" && !local)
      throw new EdgeSyncError(
        "ORIGIN_REFUSED",
        `${shown}, where ${address.registry} wants its login, is not https://`,
      );
    const headers: Record<string, string> = basic === undefined ? {} : { authorization: basic };
    const { status, body } = await exchange(url, { method: "GET", headers }, signal);
    if (status !== 200) throw refused(`the login of ${address.registry} at ${shown}`, status);
    const token = parseToken(body);
    if (token === undefined) throw new EdgeSyncError("ORIGIN_REFUSED", `${shown} gives no token`);
    authorization = `Bearer ${token.token}`;
    return true;
  }

  return {
    async send(request, signal) {
      const { path } = request;
      const url = path instanceof URL ? path : new URL(base + path);
      for (let attempt = 0; ; attempt++) {
        signal.throwIfAborted();
        // What the registry names elsewhere is not for its credentials.
        const own = url.origin === new URL(base).origin && authorization !== undefined;
        const headers = own ? { ...request.headers, authorization } : { ...request.headers };
        const answer = await exchange(url, { ...request, headers: clean(headers) }, signal);
        if (answer.status !== 401 || attempt > 0 || !(await logIn(answer, signal))) return answer;
      }
    },
    [Symbol.dispose]() {
      plain.destroy();
      tls.destroy();
    },
  };
}

function clean(
  headers: Readonly<Record<string, string | undefined>>,
): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(headers).flatMap(([name, value]) =>
      value === undefined ? [] : [[name, value]],
    ),
  );
}

/** @param what is asked, for a message */
export function refused(what: string, status: number): EdgeSyncError {
  const passing = status >= 500 || status === 408 || status === 429;
  return new EdgeSyncError(
    passing ? "ORIGIN_UNAVAILABLE" : "ORIGIN_REFUSED",
    `${what} answers with status ${status}`,
  );
}

function isTls(socket: Socket | null): socket is TLSSocket {
  return socket !== null && "encrypted" in socket;
}

function answerTo(
  outgoing: ClientRequest,
  body: Content | undefined,
  what: string,
  signal: AbortSignal,
): Promise<RegistryAnswer> {
  return new Promise((resolve, reject) => {
    const fail = (cause: unknown): void => {
      const { socket } = outgoing;
      const untrusted = isTls(socket) && Boolean(socket.authorizationError);
      const message = cause instanceof Error ? cause.message : String(cause);
      const code = untrusted ? "TLS_UNTRUSTED" : "ORIGIN_UNAVAILABLE";
      const known = cause instanceof EdgeSyncError;
      reject(
        signal.aborted
          ? signal.reason
          : known
            ? cause
            : new EdgeSyncError(code, `${what}: ${message}`, { cause }),
      );
    };
    outgoing.on("error", fail);
    outgoing.once("timeout", () => outgoing.destroy(new Error(`no bytes for ${IDLE_MS} ms`)));
    outgoing.once("response", (response) => {
      const chunks: Buffer[] = [];
      let size = 0;
      response.on("data", (chunk: Buffer) => {
        size += chunk.byteLength;
        if (size > ANSWER_LIMIT)
          response.destroy(
            new EdgeSyncError("RESPONSE_TOO_LARGE", `${what}: the answer is too long`),
          );
        chunks.push(chunk);
      });
      response.once("error", fail);
      response.once("end", () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: Buffer.concat(chunks),
        }),
      );
    });
    const send = (): void => {
      if (body === undefined) outgoing.end();
      else pipeline(Readable.from(body.open(), { objectMode: false }), outgoing).catch(fail);
    };
    outgoing.once("socket", (socket) => {
      // Not earlier than the certificate is verified: the headers hold credentials.
      if (isTls(socket) && !socket.authorized) socket.once("secureConnect", send);
      else send();
    });
  });
}
