/** AppRole of the development Vault: a role_id that is read, and secret_ids that are made, used up and destroyed. */
import { randomUUID } from "node:crypto";
import type { AuthDeps, AuthMethod } from "./auth.ts";
import { NO_CONTENT, absent, answer, flag, invalid, needed, text } from "./exchange.ts";
import type { Fields } from "./exchange.ts";
import { openRoles, policiesOf, termsOf } from "./roles.ts";
import { authOf } from "./tokens.ts";

interface SecretId {
  readonly role: string;
  /** Logins that are left; 0 for any number. */
  uses: number;
}

export function approleMethod(deps: AuthDeps): AuthMethod {
  const roles = openRoles("role");
  /** Names of roles by their role_id. */
  const ids = new Map<string, string>();
  const secrets = new Map<string, SecretId>();

  const idOf = (name: string): string => {
    const known = [...ids].find(([, role]) => role === name)?.[0];
    const id = known ?? randomUUID();
    ids.set(id, name);
    return id;
  };
  const use = (name: string, role: Fields, fields: Fields): void => {
    if (!flag(role, "bind_secret_id", true)) return;
    const id = needed(fields, "secret_id");
    const secret = secrets.get(id);
    if (secret?.role !== name) throw invalid("invalid role or secret ID");
    if (secret.uses === 1) secrets.delete(id);
    else if (secret.uses > 1) secret.uses -= 1;
  };

  return {
    type: "approle",
    async login({ fields }) {
      const name = ids.get(needed(fields, "role_id"));
      const role = name === undefined ? undefined : roles.get(name);
      if (name === undefined || role === undefined) throw invalid("invalid role or secret ID");
      use(name, role, fields);
      const token = deps.tokens.issue({
        policies: policiesOf(role),
        path: `${deps.mount}login`,
        metadata: { role_name: name },
        displayName: "approle",
        terms: () => termsOf(roles.get(name) ?? role),
      });
      return answer({ auth: authOf(token, deps.now()) });
    },
    handle(call) {
      const [, name = "", what = ""] = /^role\/([\w.-]+)\/(.+)$/.exec(call.path) ?? [];
      const role = roles.get(name);
      if (what === "") return roles.handle(call);
      if (role === undefined) throw absent();
      switch (`${call.operation} ${what}`) {
        case "read role-id":
          return answer({ data: { role_id: idOf(name) } });
        case "write secret-id": {
          const id = randomUUID();
          const uses = Number(role["secret_id_num_uses"] ?? 0);
          secrets.set(id, { role: name, uses });
          const about = { secret_id_accessor: randomUUID(), secret_id_num_uses: uses };
          return answer({ data: { secret_id: id, ...about, secret_id_ttl: 0 } });
        }
        case "write secret-id/destroy":
          secrets.delete(text(call.fields, "secret_id") ?? "");
          return NO_CONTENT;
        default:
          throw absent();
      }
    },
  };
}
