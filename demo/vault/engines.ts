/** The secrets engines of the development Vault: KV in both versions, and credentials with leases for a message broker. */
import { randomUUID } from "node:crypto";
import { request } from "node:http";
import { NO_CONTENT, Refusal, absent, answer, durationMs, invalid, isRecord } from "./exchange.ts";
import { needed, record, text } from "./exchange.ts";
import type { Answer, Call, Fields } from "./exchange.ts";
import { pki } from "./pki.ts";
import { secondsLeft } from "./tokens.ts";
import type { Terms, Token, TokenStore } from "./tokens.ts";

/** One mounted engine. Paths are those below the mount. */
export interface Engine {
  readonly type: string;
  readonly options: Readonly<Record<string, string>>;
  /** Decides between the capabilities create and update. */
  exists(path: string): boolean;
  handle(call: Call, token: Token): Promise<Answer>;
}

export interface EngineDeps {
  readonly tokens: TokenStore;
  readonly now: () => number;
  /** With a slash at the end. */
  readonly mount: string;
}

export function engine(type: string, options: Fields, deps: EngineDeps): Engine {
  if (type === "kv") return text(options, "version") === "2" ? versionedKv(deps) : plainKv(deps);
  if (type === "kv-v2") return versionedKv(deps);
  if (type === "pki") return pki(deps);
  if (type === "rabbitmq") return rabbitmq(deps);
  throw invalid(`plugin not found in the catalog: ${type}`);
}

/** Seconds that the real KV version 1 states as a hint for the next read; there is no lease. */
const KV_HINT_SECONDS = 2_764_800;

function plainKv({ mount }: EngineDeps): Engine {
  const entries = new Map<string, Fields>();
  return {
    type: "kv",
    options: { version: "1" },
    exists: (path) => entries.has(path),
    async handle({ operation, path, fields }) {
      const entry = entries.get(path);
      switch (operation) {
        case "write":
          entries.set(path, fields);
          return NO_CONTENT;
        case "delete":
          entries.delete(path);
          return NO_CONTENT;
        case "list":
          return listing([...entries.keys()], path);
        case "read":
          if (entry === undefined) throw absent();
          return answer({
            data: entry,
            lease: { id: "", renewable: false, duration: KV_HINT_SECONDS },
          });
        default:
          throw new Refusal(405, [`unsupported operation on ${mount}`]);
      }
    },
  };
}

interface Version {
  readonly data: Fields;
  readonly createdAt: number;
  deletedAt?: number | undefined;
  destroyed: boolean;
}

function versionedKv({ now }: EngineDeps): Engine {
  const entries = new Map<string, Version[]>();
  const metadata = (versions: readonly Version[], number: number): Fields => {
    const version = versions[number - 1];
    const time = (at: number | undefined): string => (at === undefined ? "" : stamp(at));
    return {
      created_time: time(version?.createdAt),
      custom_metadata: null,
      deletion_time: time(version?.deletedAt),
      destroyed: version?.destroyed ?? false,
      version: number,
    };
  };
  const read = (versions: readonly Version[] | undefined, wanted: number): Answer => {
    const number = wanted === 0 ? (versions?.length ?? 0) : wanted;
    const version = versions?.[number - 1];
    if (versions === undefined || version === undefined) throw absent();
    const about = metadata(versions, number);
    if (version.deletedAt === undefined && !version.destroyed)
      return answer({ data: { data: version.data, metadata: about } });
    const gone = answer({ data: { data: null, metadata: about } });
    throw new Refusal(404, [], gone.body ?? {});
  };
  return {
    type: "kv",
    options: { version: "2" },
    exists: (path) => entries.has(path.replace(/^data\//, "")),
    async handle({ operation, path, fields }) {
      const [, kind, key = ""] = /^([a-z]+)\/?(.*)$/.exec(path) ?? [];
      const versions = entries.get(key);
      const numbers = Array.isArray(fields["versions"]) ? fields["versions"].map(Number) : [];
      const chosen = (versions ?? []).filter((_, index) => numbers.includes(index + 1));
      switch (`${operation} ${kind}`) {
        case "read data":
          return read(versions, Number(fields["version"] ?? 0));
        case "write data": {
          if (!isRecord(fields["data"])) throw invalid("no data provided");
          const version = { data: fields["data"], createdAt: now(), destroyed: false };
          const all = [...(versions ?? []), version];
          entries.set(key, all);
          return answer({ data: metadata(all, all.length) });
        }
        case "delete data":
          for (const version of versions?.slice(-1) ?? []) version.deletedAt = now();
          return NO_CONTENT;
        case "write delete":
          for (const version of chosen) version.deletedAt = now();
          return NO_CONTENT;
        case "write undelete":
          for (const version of chosen) version.deletedAt = undefined;
          return NO_CONTENT;
        case "write destroy":
          for (const version of chosen) version.destroyed = true;
          return NO_CONTENT;
        case "delete metadata":
          entries.delete(key);
          return NO_CONTENT;
        case "list metadata":
          return listing([...entries.keys()], key);
        case "read metadata": {
          if (versions === undefined) throw absent();
          const described = versions.map((_, index) => [index + 1, metadata(versions, index + 1)]);
          return answer({
            data: {
              current_version: versions.length,
              versions: Object.fromEntries(described) as Fields,
            },
          });
        }
        default:
          throw new Refusal(405, ["unsupported operation"]);
      }
    },
  };
}

function listing(keys: readonly string[], folder: string): Answer {
  const prefix = folder === "" || folder.endsWith("/") ? folder : `${folder}/`;
  const names = keys
    .filter((key) => key.startsWith(prefix))
    .map((key) => key.slice(prefix.length).replace(/\/.*$/, "/"));
  if (names.length === 0) throw absent();
  return answer({ data: { keys: [...new Set(names)].toSorted() } });
}

/** RFC 3339 with nanoseconds, as Go writes it. */
function stamp(at: number): string {
  return new Date(at).toISOString().replace("Z", "000000Z");
}

/**
 * Vault's own rabbitmq engine: each read of `creds/<role>` makes a user at the broker's management API and a lease for it, whose
 * end deletes the user.
 */
function rabbitmq({ tokens, now, mount }: EngineDeps): Engine {
  let connection: Fields = {};
  let terms: Terms = { ttlMs: 0, maxTtlMs: 0 };
  const roles = new Map<string, Fields>();
  const issue = async (role: Fields, name: string, token: Token): Promise<Answer> => {
    const username = `${token.displayName}-${randomUUID()}`;
    const password = randomUUID();
    const user = `/api/users/${encodeURIComponent(username)}`;
    await callBroker(connection, "PUT", user, { password, tags: text(role, "tags") ?? "" });
    for (const [vhost, permissions] of Object.entries(vhostsOf(role))) {
      const path = `/api/permissions/${encodeURIComponent(vhost)}/${encodeURIComponent(username)}`;
      await callBroker(connection, "PUT", path, permissions);
    }
    const lease = tokens.lease(
      token,
      `${mount}creds/${name}`,
      () => terms,
      () => callBroker(connection, "DELETE", user),
    );
    return answer({
      data: { username, password },
      lease: { id: lease.id, renewable: true, duration: secondsLeft(lease, now()) },
    });
  };
  return {
    type: "rabbitmq",
    options: {},
    exists: () => true,
    async handle({ operation, path, fields }, token) {
      const [, kind, name = ""] = /^(config|roles|creds)\/([\w.-]+)$/.exec(path) ?? [];
      switch (`${operation} ${kind}`) {
        case "write config":
          if (name === "lease")
            terms = { ttlMs: durationMs(fields, "ttl"), maxTtlMs: durationMs(fields, "max_ttl") };
          else {
            for (const key of ["connection_uri", "username", "password"]) needed(fields, key);
            connection = fields;
          }
          return NO_CONTENT;
        case "write roles":
          roles.set(name, fields);
          return NO_CONTENT;
        case "delete roles":
          roles.delete(name);
          return NO_CONTENT;
        case "read creds": {
          const role = roles.get(name);
          if (role === undefined) throw invalid(`unknown role: ${name}`);
          return issue(role, name, token);
        }
        default:
          throw new Refusal(405, ["unsupported operation"]);
      }
    },
  };
}

/** The role's permissions by virtual host, which Vault takes as JSON in a text. */
function vhostsOf(role: Fields): Readonly<Record<string, Fields>> {
  const source = text(role, "vhosts");
  const parsed: unknown = source === undefined ? {} : JSON.parse(source);
  const entries = Object.entries(isRecord(parsed) ? parsed : {});
  return Object.fromEntries(entries.map(([vhost, p]) => [vhost, record({ p }, "p")]));
}

/** @throws Refusal 500 when the broker does not do it */
async function callBroker(
  connection: Fields,
  method: "PUT" | "DELETE",
  path: string,
  body?: Fields,
): Promise<void> {
  const status = await new Promise<number>((resolve, reject) => {
    const outgoing = request(new URL(path, text(connection, "connection_uri")), {
      method,
      auth: `${text(connection, "username")}:${text(connection, "password")}`,
      headers: { "content-type": "application/json" },
      signal: AbortSignal.timeout(10_000),
    });
    outgoing.once("error", reject);
    outgoing.once("response", (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    outgoing.end(body === undefined ? undefined : JSON.stringify(body));
  }).catch(() => 0);
  if (status < 200 || status > 299) throw new Refusal(500, ["failed to reach the broker"]);
}
