/** The HTTP clients of the sidecar: one for each set of certificates that repositories must chain to, one for Vault. */
import { readFileSync } from "node:fs";
import { EdgeSyncError } from "#core/errors.ts";
import type { Settings } from "#core/settings.ts";
import { openHttp } from "./network/http.ts";
import type { Http, HttpOptions } from "./network/http.ts";

/** Milliseconds without a byte. A stalled mobile link comes back within a minute or not at all; Vault's answers are short. */
const ORIGIN_IDLE_MS = 60_000;
const VAULT_IDLE_MS = 30_000;

export interface Clients {
  /** Of a payload: payloads behind the same authorities share their connections. */
  repository(settings: Pick<Settings, "repositoryCaFile">): Http;
  readonly vault: Http;
  close(): void;
}

/** @throws EdgeSyncError CONFIG_INVALID when a file of certificates cannot be read or used */
export function openClients(settings: Settings, proxies: HttpOptions["proxies"]): Clients {
  const vault = open("VAULT_UNAVAILABLE", VAULT_IDLE_MS, "vault-ca-file", settings.vaultCaFile);
  const repositories = new Map<string | undefined, Http>();
  const repository: Clients["repository"] = ({ repositoryCaFile: path }) => {
    const more = proxies === undefined ? {} : { proxies };
    const http =
      repositories.get(path) ??
      open("ORIGIN_UNAVAILABLE", ORIGIN_IDLE_MS, "repository-ca-file", path, more);
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

function open(
  unavailable: HttpOptions["unavailable"],
  idleTimeoutMs: number,
  setting: "repository-ca-file" | "vault-ca-file",
  path: string | undefined,
  more: Pick<HttpOptions, "proxies"> = {},
): Http {
  const options = { ...more, unavailable, idleTimeoutMs };
  if (path === undefined) return openHttp(options);
  try {
    return openHttp({ ...options, ca: readFileSync(path, "utf8") });
  } catch (cause) {
    throw new EdgeSyncError(
      "CONFIG_INVALID",
      `${setting} is ${path}; expected a file of PEM certificates`,
      { cause },
    );
  }
}
