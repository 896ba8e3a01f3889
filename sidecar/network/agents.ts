/** Where connections come from: straight or through a proxy, and over TLS strictly, or within the allowance for a clock that is off. */
import { X509Certificate } from "node:crypto";
import { Agent as PlainAgent } from "node:http";
import { Agent as TlsAgent } from "node:https";
import type { RequestOptions } from "node:https";
import type { Socket } from "node:net";
import { createSecureContext } from "node:tls";
import type { SecureContext } from "node:tls";
import { EdgeSyncError } from "#core/errors.ts";
import type { HttpOptions, Identity } from "./http.ts";
import { openAllowed } from "./off-clock.ts";
import type { OffClock } from "./off-clock.ts";
import type { Proxy } from "./proxy.ts";
import { openTunnel } from "./tunnel.ts";

/** Enough to keep a link with a long round trip busy; each costs the sidecar a TLS session's memory. */
export const MAX_SOCKETS = 4;

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

export interface Agents {
  readonly plain: PlainAgent;
  readonly tls: TlsAgent;
  /** Whether a clock may be off at all. */
  readonly isAllowed: boolean;
  /**
   * For servers over TLS. Requests must bring their signal along as `abortedBy`.
   *
   * @param isOff whether the server's certificate is out of its time by this node's clock, and may be
   */
  of(proxy: Proxy | undefined, isOff: boolean): TlsAgent;
  close(): void;
}

/** @throws EdgeSyncError CONFIG_INVALID when `ca` holds no certificate that can be read, or a key does not fit its certificate */
export function openAgents(options: HttpOptions): Agents {
  const pool = {
    keepAlive: true,
    maxSockets: MAX_SOCKETS,
    timeout: KEEP_ALIVE_MS,
    autoSelectFamilyAttemptTimeout: ADDRESS_ATTEMPT_MS,
  };
  const { ca, identity } = options;
  const authorities = ca === undefined ? undefined : authoritiesIn(ca);
  // Made once: reading the authorities for each connection costs milliseconds and megabytes.
  const secureContext = contextOf(authorities, identity);
  const plain = new PlainAgent(pool);
  const tls = new TlsAgent({ ...pool, secureContext });
  // What is shown to the server is not for a proxy on the way.
  const proxyContext = identity === undefined ? secureContext : contextOf(authorities, undefined);
  const ways = openWays(proxyContext, options);
  const tunnels = new TlsAgent({ ...pool, secureContext });
  const secure = tunnels.createConnection.bind(tunnels);
  // Without sessions: of a resumed one the chain would not be presented.
  const lenient = new TlsAgent({ ...pool, secureContext, maxCachedSessions: 0 });
  const { offClock, idleTimeoutMs: timeoutMs, unavailable } = options;

  // There is one proxy at most, because it depends on nothing but the scheme.
  const tunnelled = (proxy: Proxy): TlsAgent => {
    tunnels.createConnection = (to, connected): undefined => {
      ways.open(proxy, to, (error, socket) => {
        if (error !== undefined) connected?.(error, undefined as never);
        else connected?.(null, secure({ ...to, socket } as typeof to) as Socket);
      });
    };
    return tunnels;
  };
  const allowed = (proxy: Proxy | undefined, clock: OffClock): TlsAgent => {
    const all = { ...clock, secureContext, authorities, timeoutMs, unavailable };
    lenient.createConnection = (to, connected): undefined => {
      const done = (error: EdgeSyncError | undefined, socket: Socket | undefined): void =>
        connected?.(error ?? null, socket as Socket);
      const go = (through: Socket | undefined): void =>
        ways.track(to, (over) =>
          openAllowed(to, through, all, (error, socket) => {
            over();
            done(error, socket);
          }),
        );
      if (proxy === undefined) go(undefined);
      else
        ways.open(proxy, to, (error, through) =>
          error === undefined ? go(through) : done(error, undefined),
        );
    };
    return lenient;
  };

  return {
    plain,
    tls,
    isAllowed: offClock !== undefined && offClock.allowanceMs > 0,
    of(proxy, isOff) {
      if (isOff && offClock !== undefined) return allowed(proxy, offClock);
      return proxy === undefined ? tls : tunnelled(proxy);
    },
    close() {
      ways.close();
      for (const agent of [plain, tls, tunnels, lenient]) agent.destroy();
    },
  };
}

/** What is being connected, so that it can be given up: by the request that it is for, and by the end of the client. */
function openWays(secureContext: SecureContext, options: HttpOptions) {
  const underWay = new Set<() => void>();
  const { idleTimeoutMs: timeoutMs, unavailable } = options;
  const way = { secureContext, timeoutMs, unavailable, addressAttemptMs: ADDRESS_ATTEMPT_MS };

  /** @param start begins; it is told how to say that it is over, and returns what gives it up */
  const track = (to: RequestOptions, start: (over: () => void) => () => void): void => {
    const { abortedBy: signal } = to as { readonly abortedBy?: AbortSignal };
    const giveUp = start(() => {
      underWay.delete(giveUp);
      signal?.removeEventListener("abort", giveUp);
    });
    underWay.add(giveUp);
    signal?.addEventListener("abort", giveUp, { once: true });
  };

  return {
    track,
    /** A way through a proxy. */
    open(
      proxy: Proxy,
      to: RequestOptions,
      done: (error: EdgeSyncError | undefined, socket: Socket | undefined) => void,
    ): void {
      const { host, port } = to;
      const target = `${host?.includes(":") === true ? `[${host}]` : host}:${port ?? 443}`;
      track(to, (over) =>
        openTunnel(proxy, target, way, (error, socket) => {
          over();
          done(error, socket);
        }),
      );
    },
    close(): void {
      for (const giveUp of underWay) giveUp();
    },
  };
}

function contextOf(
  authorities: readonly string[] | undefined,
  identity: Identity | undefined,
): SecureContext {
  try {
    return createSecureContext({
      minVersion: "TLSv1.2",
      ...(authorities === undefined ? {} : { ca: [...authorities] }),
      ...identity,
    });
  } catch (cause) {
    throw new EdgeSyncError("CONFIG_INVALID", "the certificate or its key cannot be used", {
      cause,
    });
  }
}

/** Each by itself: Node skips what it cannot read, and then trusts nobody without saying why. */
function authoritiesIn(ca: string): readonly string[] {
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
  return certificates;
}
