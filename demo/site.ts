/**
 * What stands around the pod: certificates, the cluster's tokens, a broker whose accounts Vault issues, Vault itself, the
 * repository and the webhook. The last two are edgesync's own programs, run as in production.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { request } from "node:https";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { sleepBy } from "#core/clock.ts";
import type { Clock } from "#core/clock.ts";
import { makeCertificate } from "../webhook/certificate.ts";
import type { Programs } from "./programs.ts";
import { waitFor } from "./sidecar-view.ts";
import { openDevBroker } from "./vault/broker.ts";
import type { DevBroker } from "./vault/broker.ts";
import { openDevCluster } from "./vault/cluster.ts";
import type { DevCluster } from "./vault/cluster.ts";
import { openDevVault } from "./vault/server.ts";
import type { DevVault } from "./vault/server.ts";

export const IMAGE = "registry.example/edgesync:demo";
export const ACCOUNT = { namespace: "demo", name: "web" } as const;

export interface Tls {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
  /** Where the three lie as ca.crt, tls.crt and tls.key. */
  readonly folder: string;
}

const clock: Clock = {
  now: Date.now,
  monotonic: () => performance.now(),
  sleep: sleepBy(sleep),
};

export async function makeTls(folder: string): Promise<Tls> {
  await mkdir(folder, { recursive: true });
  const request = {
    service: "edgesync-webhook",
    namespace: "edgesync-system",
    names: ["localhost", "127.0.0.1"],
  };
  const { ca, certificate: cert, key } = await makeCertificate(request, Date.now());
  await writeFile(join(folder, "ca.crt"), ca);
  await writeFile(join(folder, "tls.crt"), cert);
  await writeFile(join(folder, "tls.key"), key, { mode: 0o600 });
  return { ca, cert, key, folder };
}

export interface SecretsSide {
  readonly cluster: DevCluster;
  readonly broker: DevBroker;
  readonly vault: DevVault;
  /** A request with the administrator's token. */
  configure(path: string, body: object): Promise<void>;
}

/** Vault, set up through its API as an operator would: an engine beside the KV store that a development server has, a policy, a role for the pod's service account. */
export async function openSecretsSide(
  tls: Tls,
  resources: AsyncDisposableStack,
): Promise<SecretsSide> {
  const cluster = resources.use(await openDevCluster({ tls, clock }));
  const broker = resources.use(await openDevBroker());
  const vault = resources.use(await openDevVault({ tls, clock }));
  const configure = (path: string, body: object): Promise<void> =>
    new Promise((resolve, reject) => {
      const headers = { "X-Vault-Token": vault.rootToken, "Content-Type": "application/json" };
      const call = request(
        `${vault.url}/v1/${path}`,
        { method: "POST", ca: tls.ca, agent: false, headers },
        (answer) => {
          answer.resume();
          answer.once("end", () =>
            (answer.statusCode ?? 500) < 300
              ? resolve()
              : reject(new Error(`Vault: ${path}: ${answer.statusCode}`)),
          );
        },
      );
      call.once("error", reject);
      call.end(JSON.stringify(body));
    });
  await configure("sys/mounts/broker", { type: "rabbitmq" });
  await configure("broker/config/connection", { connection_uri: broker.url, ...broker.admin });
  await configure("broker/config/lease", { ttl: 4, max_ttl: 8 });
  await configure("broker/roles/web", {
    tags: "",
    vhosts: JSON.stringify({ "/": { read: ".*" } }),
  });
  const rights = {
    "secret/data/web": "read",
    "broker/creds/web": "read",
    // So that an account that has been replaced is taken back at once and not at the end of its lease.
    "sys/leases/revoke": "update",
  };
  const policy = Object.entries(rights).map(
    ([path, right]) => `path "${path}" { capabilities = ["${right}"] }`,
  );
  await configure("sys/policies/acl/web", { policy: policy.join("\n") });
  await configure("sys/auth/kubernetes", { type: "kubernetes" });
  await configure("auth/kubernetes/config", {
    kubernetes_host: cluster.url,
    kubernetes_ca_cert: tls.ca,
  });
  await configure("auth/kubernetes/role/web", {
    bound_service_account_names: [ACCOUNT.name],
    bound_service_account_namespaces: [ACCOUNT.namespace],
    token_policies: ["web"],
    token_ttl: "10m",
  });
  await configure("secret/data/web", { data: { greeting: "hello" } });
  return { cluster, broker, vault, configure };
}

/** Serves a repository folder over TLS; resolves with its address. */
export async function serveRepository(
  folder: string,
  tls: Tls,
  programs: Programs,
): Promise<string> {
  const files = [
    "--tls-cert",
    join(tls.folder, "tls.crt"),
    "--tls-key",
    join(tls.folder, "tls.key"),
  ];
  const [address] = await programs.serve(
    ["serve", folder, "--port", "0", ...files],
    {},
    /https:\/\/[^\s"]+:\d+/,
  );
  return address;
}

export interface Addresses {
  readonly repository: string;
  readonly vault: string;
  /** Where the pod's sidecar is to listen, for probes and scrapes and for the pod's own calls; in a cluster every pod has addresses of its own. */
  readonly sidecarPort: number;
  readonly controlPort: number;
}

/** Starts the webhook; resolves with its address once it is ready. */
export async function startWebhook(to: Addresses, tls: Tls, programs: Programs): Promise<string> {
  const env = {
    EDGESYNC_IMAGE: IMAGE,
    EDGESYNC_REPOSITORY: to.repository,
    EDGESYNC_VAULT_ADDRESS: to.vault,
    EDGESYNC_SIDECAR_PORT: String(to.sidecarPort),
    EDGESYNC_CERTIFICATES: "files",
    EDGESYNC_TLS_DIR: tls.folder,
    EDGESYNC_TLS_PORT: "0",
    EDGESYNC_METRICS_PORT: "0",
    EDGESYNC_LISTEN_ADDRESS: "127.0.0.1",
    EDGESYNC_DRAIN_DELAY: "0s",
  };
  const [, port] = await programs.serve(
    ["webhook"],
    env,
    /"port":(\d+),"msg":"admission server listening"/,
  );
  const url = `https://127.0.0.1:${port}`;
  // As a kubelet finds out: it listens before it has read its certificate, and breaks off handshakes until then.
  await waitFor("the webhook is ready", 10_000, async () => {
    return (await statusOf(`${url}/readyz`, tls.ca)) === 200 || undefined;
  });
  return url;
}

async function statusOf(url: string, ca: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const call = request(url, { ca, agent: false }, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    call.once("error", reject);
    call.end();
  });
}

/** A port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
