/** The method `cert` of the development Vault: who shows a certificate of a role's authority when connecting gets a token, which is bound to it. */
import { X509Certificate } from "node:crypto";
import type { AuthDeps, AuthMethod } from "./auth.ts";
import { Refusal, answer, invalid, list, needed, text } from "./exchange.ts";
import type { Fields } from "./exchange.ts";
import { openRoles, policiesOf, termsOf } from "./roles.ts";
import { authOf } from "./tokens.ts";

export function certificateMethod(deps: AuthDeps): AuthMethod {
  const roles = openRoles("certs");
  return {
    type: "cert",
    async login({ fields, certificate: pem }) {
      if (pem === undefined) throw invalid("no client certificate found");
      const shown = new X509Certificate(pem);
      const asked = text(fields, "name");
      const found = [...roles.all].find(
        ([name, role]) => (asked ?? name) === name && fits(shown, role),
      );
      if (found === undefined)
        throw invalid("invalid certificate or no client certificate supplied");
      // As the real one has it, which finds the authority first.
      if (shown.validToDate.getTime() < deps.now() || shown.validFromDate.getTime() > deps.now())
        throw new Refusal(500, ["certificate has expired or is not yet valid"]);
      const [name, role] = found;
      const token = deps.tokens.issue({
        policies: policiesOf(role),
        path: `${deps.mount}login`,
        metadata: { cert_name: name },
        displayName: name,
        certificate: pem,
        terms: () => termsOf(roles.get(name) ?? role),
      });
      return answer({ auth: authOf(token, deps.now()) });
    },
    handle: (call) => roles.handle(call),
  };
}

function fits(shown: X509Certificate, role: Fields): boolean {
  const authority = new X509Certificate(needed(role, "certificate"));
  const names = list(role, "allowed_common_names");
  const name = /^CN=(.*)$/m.exec(shown.subject)?.[1] ?? "";
  return (
    shown.checkIssued(authority) &&
    shown.verify(authority.publicKey) &&
    (names.length === 0 || names.includes(name))
  );
}
