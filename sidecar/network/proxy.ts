/**
 * The proxies of an environment, by the variables that all programs know, and what goes past them. Names are not resolved here: behind
 * a proxy there may be nobody who could.
 */
import { BlockList, isIP } from "node:net";
import { proxyUrl } from "#core/addresses.ts";
import { EdgeSyncError } from "#core/errors.ts";

export interface Proxy {
  readonly secure: boolean;
  readonly host: string;
  readonly port: number;
  /** For `proxy-authorization`; a secret. */
  readonly authorization: string | undefined;
}

export interface Proxies {
  /** The proxy through which an address is reached; undefined when it is reached directly. */
  of(url: URL): Proxy | undefined;
}

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * `HTTPS_PROXY` for https:// addresses, `HTTP_PROXY` for http://; in lower case they come first, as everywhere. `NO_PROXY` is a list,
 * apart by commas or spaces, of
 *
 * - `*`: everything goes past the proxies;
 * - `name.example`: that host, and the hosts below it; `.name.example` or `*.name.example`: only the hosts below it;
 * - `192.0.2.7`, `2001:db8::7`: that address; `10.0.0.0/8`, `fd00::/8`: the addresses of that network, where the host is an address;
 * - any of them with `:<port>` behind it: on that port only. An IPv6 address is then in brackets.
 *
 * @throws EdgeSyncError CONFIG_INVALID, which does not show a proxy's address because it may hold credentials
 */
export function openProxies(env: Environment): Proxies {
  const https = readProxy("HTTPS_PROXY", env);
  const http = readProxy("HTTP_PROXY", env);
  const direct = readNoProxy(valueOf("NO_PROXY", env) ?? "");
  return {
    of(url) {
      const proxy = url.protocol === "https:" ? https : http;
      return proxy === undefined || direct.some((matches) => matches(url)) ? undefined : proxy;
    },
  };
}

function valueOf(name: string, env: Environment): string | undefined {
  return env[name.toLowerCase()] || env[name] || undefined;
}

function readProxy(name: string, env: Environment): Proxy | undefined {
  const text = valueOf(name, env)?.trim();
  if (text === undefined) return undefined;
  // Without a scheme it is the address of a plain one, as curl takes it.
  const address = proxyUrl.parse(text.includes("://") ? text : `http://${text}`);
  if (address === undefined)
    throw new EdgeSyncError(
      "CONFIG_INVALID",
      `${name} is not allowed as it is; allowed: ${proxyUrl.allowed}`,
    );
  const url = new URL(address);
  const secure = url.protocol === "https:";
  const { username, password } = url;
  return {
    secure,
    host: bare(url.hostname),
    port: Number(url.port) || (secure ? 443 : 80),
    authorization:
      username === "" ? undefined : basic(decode(username, name), decode(password, name)),
  };
}

function decode(text: string, name: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    // A stray percent sign. The cause would show what must not be shown.
    throw new EdgeSyncError(
      "CONFIG_INVALID",
      `${name} has credentials that are not percent-encoded`,
    );
  }
}

/** The value of an authorization header (RFC 7617). */
export function basic(username: string, password: string): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;
}

function bare(hostname: string): string {
  return hostname
    .replace(/^\[(.*)\]$/, "$1")
    .replace(/\.$/, "")
    .toLowerCase();
}

type Matches = (url: URL) => boolean;

function readNoProxy(list: string): readonly Matches[] {
  return list
    .split(/[\s,]+/)
    .filter((entry) => entry !== "")
    .map(readEntry);
}

function readEntry(entry: string): Matches {
  if (entry === "*") return () => true;
  const { host, port } = split(entry);
  const matches = readHost(host.toLowerCase(), entry);
  return (url) => matches(bare(url.hostname)) && (port === undefined || portOf(url) === port);
}

function split(entry: string): { readonly host: string; readonly port: number | undefined } {
  const bracketed = /^\[([0-9a-f:.]+)\](\/\d{1,3})?(?::(\d{1,5}))?$/i.exec(entry);
  if (bracketed !== null) {
    const [, address = "", prefix = "", port] = bracketed;
    return { host: address + prefix, port: port === undefined ? undefined : Number(port) };
  }
  // Without brackets the last group of an IPv6 address is no port.
  if (isIP(entry.split("/")[0] ?? "") === 6) return { host: entry, port: undefined };
  const [, host = entry, port] = /^(.*):(\d{1,5})$/.exec(entry) ?? [];
  return { host, port: port === undefined ? undefined : Number(port) };
}

function portOf({ port, protocol }: URL): number {
  return Number(port) || (protocol === "https:" ? 443 : 80);
}

function readHost(text: string, entry: string): (host: string) => boolean {
  const [address = "", prefix] = text.split("/");
  const version = isIP(address);
  if (version === 0) {
    if (prefix !== undefined || !/^(\*?\.)?[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?\.?$/.test(text))
      throw wrong(entry);
    const name = bare(text.replace(/^\*?\./, ""));
    const below = /^\*?\./.test(text);
    return (host) => (!below && host === name) || host.endsWith(`.${name}`);
  }
  const family = version === 4 ? "ipv4" : "ipv6";
  const most = version === 4 ? 32 : 128;
  const bits = prefix === undefined ? most : /^\d{1,3}$/.test(prefix) ? Number(prefix) : Infinity;
  if (bits > most) throw wrong(entry);
  const network = new BlockList();
  network.addSubnet(address, bits, family);
  return (host) => isIP(host) === version && network.check(host, family);
}

function wrong(entry: string): EdgeSyncError {
  const shown = JSON.stringify(entry.slice(0, 80));
  return new EdgeSyncError(
    "CONFIG_INVALID",
    `NO_PROXY has the entry ${shown}; allowed: a host, .suffix, an IP address or network, each with :port where needed, or *`,
  );
}
