/** The site's pod from the test's side: its programs in a ConfigMap, its commands through the API server, and Vault behind it. */
import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import type { V1Pod } from "@kubernetes/client-node";
import { bundleOne } from "../../scripts/bundle.ts";
import { temporaryFolder } from "../support/temporary.ts";
import type { Api } from "./api.ts";
import { messageOf } from "./ledger.ts";
import { describePod, isReady, sitePod } from "./pods.ts";
import { KEY_HEADER, PORTS } from "./protocol.ts";
import type { Asked, CommandResult, SiteState, Told, Tree, VaultAnswer } from "./protocol.ts";
import type { Settings, Vault } from "./settings.ts";
import { runTunnel, tellVault } from "./tunnel.ts";
import type { Waits } from "./wait.ts";

export interface Site {
  /** `https://…`, as sidecars reach them. */
  readonly repository: string;
  readonly vault: string;
  /** `http://…`, for applications. */
  readonly ears: string;
  readonly brokerUrl: string;
  /** PEM of both. */
  readonly ca: string;
  /** The repository's first root. */
  readonly root: string;
  state(): Promise<SiteState>;
  /** Runs a command of edgesync there. @throws Error with what it said when it fails */
  edgesync(...args: readonly string[]): Promise<{ readonly output: string; readonly at: number }>;
  /** Makes a release's folder and publishes it. */
  publish(app: string, tree: Omit<Tree, "folder">): Promise<Published>;
  askVault(method: string, path: string, body?: object): Promise<VaultAnswer>;
  /** Whether that pod, and so any, reaches an API server there. */
  reach(url: string): Promise<{ readonly status: number; readonly error?: string }>;
  /** Ends the way to Vault. */
  close(): void;
  broker(): Promise<{ username: string; password: string; url: string; users: string[] }>;
}

/** What `release add --json` says. */
export interface Published {
  readonly fullBytes: number;
  readonly updates: readonly { readonly from: string; readonly bytes: number }[];
}

export interface SiteDeps {
  readonly api: Api;
  readonly waits: Waits;
  readonly settings: Settings;
  readonly run: string;
  readonly namespace: string;
  readonly note: (text: string) => void;
}

const CHARACTERS_OF_A_CONFIG_MAP = 1_000_000;

/** The programs that pods of the test run, as the data of a ConfigMap. */
export async function podPrograms(): Promise<Readonly<Record<string, string>>> {
  await using folder = await temporaryFolder();
  const programs: Record<string, string> = {};
  for (const name of ["site", "app"]) {
    const file = join(folder.path, `${name}.mjs`);
    await bundleOne(join(import.meta.dirname, "in-pod", `${name}.ts`), file);
    programs[`${name}.mjs`] = (await readFile(file, "utf8")).replace(/\n\/\/# source.*$/s, "\n");
  }
  const length = Object.values(programs).join("").length;
  if (length > CHARACTERS_OF_A_CONFIG_MAP)
    throw new Error(`the pods' programs have ${length} characters, more than a ConfigMap holds`);
  return programs;
}

export async function openSite(deps: SiteDeps): Promise<Site> {
  const { api, waits, settings, run, namespace } = deps;
  const { vault } = settings;
  const key = randomBytes(16).toString("hex");
  const metadata = { namespace, labels: { "edgesync-e2e": run } };
  const data = {
    E2E_KEY: key,
    ...(vault !== undefined && {
      E2E_VAULT_ADDR: vault.address,
      E2E_VAULT_TOKEN: vault.token,
      ...(vault.caFile !== undefined && { E2E_VAULT_CA: await readFile(vault.caFile, "utf8") }),
    }),
  };
  await api.apply({
    apiVersion: "v1",
    kind: "Secret",
    metadata: { ...metadata, name: "site" },
    stringData: data,
  });
  const pod = sitePod({ namespace, image: settings.image, run, secret: "site" });
  await api.apply(pod);
  const path = await api.pathOf(pod);
  await waits.until("the pod of repository and Vault is ready", 180, async (seen) => {
    const now = await api.json<V1Pod>(path);
    seen(describePod(now));
    return isReady(now) || undefined;
  });

  const ask = async <T>(method: "GET" | "POST", route: string, body?: object): Promise<T> => {
    const call = { method, headers: { [KEY_HEADER]: key }, ...(body !== undefined && { body }) };
    const answer = await api.pod(namespace, "site", PORTS.control, route, call);
    if (answer.status !== 200)
      throw new Error(
        `the site's pod, through the API server's proxy: ${route}: ${answer.status}: ${answer.body.slice(0, 400)}`,
      );
    return JSON.parse(answer.body) as T;
  };
  const edgesync = async (...args: readonly string[]): Promise<{ output: string; at: number }> => {
    const { id } = await ask<{ id: number }>("POST", "/run", { args });
    const result = await waits.until(`edgesync ${args.join(" ")}`, 240, async () => {
      const now = await ask<CommandResult>("GET", `/run/${id}`);
      return now.done ? now : undefined;
    });
    if (result.code !== 0)
      throw new Error(`edgesync ${args.join(" ")} ended with ${result.code}: ${result.errors}`);
    return { output: result.output ?? "", at: result.at ?? 0 };
  };
  const { host, platform, ca } = await waits.until("the site's pod answers", 60, () =>
    ask<SiteState>("GET", "/state"),
  );
  const askVault: Site["askVault"] = (method, where, body) =>
    ask("POST", "/vault", { method, path: where, ...(body !== undefined && { body }) });
  /** Vault must be reached from the pod, or else from here, through a tunnel. */
  const openWay = async (to: Vault): Promise<void> => {
    try {
      await askVault("GET", "sys/health");
      return;
    } catch (error) {
      deps.note(`pods do not reach ${to.address} (${messageOf(error)}); they are led through here`);
    }
    const health = { id: 0, method: "GET", path: "/v1/sys/health", body: "" };
    await tellVault(to, health).catch((cause: unknown) => {
      throw new Error(`neither pods nor this machine reach Vault at ${to.address}`, { cause });
    });
    await ask("POST", "/tunnel", {});
    const far = {
      take: () => ask<readonly Asked[]>("GET", "/asked"),
      give: async (told: Told) => {
        await ask("POST", "/told", told);
      },
      pause: () => setTimeout(1_000),
    };
    void runTunnel(to, far, closed.signal);
  };
  const closed = new AbortController();
  if (vault !== undefined) await openWay(vault);
  await edgesync("init");
  await ask("POST", "/serve", {});
  return {
    repository: `https://${host}:${PORTS.repository}`,
    vault: `https://${host}:${PORTS.vault}`,
    ears: `http://${host}:${PORTS.control}`,
    brokerUrl: vault === undefined ? "" : `http://${host}:${PORTS.broker}`,
    ca,
    root: await ask<string>("GET", "/root"),
    state: () => ask("GET", "/state"),
    edgesync,
    async publish(app, tree) {
      const folder = `${app}-${tree.version}`;
      await ask("POST", "/tree", { folder, ...tree });
      const what = ["--app", app, "--version", tree.version, "--platform", platform];
      const { output } = await edgesync("release", "add", folder, ...what, "--json");
      return JSON.parse(output) as Published;
    },
    askVault,
    reach: (url) => ask("POST", "/reach", { url }),
    broker: () => ask("GET", "/broker"),
    close: () => closed.abort(),
  };
}
