/** The kinds of value that name a repository, its mirrors and the proxies in between. */
import { serverUrl } from "./values.ts";
import type { Value } from "./values.ts";

const HOST = String.raw`(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])(?::[1-9]\d{0,4})?`;
const COMPONENT = "[a-z0-9]+(?:(?:[._]|__|-{1,8})[a-z0-9]+)*";
const OCI = new RegExp(`^oci(\\+http)?://(${HOST})/(${COMPONENT}(?:/${COMPONENT})*)$`);
const LOOPBACK = /^(localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\])(:\d+)?$/;

/** Where a repository lies in an OCI registry. */
export interface OciAddress {
  /** `https://<registry>`, or `http://` to this machine only. */
  readonly origin: string;
  /** Host of the registry, with its port where one is given. */
  readonly registry: string;
  /** Name of the repository in the registry. */
  readonly name: string;
}

/** The parts of an `oci://` address; undefined when it is none, or one of a kind that is not allowed. */
export function parseOci(address: string): OciAddress | undefined {
  // A name may have 255 characters (OCI distribution specification 1.1), and so may a host.
  const [, plain, registry, name] = address.length > 520 ? [] : (OCI.exec(address) ?? []);
  if (registry === undefined || name === undefined || name.length > 255) return undefined;
  if (plain !== undefined && !LOOPBACK.test(registry)) return undefined;
  const origin = `${plain === undefined ? "https" : "http"}://${registry}`;
  return URL.canParse(origin) ? { origin, registry, name } : undefined;
}

/** Whether what is sent to an origin stays on this machine. */
export function isLoopback(url: URL): boolean {
  return LOOPBACK.test(url.host);
}

/** Whether an address names a registry and not a web server. */
export function isOci(address: string): boolean {
  return /^oci(\+http)?:/.test(address);
}

/** A repository behind a web server or in a registry. */
export const repositoryUrl: Value<string> = {
  allowed: "an https:// address without credentials, query or fragment, or oci://<registry>/<name>",
  parse: (input) => (isOci(input) ? parseOci(input) && input : serverUrl.parse(input)),
  format: (value) => value,
};

const MAX_MIRRORS = 8;

/** In the order in which they are tried. */
export const repositoryUrls: Value<readonly string[]> = {
  allowed: `a list, apart by commas or spaces, of at most ${MAX_MIRRORS} addresses: https:// without credentials, query or fragment, or oci://<registry>/<name>`,
  parse(input) {
    const entries = input.split(/[\s,]+/, MAX_MIRRORS + 2).filter((entry) => entry !== "");
    const urls = entries
      .map((entry) => repositoryUrl.parse(entry))
      .filter((url) => url !== undefined);
    const whole = urls.length === entries.length && new Set(urls).size === urls.length;
    return whole && urls.length >= 1 && urls.length <= MAX_MIRRORS ? urls : undefined;
  },
  format: (value) => value.join(","),
};

/** A proxy, with its credentials where it wants some. What is not allowed must not be shown: it may hold them. */
export const proxyUrl: Value<string> = {
  allowed:
    "http:// or https:// and a host, with user:password@ before it and a port behind it where needed",
  parse(input) {
    if (!/^https?:\/\/[^\s/?#\\]+\/?$/.test(input) || input.length > 2048) return undefined;
    return URL.canParse(input) ? input.replace(/\/$/, "") : undefined;
  },
  format: (value) => value,
};

/** What goes past the proxy; `sidecar/network/proxy.ts` says what an entry means. */
export const noProxy: Value<string> = {
  allowed:
    "a comma-separated list of hosts, .suffixes, IP addresses and networks such as 10.0.0.0/8, each with :port where needed, or *",
  parse: (input) => (/^[A-Za-z0-9._:,/*[\] -]{1,8192}$/.test(input) ? input : undefined),
  format: (value) => value,
};
