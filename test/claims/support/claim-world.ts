import assert from "node:assert/strict";
import { cp } from "node:fs/promises";
import { join } from "node:path";
import { eventually } from "../../support/process.ts";
import { openOrigin } from "../../support/origin.ts";
import type { Origin } from "../../support/origin.ts";
import { journalOf } from "../../update/support/invariants.ts";
import { openWorld } from "../../update/support/world.ts";
import { checkTurns, openReplicas } from "./replicas.ts";
import type { Replicas } from "./replicas.ts";
import type { ReplicaOptions } from "./replica-process.ts";

const LEASE_MS = 3_000;
const PODS = ["pod-a", "pod-b", "pod-c"];

/** Where the leader is killed: before it does this. The first {@link QUICK} are what a quick run takes. */
export const POINTS = [
  ["the bank has its name", "rename", "banks/1.1.0-[0-9a-f]{12}$", 1],
  ["its own link is swapped", "rename", "pod-a/current$", 1],
  ["the journal says watching", "rename", "volume/state.json$", 4],
  ["current moves", "rename", "volume/current$", 1],
  ["the epoch before is taken away", "rename", "leader/\\d+/[^/]+/\\d+$", 1],
  ["the turn is taken", "rename", "turn/\\d+$", 1],
  ["the journal says committed", "rename", "volume/state.json$", 5],
  ["its epoch is made", "rename", "leader/\\d+$", 1],
  ["the journal says downloading", "rename", "volume/state.json$", 1],
  ["the journal says staged", "rename", "volume/state.json$", 2],
  ["the journal says trial", "rename", "volume/state.json$", 3],
  ["the trial's bank is registered", "rename", "pods/uid-pod-a", 1],
  ["its workload is known to have started", "rename", "pods/uid-pod-a", 2],
  ["the turn is given back", "rename", "turn/\\d+/released", 1],
  ["its folder is synced after the commit", "syncDirectory", "volume$", 7],
] as const;
export const QUICK = 2;

export type Point = (typeof POINTS)[number];

export interface ClaimWorld extends AsyncDisposable {
  readonly pods: readonly string[];
  /** A site on 1.0.0 whose repository names another version: 1.1.0 is good, 1.2.0 is not. */
  site(version: string, more?: Partial<ReplicaOptions>): Promise<Replicas>;
  /** Starts all, so that the first one leads. */
  startAll(replicas: Replicas, kill?: ReplicaOptions["kill"]): Promise<void>;
  /** Kills the leader at a point; its sidecar comes back at once, or when the others have done without it. */
  kill(point: Point, back: "at once" | "later"): Promise<void>;
}

/** Pods whose workload was started from this version. */
export function seenBy(replicas: Replicas, version: string): readonly string[] {
  const started = replicas
    .events()
    .filter(({ event, bank }) => event === "started" && bank.includes(`/${version}-`));
  return [...new Set(started.map(({ pod }) => pod))];
}

export function blockedIn({ claim }: Replicas): string | undefined {
  return journalOf(claim).channels["web/stable"]?.blocked?.version;
}

export async function openClaimWorld(): Promise<ClaimWorld> {
  const world = await openWorld();
  /** By the version that the channel names: none of them changes any more. */
  const origins = new Map<string, Origin>();
  let sites = 0;
  for (const [version, health] of [
    ["1.0.0", "good"],
    ["1.1.0", "good"],
    ["1.2.0", "bad"],
  ] as const) {
    await world.publish(version, { health, "model.txt": version });
    const frozen = join(world.folder, `repository-${version}`);
    await cp(world.repository, frozen, { recursive: true });
    origins.set(version, await openOrigin(frozen));
  }

  function open(name: string, version: string, more: Partial<ReplicaOptions>): Promise<Replicas> {
    const url = origins.get(version)?.url ?? "";
    const options = { url, root: world.root, leaseMs: LEASE_MS, ...more };
    return openReplicas(join(world.folder, name), options, PODS);
  }

  {
    await using first = await open("installed", "1.0.0", {});
    for (const pod of PODS) await first.start(pod);
    await first.reach("1.0.0");
    for (const pod of PODS) await first.end(pod, "SIGTERM");
  }

  async function site(version: string, more: Partial<ReplicaOptions> = {}): Promise<Replicas> {
    const name = `site-${sites++}`;
    const [from, to] = [join(world.folder, "installed"), join(world.folder, name)];
    await cp(from, to, { recursive: true, verbatimSymlinks: true });
    return open(name, version, more);
  }

  async function startAll(replicas: Replicas, kill?: ReplicaOptions["kill"]): Promise<void> {
    await replicas.start("pod-a", kill);
    const leads = (): true | undefined =>
      /leading the shared volume/.test(replicas.output("pod-a")) || undefined;
    const dead = replicas.ended("pod-a");
    await Promise.race([dead, eventually(leads, () => replicas.output(), 60_000)]);
    for (const pod of PODS.slice(1)) await replicas.start(pod);
  }

  return {
    pods: PODS,
    site,
    startAll,
    async kill([name, operation, path, nth], back) {
      await using replicas = await site("1.1.0");
      await startAll(replicas, { operation, path, nth });
      assert.equal(await replicas.ended("pod-a"), "SIGKILL", `${name}: ${replicas.output()}`);
      if (back === "later") await replicas.reach("1.1.0", PODS.slice(1));
      await replicas.start("pod-a");
      await replicas.reach("1.1.0");
      checkTurns(replicas.events());
    },
    async [Symbol.asyncDispose]() {
      for (const origin of origins.values()) await origin[Symbol.asyncDispose]();
      await world[Symbol.asyncDispose]();
    },
  };
}
