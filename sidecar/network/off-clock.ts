/**
 * A connection to a server whose certificate this node's clock puts out of its time; the clock may be what is wrong. Node says only
 * that it has expired, or is not valid yet, and that can hide everything else that is wrong with it. So the handshake is made without
 * Node's judgement, and the socket is given to nobody before all of the chain that it presented has been verified at the nearest moment
 * at which it is valid, if that is not further away than the allowance. Until then nothing is written.
 */
import type { X509Certificate } from "node:crypto";
import type { RequestOptions } from "node:https";
import type { Socket } from "node:net";
import { connect, getCACertificates } from "node:tls";
import type { SecureContext, TLSSocket } from "node:tls";
import { EdgeSyncError } from "#core/errors.ts";
import type { ErrorCode } from "#core/errors.ts";

export interface OffClock {
  /** Milliseconds by which the clock may be off; 0 for not at all. */
  readonly allowanceMs: number;
  /** Milliseconds since the epoch, by the clock that Node judges by. */
  readonly now: () => number;
  /**
   * A connection was made that a strict one would not have been.
   *
   * @param offMs milliseconds from now to the time at which the chain is valid; negative when it has expired
   */
  readonly used: (host: string, offMs: number) => void;
}

export interface AllowedOptions extends OffClock {
  readonly secureContext: SecureContext;
  /** PEM; undefined for the public ones that Node knows. */
  readonly authorities: readonly string[] | undefined;
  /** Milliseconds for the handshake. */
  readonly timeoutMs: number;
  readonly unavailable: ErrorCode;
}

const OFF_CLOCK: ReadonlySet<unknown> = new Set(["CERT_HAS_EXPIRED", "CERT_NOT_YET_VALID"]);

/** Whether a connection failed for the time of a certificate, as far as Node says. */
export function isOffClock(error: unknown): boolean {
  const cause = error instanceof EdgeSyncError ? error.cause : undefined;
  return cause instanceof Error && "code" in cause && OFF_CLOCK.has(cause.code);
}

/**
 * Gives the verified connection to `done`, or what stands in its way: TLS_UNTRUSTED before a byte is sent, else `unavailable`.
 *
 * @param through the way through a proxy, where there is one
 * @returns gives it up
 */
export function openAllowed(
  to: RequestOptions,
  through: Socket | undefined,
  options: AllowedOptions,
  done: (error: EdgeSyncError | undefined, socket: TLSSocket | undefined) => void,
): () => void {
  const { secureContext, timeoutMs, unavailable } = options;
  const host = to.servername || to.host || "";
  const socket = connect({
    ...(to as object),
    ...(through === undefined ? {} : { socket: through }),
    secureContext,
    rejectUnauthorized: false,
  });
  let over = false;
  const end = (error: EdgeSyncError | undefined): void => {
    if (over) return;
    over = true;
    clearTimeout(timer);
    socket.removeListener("error", failed);
    if (error !== undefined) socket.destroy();
    done(error, error === undefined ? socket : undefined);
  };
  const problem = (code: ErrorCode, what: string, cause?: unknown): EdgeSyncError =>
    new EdgeSyncError(code, `https://${host}:${to.port ?? 443}: ${what}`, { cause });
  const failed = (cause: Error): void => end(problem(unavailable, cause.message, cause));
  const timer = setTimeout(
    () => end(problem(unavailable, `no answer for ${timeoutMs} ms`)),
    timeoutMs,
  );
  socket.once("error", failed);
  socket.once("close", () => end(problem(unavailable, "closed")));
  socket.once("secureConnect", () => {
    // The clock has been set meanwhile, or the certificate replaced.
    if (socket.authorized) return end(undefined);
    judge(socket, host, options).then(
      (offMs) => {
        if (over) return;
        // As Node says of a socket that it has judged itself.
        socket.authorized = true;
        options.used(host, offMs);
        end(undefined);
      },
      (cause: unknown) => {
        const what = cause instanceof Error ? cause.message : String(cause);
        end(problem("TLS_UNTRUSTED", what, cause));
      },
    );
  });
  return () => end(problem(unavailable, "closed"));
}

/** @throws EdgeSyncError TLS_UNTRUSTED */
async function judge(socket: TLSSocket, host: string, options: AllowedOptions): Promise<number> {
  const problem: unknown = socket.authorizationError;
  if (!OFF_CLOCK.has(problem)) throw new EdgeSyncError("TLS_UNTRUSTED", String(problem));
  const chain = presentedBy(socket);
  const roots = options.authorities ?? getCACertificates("default");
  // Loaded by those who need it: they are few.
  const { judgeChain } = await import("./chain.ts");
  const { allowanceMs, now } = options;
  return judgeChain(chain, roots, { host, now: now(), allowanceMs });
}

/** Certificates; more than anybody presents. */
const MAX_PRESENTED = 12;

/** The server's own first, DER. */
function presentedBy(socket: TLSSocket): readonly Uint8Array[] {
  const chain: Uint8Array[] = [];
  let certificate: X509Certificate | undefined = socket.getPeerX509Certificate();
  while (certificate !== undefined && chain.length < MAX_PRESENTED) {
    chain.push(certificate.raw);
    certificate = certificate.issuerCertificate;
  }
  return chain;
}
