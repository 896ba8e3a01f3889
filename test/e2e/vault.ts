/** Vault as an administrator sets it up for the pods of the test, in mounts and with names of this run only. */
import { createPublicKey } from "node:crypto";
import type { Api } from "./api.ts";
import type { Site } from "./site.ts";
import type { Settings } from "./settings.ts";

/** Audience of the sidecars' tokens. */
const AUDIENCE = "edgesync-e2e";

export interface VaultSetup {
  /** What issues credentials: accounts of a broker, with leases, or certificates. */
  readonly engine: "rabbitmq" | "pki";
  readonly kind: string;
  /** Annotations of a login, without the prefix. */
  readonly login: Readonly<Record<string, string>>;
  /** Annotations of secrets. */
  readonly config: string;
  readonly account: string;
  readonly brief: string;
  /** Lets pods log in, which they cannot before. */
  allow(): Promise<void>;
  changeConfig(greeting: string): Promise<void>;
  /** Takes away what was mounted. */
  clean(): Promise<void>;
}

/** Seconds: a credential that outlasts the run, and one that has to be replaced within it. */
const LONG = { ttl: 3_600, max: 7_200 };
const BRIEF = { ttl: 20, max: 40 };
/** A certificate is as good as a lease until its end, but is never renewed. */
const BRIEF_CERTIFICATE = 60;

export async function setUpVault(
  api: Api,
  site: Site,
  settings: Settings,
  run: string,
): Promise<VaultSetup> {
  const ask = async (method: string, path: string, body?: object): Promise<string> => {
    const answer = await site.askVault(method, path, body);
    if (answer.status >= 300) throw new Error(`Vault: ${path}: ${answer.status}: ${answer.body}`);
    return answer.body;
  };
  const mount = { kv: `${run}-kv`, long: `${run}-long`, brief: `${run}-brief`, auth: `${run}-jwt` };
  const { issuer, keys } = await signers(api);
  await ask("POST", `sys/mounts/${mount.kv}`, { type: "kv", options: { version: "2" } });
  const engine = await issuing(ask, site, settings, mount);
  const path = engine === "rabbitmq" ? "creds/web" : "issue/web common_name=web.e2e.example";
  const written = engine === "pki";
  await ask("POST", `sys/auth/${mount.auth}`, { type: "jwt" });
  await ask("POST", `auth/${mount.auth}/config`, {
    jwt_validation_pubkeys: keys,
    bound_issuer: issuer,
  });
  const rights: Readonly<Record<string, readonly string[]>> = {
    [`${mount.kv}/data/web`]: ["read"],
    [`${mount.long}/${path.split(" ")[0]}`]: written ? ["create", "update"] : ["read"],
    [`${mount.brief}/${path.split(" ")[0]}`]: written ? ["create", "update"] : ["read"],
    "sys/leases/revoke": ["update"],
  };
  const policy = Object.entries(rights).map(
    ([where, capabilities]) => `path "${where}" { capabilities = ${JSON.stringify(capabilities)} }`,
  );
  await ask("POST", `sys/policies/acl/${run}`, { policy: policy.join("\n") });
  const changeConfig = async (greeting: string): Promise<void> => {
    await ask("POST", `${mount.kv}/data/web`, { data: { greeting } });
  };
  await changeConfig("hello");
  const health = await site.askVault("GET", "sys/health");
  const { version = "unknown" } = JSON.parse(health.body) as { version?: string };
  return {
    engine,
    kind: settings.vault === undefined ? "the development Vault" : `Vault or OpenBao ${version}`,
    login: {
      "vault-auth": "jwt",
      "vault-mount": mount.auth,
      "vault-role": "web",
      "vault-audience": AUDIENCE,
      "vault-ca": "e2e-ca",
    },
    config: `${mount.kv}/data/web`,
    account: `${mount.long}/${path}`,
    brief: `${mount.brief}/${path}`,
    async allow() {
      await ask("POST", `auth/${mount.auth}/role/web`, {
        role_type: "jwt",
        user_claim: "sub",
        bound_audiences: [AUDIENCE],
        token_policies: [run],
        token_ttl: "30m",
      });
    },
    changeConfig,
    async clean() {
      for (const name of [mount.kv, mount.long, mount.brief])
        await site.askVault("DELETE", `sys/mounts/${name}`);
      await site.askVault("DELETE", `sys/auth/${mount.auth}`);
      await site.askVault("DELETE", `sys/policies/acl/${run}`);
    },
  };
}

type Ask = (method: string, path: string, body?: object) => Promise<string>;

/** Accounts of the site's broker; where Vault cannot reach that, certificates, which need nobody. */
async function issuing(
  ask: Ask,
  site: Site,
  { vault }: Settings,
  mount: { readonly long: string; readonly brief: string },
): Promise<"rabbitmq" | "pki"> {
  const kinds = [
    [mount.long, LONG],
    [mount.brief, BRIEF],
  ] as const;
  if (vault?.engine !== "pki") {
    const { username, password, url } = await site.broker();
    const connection = { connection_uri: site.brokerUrl || url, username, password };
    try {
      for (const [name, { ttl, max }] of kinds) {
        await ask("POST", `sys/mounts/${name}`, { type: "rabbitmq" });
        await ask("POST", `${name}/config/connection`, connection);
        await ask("POST", `${name}/config/lease`, { ttl, max_ttl: max });
        const vhosts = JSON.stringify({ "/": { read: ".*" } });
        await ask("POST", `${name}/roles/web`, { tags: "", vhosts });
      }
      return "rabbitmq";
    } catch (error) {
      if (vault === undefined || vault.engine === "rabbitmq") throw error;
      for (const [name] of kinds) await ask("DELETE", `sys/mounts/${name}`);
    }
  }
  for (const [name, { ttl }] of kinds) {
    const seconds = Math.max(ttl, BRIEF_CERTIFICATE);
    await ask("POST", `sys/mounts/${name}`, { type: "pki", config: { max_lease_ttl: "24h" } });
    await ask("POST", `${name}/root/generate/internal`, { common_name: "e2e", ttl: "24h" });
    await ask("POST", `${name}/roles/web`, {
      allow_any_name: true,
      enforce_hostnames: false,
      ttl: `${seconds}s`,
      max_ttl: `${seconds}s`,
    });
  }
  return "pki";
}

/** Who signs the tokens of the cluster's service accounts, so that Vault needs no way to the API server. */
async function signers(
  api: Api,
): Promise<{ readonly issuer: string; readonly keys: readonly string[] }> {
  const about = await api.json<{ issuer: string }>("/.well-known/openid-configuration");
  const { keys } = await api.json<{ keys: readonly Readonly<Record<string, string>>[] }>(
    "/openid/v1/jwks",
  );
  const pems = keys.map((key) =>
    createPublicKey({ key, format: "jwk" }).export({ type: "spki", format: "pem" }),
  );
  return { issuer: about.issuer, keys: pems };
}
