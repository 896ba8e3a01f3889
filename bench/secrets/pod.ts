/** A pod with many secrets of all kinds: the sidecar's bundle, as a process, at the development Vault over TLS. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { MEMORY, temporaryFolder } from "../../test/support/temporary.ts";
import { prepareEnvironment } from "../../test/vault/sidecar.ts";
import { openWorld } from "../../test/vault/world.ts";
import type { World } from "../../test/vault/world.ts";
import { figuresOf } from "../site.ts";
import { start } from "../subjects.ts";
import type { Running, Subject } from "../subjects.ts";

/** Milliseconds for the garbage collector and the allocator to come to rest, and over which processor time is measured. */
export const SETTLE_MS = 2_000;
export const STEADY_MS = 20_000;
export const LIMIT_MS = 120_000;
/** Of what has no lease: each is read more than once while processor time is measured. */
export const REFRESH = "10s";

export interface PodFigures {
  /** Milliseconds from spawn until the whole set is published. */
  readonly publishedMs: number;
  /** Requests until then. */
  readonly requests: number;
  /** MiB: the most so far; at rest, with and without the clean pages that processes share. */
  readonly rssPeak: number;
  readonly rss: number;
  readonly rssAnon: number;
  /** Milliseconds of processor time: until the set is published, and of each second at rest. */
  readonly startCpu: number;
  readonly steadyCpu: number;
  /** Requests of each second at rest. */
  readonly steadyRequests: number;
}

/** By turns of ten: six of KV, three with a lease, one certificate; each a request of its own. */
export function mixed(
  count: number,
  paths: { readonly kv: string; readonly lease: string; readonly pki: string },
): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Array.from({ length: count }, (_, index) => {
      const name = `s${index}`;
      const kind = index % 10;
      if (kind < 6) return [name, `${paths.kv}/${name}`];
      if (kind < 9) return [name, `${paths.lease}/${name}`];
      return [name, `${paths.pki} common_name=${name}.web.example`];
    }),
  );
}

/** What a pod of `count` secrets needs, and the development Vault for it. */
export async function openPodWorld(
  count: number,
): Promise<World & { readonly requests: Requests }> {
  const world = await openWorld({ embedded: true });
  const { names } = world;
  const requests = mixed(count, {
    kv: `${names.kv}/data/web`,
    lease: `${names.broker}/creds`,
    pki: `${names.pki}/issue/ec`,
  });
  const rule = (path: string): string => `path "${path}" { capabilities = ["read", "update"] }`;
  const paths = [`${names.kv}/data/web/*`, `${names.broker}/creds/*`, `${names.pki}/issue/ec`];
  await world.configure("PUT", `sys/policies/acl/${names.policy}`, {
    policy: [...paths, "sys/leases/revoke"].map(rule).join("\n"),
  });
  for (const [name, request] of Object.entries(requests)) {
    if (request.startsWith(names.kv))
      await world.configure("POST", request, { data: { user: name, password: "not a real one" } });
    if (request.startsWith(names.broker))
      await world.configure("POST", `${names.broker}/roles/${name}`, {
        vhosts: JSON.stringify({ "/": { configure: "", write: ".*", read: ".*" } }),
      });
  }
  return { ...world, requests };
}

type Requests = Readonly<Record<string, string>>;

export async function measurePod(subject: Subject, count: number): Promise<PodFigures> {
  await using world = await openPodWorld(count);
  await using folder = await temporaryFolder(MEMORY);
  const caFile = join(folder.path, "ca.crt");
  await writeFile(caFile, world.ca ?? "");
  const secrets = Object.fromEntries(
    Object.entries(world.requests).map(([name, request]) => [name, { request }]),
  );
  const env = await prepareEnvironment(world, folder.path, { refreshInterval: REFRESH, secrets });
  const asked = (): number => world.embedded?.control.requests.length ?? 0;
  const before = asked();
  const begun = performance.now();
  await using running = await start(subject, { ...env, EDGESYNC_VAULT_CA_FILE: caFile });
  await untilPublished(running);
  const publishedMs = performance.now() - begun;
  const requests = asked() - before;
  const { cpu: startCpu } = await figuresOf(running.pid);
  await sleep(SETTLE_MS);
  const from = { ...(await figuresOf(running.pid)), asked: asked() };
  await sleep(STEADY_MS);
  const to = { ...(await figuresOf(running.pid)), asked: asked() };
  return {
    publishedMs,
    requests,
    rssPeak: to.rssPeak,
    rss: to.rss,
    rssAnon: to.rssAnon,
    startCpu: startCpu * 1_000,
    steadyRequests: ((to.asked - from.asked) * 1_000) / STEADY_MS,
    steadyCpu: ((to.cpu - from.cpu) * 1_000_000) / STEADY_MS,
  };
}

async function untilPublished(running: Running): Promise<void> {
  const deadline = performance.now() + LIMIT_MS;
  for (;;) {
    try {
      await running.get("/startup");
      return;
    } catch (error) {
      // Not yet.
      if (performance.now() > deadline) throw error;
      await sleep(5);
    }
  }
}
