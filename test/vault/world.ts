/**
 * What the Vault tests run against: the server given by VAULT_ADDR and VAULT_TOKEN (and VAULT_CACERT), else the embedded
 * development Vault over TLS; with a cluster whose tokens it accepts and a broker for which it issues users. Everything is
 * configured through Vault's own API, under names that no other run uses, and taken away at the end.
 */
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { request as plainRequest } from "node:http";
import { request as tlsRequest } from "node:https";
import type { Clock } from "#core/clock.ts";
import { openDevBroker } from "../../demo/vault/broker.ts";
import type { DevBroker } from "../../demo/vault/broker.ts";
import { openDevCluster } from "../../demo/vault/cluster.ts";
import type { DevCluster, ServiceAccount } from "../../demo/vault/cluster.ts";
import { openDevVault } from "../../demo/vault/server.ts";
import type { DevVault } from "../../demo/vault/server.ts";
import { authority } from "../support/certificates.ts";
import type { Identity } from "../support/certificates.ts";
import { CLIENT_AUTH, DIGITAL_SIGNATURE, KEY_CERT_SIGN, issue, newKey } from "../support/chains.ts";
import type { Issued, Spec } from "../support/chains.ts";
import { realClock } from "../support/real-clock.ts";

export interface Reply {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  /** Parsed JSON; empty when there is none. */
  readonly body: Body;
}

/** As much of an answer of Vault as the tests look at. */
export interface Body {
  readonly errors?: readonly string[];
  readonly data?: Readonly<Record<string, unknown>> | null;
  readonly auth?: {
    readonly client_token: string;
    readonly accessor: string;
    readonly policies: readonly string[];
    readonly lease_duration: number;
    readonly renewable: boolean;
    readonly metadata: Readonly<Record<string, string>> | null;
  } | null;
  readonly lease_id?: string;
  readonly lease_duration?: number;
  readonly renewable?: boolean;
}

export interface World extends AsyncDisposable {
  readonly url: string;
  /** PEM of the authority of `url`; `undefined` when it speaks plain HTTP. */
  readonly ca: string | undefined;
  readonly cluster: DevCluster;
  readonly broker: DevBroker;
  /** Mounts and names that belong to this run. */
  readonly names: {
    readonly kv: string;
    readonly plain: string;
    readonly broker: string;
    readonly pki: string;
    readonly kubernetes: string;
    readonly jwt: string;
    readonly cert: string;
    readonly approle: string;
    readonly policy: string;
  };
  /** Whom the roles `web` of both auth methods let in. */
  readonly account: ServiceAccount;
  /** A certificate with which the role `web` of `cert` lets in; another one each time. */
  clientIdentity(change?: Partial<Spec>): Identity;
  /** role_id and a new secret_id of the role `web` of `approle`. */
  approle(): Promise<{ readonly role_id: string; readonly secret_id: string }>;
  /** A new answer to what is posted to a path, wrapped: as its one wrapping token has it, JSON. */
  wrapped(path: string): Promise<string>;
  /** A request with a token, the administrator's when absent. */
  call(method: string, path: string, body?: object, token?: string): Promise<Reply>;
  /** As `call` with the administrator's token, and fails unless it succeeds. */
  configure(method: string, path: string, body?: object): Promise<Reply>;
  /** The terms of the leases from now on, in seconds. */
  leaseTerms(ttl: number, maxTtl: number): Promise<void>;
  /** The embedded server, when it is that. */
  readonly embedded: DevVault | undefined;
}

export interface WorldOptions {
  /** Seconds. */
  readonly tokenTtl?: number;
  readonly tokenMaxTtl?: number;
  /** Only the embedded server will do, because the test needs its faults. */
  readonly embedded?: true;
  readonly clock?: Clock;
}

export const AUDIENCE = "vault.edgesync.test";

const PERIOD = { fromMs: -3_600_000, untilMs: 86_400_000 } as const;
const CLIENT = {
  name: "web",
  ...PERIOD,
  ca: false,
  usage: DIGITAL_SIGNATURE,
  purposes: [CLIENT_AUTH],
  names: ["web"],
};
/** The authority of the clients' certificates. */
let clientAuthority: Issued | undefined;
const clients = (): Issued =>
  (clientAuthority ??= issue({
    name: "edgesync test clients",
    ...PERIOD,
    ca: true,
    usage: KEY_CERT_SIGN,
    key: newKey("ec"),
  }));

const ca = authority("edgesync test Vault CA");
const identity = ca.issue(["localhost", "127.0.0.1"]);

/** The environment is this helper's to read: it is how the real server is given. */
const given = process.env;

export async function openWorld(options: WorldOptions = {}): Promise<World> {
  await using stack = new AsyncDisposableStack();
  const clock = options.clock ?? realClock;
  const address = options.embedded === true ? undefined : given["VAULT_ADDR"];
  const embedded =
    address === undefined
      ? stack.use(await openDevVault({ tls: identity, host: "localhost", clock }))
      : undefined;
  const url = (embedded?.url ?? address ?? "").replace(/\/$/, "");
  const rootToken = embedded?.rootToken ?? given["VAULT_TOKEN"] ?? "";
  const cluster = stack.use(await openDevCluster({ tls: identity, clock }));
  const broker = stack.use(await openDevBroker());
  const bundle = embedded === undefined ? givenAuthority() : ca.cert;
  const call: World["call"] = (method, path, body, token = rootToken) =>
    exchange(url, bundle, { method, path, body, token });
  const configure: World["configure"] = async (method, path, body) => {
    const reply = await call(method, path, body);
    if (reply.status >= 300)
      throw new Error(`${method} ${path}: ${reply.status} ${reply.body.errors?.join("; ") ?? ""}`);
    return reply;
  };

  const run = `es-${randomBytes(4).toString("hex")}`;
  const names: World["names"] = {
    kv: `${run}-kv`,
    plain: `${run}-plain`,
    broker: `${run}-broker`,
    pki: `${run}-pki`,
    kubernetes: `${run}-k8s`,
    jwt: `${run}-jwt`,
    cert: `${run}-cert`,
    approle: `${run}-approle`,
    policy: `${run}-web`,
  };
  const account = { namespace: "shop", name: "web" };
  const mount = async (area: "mounts" | "auth", name: string, body: object): Promise<void> => {
    await configure("POST", `sys/${area}/${name}`, body);
    stack.defer(async () => {
      await call("DELETE", `sys/${area}/${name}`).catch(() => undefined);
    });
  };
  await mount("mounts", names.kv, { type: "kv", options: { version: "2" } });
  await mount("mounts", names.plain, { type: "kv", options: { version: "1" } });
  await mount("mounts", names.broker, { type: "rabbitmq" });
  await configure("POST", `${names.broker}/config/connection`, {
    connection_uri: broker.url,
    ...broker.admin,
  });
  await configure("POST", `${names.broker}/roles/app`, {
    tags: "monitoring",
    vhosts: JSON.stringify({ "/": { configure: "", write: ".*", read: ".*" } }),
  });
  await mount("mounts", names.pki, { type: "pki", config: { max_lease_ttl: "8760h" } });
  await configure("POST", `${names.pki}/root/generate/internal`, {
    common_name: "edgesync test PKI",
    key_type: "ec",
    ttl: "8760h",
  });
  await configure("POST", `${names.pki}/roles/web`, {
    allowed_domains: ["web.example"],
    allow_subdomains: true,
    allow_ip_sans: true,
    allowed_uri_sans: ["spiffe://web.example/*"],
    key_type: "any",
    max_ttl: "72h",
  });
  await configure("POST", `${names.pki}/roles/ec`, {
    allowed_domains: ["web.example"],
    allow_subdomains: true,
    key_type: "ec",
    key_bits: 256,
    max_ttl: "72h",
  });
  const leaseTerms: World["leaseTerms"] = async (ttl, maxTtl) => {
    await configure("POST", `${names.broker}/config/lease`, { ttl, max_ttl: maxTtl });
  };
  await leaseTerms(3_600, 7_200);

  await configure("PUT", `sys/policies/acl/${names.policy}`, { policy: policyText(names) });
  stack.defer(async () => {
    await call("DELETE", `sys/policies/acl/${names.policy}`).catch(() => undefined);
  });
  const terms = {
    token_policies: [names.policy],
    token_ttl: options.tokenTtl ?? 3_600,
    token_max_ttl: options.tokenMaxTtl ?? 86_400,
  };
  await mount("auth", names.kubernetes, { type: "kubernetes" });
  await configure("POST", `auth/${names.kubernetes}/config`, {
    kubernetes_host: cluster.url,
    kubernetes_ca_cert: ca.cert,
    disable_local_ca_jwt: true,
  });
  await configure("POST", `auth/${names.kubernetes}/role/web`, {
    bound_service_account_names: [account.name],
    bound_service_account_namespaces: [account.namespace],
    ...terms,
  });
  await mount("auth", names.jwt, { type: "jwt" });
  await configure("POST", `auth/${names.jwt}/config`, {
    jwt_validation_pubkeys: [cluster.publicKey],
    bound_issuer: cluster.issuer,
  });
  await configure("POST", `auth/${names.jwt}/role/web`, {
    role_type: "jwt",
    user_claim: "sub",
    bound_audiences: [AUDIENCE],
    bound_subject: `system:serviceaccount:${account.namespace}:${account.name}`,
    ...terms,
  });

  await mount("auth", names.cert, { type: "cert" });
  await configure("POST", `auth/${names.cert}/certs/web`, {
    certificate: clients().cert,
    ...terms,
  });
  await mount("auth", names.approle, { type: "approle" });
  await configure("POST", `auth/${names.approle}/role/web`, terms);

  const owned = stack.move();
  return {
    url,
    ca: bundle,
    cluster,
    broker,
    names,
    account,
    clientIdentity: (change = {}) => {
      const { cert, keyPem: key } = issue({ ...CLIENT, key: newKey("ec"), ...change }, clients());
      return { cert, key };
    },
    async approle() {
      const role = `auth/${names.approle}/role/web`;
      const { body: id } = await configure("GET", `${role}/role-id`);
      const { body: secret } = await configure("POST", `${role}/secret-id`, {});
      return {
        role_id: String(id.data?.["role_id"]),
        secret_id: String(secret.data?.["secret_id"]),
      };
    },
    async wrapped(path) {
      const asked = { method: "POST", path, body: {}, token: rootToken, wrapTtl: "600s" };
      const { status, body } = await exchange(url, bundle, asked);
      if (status !== 200) throw new Error(`${path}: ${status}`);
      return JSON.stringify(body);
    },
    call,
    configure,
    leaseTerms,
    embedded,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

function policyText({ kv, plain, broker, pki, approle }: World["names"]): string {
  return `
# What the role web may do.
path "${kv}/data/web/*" { capabilities = ["read"] }
path "${kv}/data/+/shared" { capabilities = ["read"] }
path "${kv}/data/web/forbidden" { capabilities = ["deny"] }
path "${plain}/web/*" { capabilities = ["read", "update", "create"] }
path "${broker}/creds/app" { capabilities = ["read"] }
path "${pki}/issue/ec" { capabilities = ["update"] }
path "${pki}/sign/web" { capabilities = ["update"] }
path "auth/${approle}/role/web/secret-id" { capabilities = ["update"] }
path "sys/leases/revoke" { capabilities = ["update"] }
`;
}

function givenAuthority(): string | undefined {
  const file = given["VAULT_CACERT"];
  return file === undefined ? undefined : readFileSync(file, "utf8");
}

function exchange(
  url: string,
  bundle: string | undefined,
  {
    method,
    path,
    body,
    token,
    wrapTtl,
  }: { method: string; path: string; body: object | undefined; token: string; wrapTtl?: string },
): Promise<Reply> {
  const target = new URL(`${url}/v1/${path}`);
  const init = {
    method,
    ...(bundle === undefined ? {} : { ca: bundle }),
    headers: {
      ...(token === "" ? {} : { "x-vault-token": token }),
      "x-vault-request": "true",
      ...(wrapTtl === undefined ? {} : { "x-vault-wrap-ttl": wrapTtl }),
      "content-type": "application/json",
    },
  };
  return new Promise((resolve, reject) => {
    const outgoing =
      target.protocol === "https:" ? tlsRequest(target, init) : plainRequest(target, init);
    outgoing.once("error", reject);
    outgoing.once("response", (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.once("error", reject);
      response.once("end", () => {
        const text = Buffer.concat(chunks).toString();
        const parsed = text === "" ? {} : (JSON.parse(text) as Body);
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: parsed });
      });
    });
    outgoing.end(body === undefined ? undefined : JSON.stringify(body));
  });
}
