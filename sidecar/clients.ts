/** The HTTP clients of the sidecar: one for each set of certificates that repositories must chain to, one for Vault. */
import { readFileSync } from "node:fs";
import { EdgeSyncError } from "#core/errors.ts";
import type { Settings } from "#core/settings.ts";
import { openHttp } from "./network/http.ts";
import type { Http, HttpOptions } from "./network/http.ts";
import { openIdentified } from "./network/identified.ts";
import type { VaultHttp } from "./secrets/login.ts";

/** Milliseconds without a byte. A stalled mobile link comes back within a minute or not at all; Vault's answers are short. */
const ORIGIN_IDLE_MS = 60_000;
const VAULT_IDLE_MS = 30_000;

export interface Clients {
  /** Of a payload: payloads behind the same authorities share their connections. */
  repository(settings: Pick<Settings, "repositoryCaFile">): Http;
  readonly vault: VaultHttp;
  close(): void;
}

/** @throws EdgeSyncError CONFIG_INVALID when a file of certificates cannot be read or used */
export function openClients(settings: Settings, proxies: HttpOptions["proxies"]): Clients {
  const vault = openVaultClient(settings, proxies);
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
    close() {
      for (const http of repositories.values()) http.close();
      vault.close();
    },
  };
}

function openVaultClient(settings: Settings, proxies: HttpOptions["proxies"]): VaultHttp {
  const { vaultCaFile, vaultTlsDir, vaultServerName: serverName, vaultProxy } = settings;
  const options = {
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
