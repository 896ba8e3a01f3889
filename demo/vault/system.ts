/** `sys/` and `auth/token/` of the development Vault: mounts, policies, leases and a token's own affairs. */
import { authMethod } from "./auth.ts";
import type { AuthMethod } from "./auth.ts";
import { engine } from "./engines.ts";
import type { Engine } from "./engines.ts";
import {
  NO_CONTENT,
  Refusal,
  absent,
  answer,
  denied,
  durationMs,
  flag,
  invalid,
} from "./exchange.ts";
import { list, needed, record, text } from "./exchange.ts";
import type { Answer, Call, Fields } from "./exchange.ts";
import { DEFAULT_POLICY, allows, parsePolicy } from "./policy.ts";
import type { Capability, Policy } from "./policy.ts";
import { authOf, secondsLeft } from "./tokens.ts";
import type { Token, TokenStore } from "./tokens.ts";

/** What is mounted where, each key with a slash at its end. */
export interface System {
  readonly tokens: TokenStore;
  readonly now: () => number;
  readonly engines: Map<string, Engine>;
  readonly methods: Map<string, AuthMethod>;
  readonly policies: Map<string, { readonly source: string; readonly policy: Policy }>;
}

export function openSystem(tokens: TokenStore, now: () => number): System {
  const system: System = {
    tokens,
    now,
    engines: new Map(),
    methods: new Map(),
    policies: new Map([["default", { source: "", policy: DEFAULT_POLICY }]]),
  };
  // As on a real development server.
  system.engines.set("secret/", engine("kv-v2", {}, { tokens, now, mount: "secret/" }));
  return system;
}

/** @throws Refusal 403 when no policy of the token allows it */
export function authorize(system: System, token: Token, call: Call): void {
  if (token.policies.includes("root")) return;
  const policies = token.policies.map((name) => system.policies.get(name)?.policy ?? []);
  if (!allows(policies, call.path, wantedFor(system, call))) throw denied();
}

function wantedFor(system: System, { operation, path }: Call): readonly Capability[] {
  if (operation !== "write") return [operation];
  const [mount, mounted] = mountOf(system.engines, path) ?? [];
  if (mount === undefined || mounted === undefined) return ["update"];
  return mounted.exists(path.slice(mount.length)) ? ["update"] : ["create"];
}

/** The mount with the longest path that leads to `path`. */
export function mountOf<T>(mounts: ReadonlyMap<string, T>, path: string): [string, T] | undefined {
  return [...mounts]
    .filter(([mount]) => `${path}/`.startsWith(mount))
    .toSorted(([a], [b]) => a.length - b.length)
    .at(-1);
}

export async function handleSystem(system: System, call: Call): Promise<Answer> {
  const [, area = "", name = ""] =
    /^sys\/(mounts|auth|policies\/acl|leases)\/?(.*)$/.exec(call.path) ?? [];
  switch (area) {
    case "mounts":
      return handleMounts(system, call, name);
    case "auth":
      return handleMethods(system, call, name);
    case "policies/acl":
      return handlePolicies(system, call, name);
    case "leases":
      return handleLeases(system, call, name);
    default:
      throw absent();
  }
}

async function handleMounts(system: System, call: Call, name: string): Promise<Answer> {
  const { engines, tokens, now } = system;
  if (call.operation === "read" && name === "")
    return answer({ data: described([...engines].map(([m, e]) => [m, e.type, e.options])) });
  const mount = `${name}/`;
  if (call.operation === "delete") {
    await tokens.revokeLeases(mount);
    engines.delete(mount);
    return NO_CONTENT;
  }
  if (call.operation !== "write" || name === "") throw absent();
  if (mountOf(engines, name) !== undefined) throw invalid(`path is already in use at ${mount}`);
  const options = record(call.fields, "options");
  engines.set(mount, engine(needed(call.fields, "type"), options, { tokens, now, mount }));
  return NO_CONTENT;
}

function handleMethods(system: System, call: Call, name: string): Answer {
  const { methods, tokens, now } = system;
  if (call.operation === "read" && name === "")
    return answer({ data: described([...methods].map(([m, a]) => [m, a.type, {}])) });
  const mount = `auth/${name}/`;
  if (call.operation === "delete") {
    methods.delete(mount);
    return NO_CONTENT;
  }
  if (call.operation !== "write" || name === "") throw absent();
  if (mountOf(methods, mount) !== undefined) throw invalid(`path is already in use at ${name}/`);
  methods.set(mount, authMethod(needed(call.fields, "type"), { tokens, now, mount }));
  return NO_CONTENT;
}

function described(rows: readonly (readonly [string, string, Fields])[]): Fields {
  return Object.fromEntries(rows.map(([mount, type, options]) => [mount, { type, options }]));
}

function handlePolicies({ policies }: System, call: Call, name: string): Answer {
  if (call.operation === "write") {
    const source = needed(call.fields, "policy");
    policies.set(name, { source, policy: parsePolicy(source) });
    return NO_CONTENT;
  }
  if (call.operation === "delete") {
    policies.delete(name);
    return NO_CONTENT;
  }
  const found = policies.get(name);
  if (found === undefined) throw absent();
  return answer({ data: { name, policy: found.source } });
}

async function handleLeases({ tokens, now }: System, call: Call, name: string): Promise<Answer> {
  const [, verb, rest = ""] = /^(renew|revoke|lookup|revoke-prefix)\/?(.*)$/.exec(name) ?? [];
  if (call.operation !== "write" || verb === undefined) throw absent();
  if (verb === "revoke-prefix") {
    await tokens.revokeLeases(`${rest}/`);
    return NO_CONTENT;
  }
  const id = text(call.fields, "lease_id") ?? rest;
  const lease = tokens.findLease(id);
  if (verb === "revoke") {
    if (lease !== undefined) await tokens.revokeLease(lease);
    return NO_CONTENT;
  }
  if (lease === undefined) throw invalid(verb === "renew" ? "lease not found" : "invalid lease");
  if (verb === "renew") {
    tokens.renewLease(lease, durationMs(call.fields, "increment"));
    return answer({ lease: { id, renewable: true, duration: secondsLeft(lease, now()) } });
  }
  const stamp = (at: number): string => new Date(at).toISOString();
  return answer({
    data: {
      id,
      issue_time: stamp(lease.issuedAt),
      expire_time: stamp(lease.expiresAt),
      renewable: true,
      ttl: secondsLeft(lease, now()),
    },
  });
}

export async function handleToken(system: System, call: Call, token: Token): Promise<Answer> {
  const { tokens, now } = system;
  const byAccessor = (): Token => {
    const found = tokens.findByAccessor(needed(call.fields, "accessor"));
    if (found === undefined) throw invalid("invalid accessor");
    return found;
  };
  switch (`${call.operation} ${call.path.slice("auth/token/".length)}`) {
    case "read lookup-self":
      return answer({ data: describe(token, now()) });
    case "write lookup-accessor":
      return answer({ data: { ...describe(byAccessor(), now()), id: "" } });
    case "write renew-self":
      if (token.certificate !== undefined && call.certificate === undefined)
        throw invalid("no client certificate found");
      if (token.certificate !== undefined && call.certificate !== token.certificate)
        throw new Refusal(500, ["client identity during renewal not matching"]);
      tokens.renew(token, durationMs(call.fields, "increment"));
      return answer({ auth: authOf(token, now()) });
    case "write revoke-self":
      await tokens.revoke(token);
      return NO_CONTENT;
    case "write revoke-accessor":
      await tokens.revoke(byAccessor());
      return NO_CONTENT;
    case "write create": {
      const terms = {
        ttlMs: durationMs(call.fields, "ttl"),
        maxTtlMs: durationMs(call.fields, "explicit_max_ttl"),
      };
      const policies = list(call.fields, "policies");
      const made = tokens.issue({
        policies: flag(call.fields, "no_default_policy", false)
          ? policies
          : ["default", ...policies],
        path: "auth/token/create",
        renewable: flag(call.fields, "renewable", true),
        terms: () => terms,
      });
      return answer({ auth: authOf(made, now()) });
    }
    default:
      throw absent();
  }
}

function describe(token: Token, now: number): Fields {
  return {
    accessor: token.accessor,
    creation_time: Math.floor(token.issuedAt / 1_000),
    display_name: token.displayName,
    entity_id: "",
    expire_time: token.expiresAt === undefined ? null : new Date(token.expiresAt).toISOString(),
    explicit_max_ttl: 0,
    id: token.id,
    meta: token.metadata,
    num_uses: 0,
    orphan: true,
    path: token.path,
    policies: token.policies,
    renewable: token.renewable,
    ttl: secondsLeft(token, now),
    type: "service",
  };
}
