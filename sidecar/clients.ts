/** The HTTP clients of the sidecar: one for each set of certificates that repositories must chain to, one for Vault. */
import { readFileSync } from "node:fs";
import type { Clock } from "#core/clock.ts";
import { EdgeSyncError } from "#core/errors.ts";
import type { Settings } from "#core/settings.ts";
import type { Log, SidecarMetrics } from "#core/telemetry.ts";
import { openHttp } from "./network/http.ts";
import type { Http, HttpOptions } from "./network/http.ts";
import { openIdentified } from "./network/identified.ts";
import type { OffClock } from "./network/off-clock.ts";
import type { VaultHttp } from "./secrets/login.ts";

/** Milliseconds without a byte. A stalled mobile link comes back within a minute or not at all; Vault's answers are short. */
const ORIGIN_IDLE_MS = 60_000;
const VAULT_IDLE_MS = 30_000;

export type ServerKind = "vault" | "repository";

/** A certificate that was accepted although it is out of its time by this node's clock. */
export interface SkewView {
  readonly server: ServerKind;
  /** From then to the time at which it is valid; negative when it has expired. */
  readonly seconds: number;
  /** RFC 3339. */
  readonly at: string;
}

export interface ClientDeps {
  readonly clock: Pick<Clock, "now" | "monotonic">;
  readonly log: Log;
  readonly metrics: SidecarMetrics;
}

export interface Clients {
  /** Of a payload: payloads behind the same authorities share their connections. */
  repository(settings: Pick<Settings, "repositoryCaFile">): Http;
  readonly vault: VaultHttp;
  /** The last certificate of each kind of server that was accepted for tls-clock-skew only. */
  skews(): readonly SkewView[];
  close(): void;
}

/**
 * @param deps without them no clock may be off
 * @throws EdgeSyncError CONFIG_INVALID when a file of certificates cannot be read or used
 */
export function openClients(
  settings: Settings,
  proxies: HttpOptions["proxies"],
  deps: ClientDeps | undefined,
): Clients {
  const skews = new Map<ServerKind, SkewView>();
  const clockFor = (server: ServerKind): Pick<HttpOptions, "offClock"> =>
    deps === undefined
      ? {}
      : {
          offClock: offClock(settings.tlsClockSkew, server, deps, (view) =>
            skews.set(server, view),
          ),
        };
  const vault = openVaultClient(settings, { proxies, ...clockFor("vault") });
  const repositories = new Map<string | undefined, Http>();
  const repository: Clients["repository"] = ({ repositoryCaFile: path }) => {
    const more = proxies === undefined ? {} : { proxies };
    const known = repositories.get(path);
    if (known !== undefined) return known;
    const http = withAuthorities("repository-ca-file", path, (ca) =>
      openHttp({
        ...more,
        ...ca,
        unavailable: "ORIGIN_UNAVAILABLE",
        idleTimeoutMs: ORIGIN_IDLE_MS,
        ...clockFor("repository"),
      }),
    );
    repositories.set(path, http);
    return http;
  };
  // Now, so that a bad file is told of before anything runs.
  for (const { own } of [{ own: settings }, ...settings.payloads])
    repository({ repositoryCaFile: own.repositoryCaFile ?? settings.repositoryCaFile });
  return {
    repository,
    vault,
    skews: () => [...skews.values()],
    close() {
      for (const http of repositories.values()) http.close();
      vault.close();
    },
  };
}

/** Milliseconds between two log lines about a host; there may be a connection every few seconds. */
const SAY_AGAIN_MS = 3_600_000;

function offClock(
  allowanceMs: number,
  server: ServerKind,
  { clock, log, metrics }: ClientDeps,
  note: (view: SkewView) => void,
): OffClock {
  const said = new Map<string, number>();
  return {
    allowanceMs,
    now: () => clock.now(),
    used(host, offMs) {
      const seconds = Math.round(offMs / 1_000);
      metrics.add("edgesync_sidecar_clock_skew_accepted_total", { server });
      metrics.set("edgesync_sidecar_clock_skew_seconds", { server }, seconds);
      note({ server, seconds, at: new Date(clock.now()).toISOString() });
      const now = clock.monotonic();
      if (now - (said.get(host) ?? Number.NEGATIVE_INFINITY) < SAY_AGAIN_MS) return;
      said.set(host, now);
      const period = seconds < 0 ? "expired" : "not valid yet";
      log.warn(
        { address: host, detail: `${period}, by ${Math.abs(seconds)} s` },
        "a certificate is out of its time by this node's clock, and accepted within tls-clock-skew",
      );
    },
  };
}

function openVaultClient(
  settings: Settings,
  { proxies, ...more }: Pick<HttpOptions, "offClock"> & { proxies: HttpOptions["proxies"] },
): VaultHttp {
  const { vaultCaFile, vaultTlsDir, vaultServerName: serverName, vaultProxy } = settings;
  const options = {
    ...more,
    unavailable: "VAULT_UNAVAILABLE",
    idleTimeoutMs: VAULT_IDLE_MS,
    ...(proxies !== undefined && vaultProxy === "environment" ? { proxies } : {}),
    ...(serverName === undefined ? {} : { serverName }),
  } as const;
  return withAuthorities("vault-ca-file", vaultCaFile, (ca) => {
    const all = { ...options, ...ca };
    // Opened now in any case: authorities that cannot be used are told of before anything runs.
    const http = openHttp(all);
    return vaultTlsDir === undefined ? http : openIdentified(all, vaultTlsDir);
  });
}

function withAuthorities<T>(
  setting: "repository-ca-file" | "vault-ca-file",
  path: string | undefined,
  open: (ca: { readonly ca?: string }) => T,
): T {
  if (path === undefined) return open({});
  try {
    return open({ ca: readFileSync(path, "utf8") });
  } catch (cause) {
    throw new EdgeSyncError(
      "CONFIG_INVALID",
      `${setting} is ${path}; expected a file of PEM certificates`,
      { cause },
    );
  }
}
