/** A way through a proxy to a host and port behind it: HTTP's CONNECT (RFC 9110, 9.3.6). */
import { request as plainRequest } from "node:http";
import { connect, isIP } from "node:net";
import type { Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { SecureContext } from "node:tls";
import { EdgeSyncError } from "#core/errors.ts";
import type { ErrorCode } from "#core/errors.ts";
import type { Proxy } from "./proxy.ts";

export interface TunnelOptions {
  /** For a proxy that speaks TLS. */
  readonly secureContext: SecureContext;
  /** Milliseconds for all of it. */
  readonly timeoutMs: number;
  /** Milliseconds for one of several addresses of the proxy. */
  readonly addressAttemptMs: number;
  readonly unavailable: ErrorCode;
}

/**
 * Gives the open way to `done`, or what stands in it: `unavailable` for what may pass, ORIGIN_REFUSED when the proxy does not want to,
 * TLS_UNTRUSTED when the proxy's certificate is not good; its credentials have then not been sent.
 *
 * @param target host and port; an IPv6 address is in brackets
 * @returns gives it up
 */
export function openTunnel(
  proxy: Proxy,
  target: string,
  options: TunnelOptions,
  done: (error: EdgeSyncError | undefined, socket: Socket | undefined) => void,
): () => void {
  const { host, port, secure } = proxy;
  const through = `the proxy ${isIP(host) === 6 ? `[${host}]` : host}:${port}`;
  const socket = secure
    ? connectTls({
        host,
        port,
        secureContext: options.secureContext,
        ...(isIP(host) === 0 ? { servername: host } : {}),
      })
    : connect({ host, port, autoSelectFamilyAttemptTimeout: options.addressAttemptMs });
  let over = false;
  const end = (error: EdgeSyncError | undefined): void => {
    if (over) return;
    over = true;
    clearTimeout(timer);
    if (error !== undefined) socket.destroy();
    done(error, error === undefined ? socket : undefined);
  };
  const timer = setTimeout(
    () => end(problem(options.unavailable, `no answer for ${options.timeoutMs} ms`)),
    options.timeoutMs,
  );
  function problem(code: ErrorCode, what: string, cause?: unknown): EdgeSyncError {
    return new EdgeSyncError(code, `${through}, on the way to ${target}: ${what}`, { cause });
  }
  const failed = (cause: Error): void => {
    const untrusted = "authorizationError" in socket && Boolean(socket.authorizationError);
    end(problem(untrusted ? "TLS_UNTRUSTED" : options.unavailable, cause.message, cause));
  };
  socket.once("error", failed);
  // Not earlier than the certificate is verified: what is written before that is sent all the same.
  socket.once(secure ? "secureConnect" : "connect", () => {
    const { authorization } = proxy;
    const request = plainRequest({
      method: "CONNECT",
      path: target,
      headers: {
        host: target,
        "user-agent": "edgesync",
        ...(authorization === undefined ? {} : { "proxy-authorization": authorization }),
      },
      createConnection: () => socket,
    });
    request.once("error", failed);
    request.once("connect", ({ statusCode = 0 }, _, head) => {
      if (statusCode >= 200 && statusCode < 300) {
        socket.removeListener("error", failed);
        if (head.byteLength > 0) socket.unshift(head);
        end(undefined);
        return;
      }
      const passing = statusCode >= 500 || statusCode === 408 || statusCode === 429;
      const code = passing ? options.unavailable : "ORIGIN_REFUSED";
      const hint = statusCode === 407 ? ", which asks for other credentials" : "";
      end(problem(code, `it answers with status ${statusCode}${hint}`));
    });
    request.end();
  });
  return () => end(problem(options.unavailable, "closed"));
}
