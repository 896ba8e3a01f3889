/** The roles of an auth method: what is written comes back, and says what a token may do and for how long. */
import { NO_CONTENT, absent, answer, durationMs, flag, list } from "./exchange.ts";
import type { Answer, Call, Fields } from "./exchange.ts";
import type { Terms } from "./tokens.ts";

export interface Roles {
  get(name: string): Fields | undefined;
  readonly all: ReadonlyMap<string, Fields>;
  /** `<folder>/<name>`, for who may. */
  handle(call: Call): Answer;
}

export function openRoles(folder: string): Roles {
  const roles = new Map<string, Fields>();
  return {
    get: (name) => roles.get(name),
    all: roles,
    handle(call) {
      const [, kind, name] = /^(\w+)\/([\w.-]+)$/.exec(call.path) ?? [];
      if (kind !== folder || name === undefined) throw absent();
      if (call.operation === "write") {
        termsOf(call.fields);
        roles.set(name, call.fields);
        return NO_CONTENT;
      }
      if (call.operation === "delete") {
        roles.delete(name);
        return NO_CONTENT;
      }
      const role = roles.get(name);
      if (role === undefined) throw absent();
      return answer({ data: role });
    },
  };
}

export function policiesOf(role: Fields): readonly string[] {
  const policies = list(role, "token_policies");
  return flag(role, "token_no_default_policy", false) ? policies : ["default", ...policies];
}

export function termsOf(role: Fields): Terms {
  return { ttlMs: durationMs(role, "token_ttl"), maxTtlMs: durationMs(role, "token_max_ttl") };
}
