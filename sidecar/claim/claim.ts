/**
 * The update agent of a pod whose payload volume other pods may share: one of them leads and runs the update machine, the others follow what it has
 * committed, one after another. How they agree, and what a crash leaves: docs/decisions/0017.
 */
import { EdgeSyncError, codeOf } from "#core/errors.ts";
import type { Outcome } from "#core/follow.ts";
import { policyOf } from "#core/policy.ts";
import { INITIAL, banksOf, isSwapping, served } from "#core/update-state.ts";
import type { UpdateState } from "#core/update-state.ts";
import { fencedDisk } from "./disk.ts";
import { leaderStore, leaderWorkload, replicaOf } from "./store.ts";
import { CLAIM_TIMES, openClaimVolume } from "./volume.ts";
import type { ClaimTimes, ClaimVolume } from "./volume.ts";
import { nodeDisk } from "../disk/durable.ts";
import { ALONE } from "./turn.ts";
import { noHolds } from "../application/hold.ts";
import { noHooks } from "../application/hooks.ts";
import { spreadReplica } from "./swap-spread.ts";
import { openTrustTime } from "../channel/trust-time.ts";
import { openUpdateAgent } from "../update/agent.ts";
import type { UpdateAgent, UpdateDeps } from "../update/agent.ts";
import { openReport } from "../update/report.ts";
import { openUsage } from "../update/usage.ts";

/** The agent of a payload, on a volume of the pod's own or on one that it shares. */
export function openPayloadAgent(deps: UpdateDeps): Promise<UpdateAgent> {
  const { settings, clock } = deps;
  if (settings.payloadLinkDir !== undefined) return openClaimAgent(deps);
  return openUpdateAgent({ ...deps, replica: deps.replica ?? spreadReplica(settings, clock) });
}

export interface ClaimDeps extends UpdateDeps {
  readonly times?: ClaimTimes;
}

/**
 * Opens the volume, registers the pod, and makes its link name what is committed, or, for the leader, what the journal says.
 *
 * @throws EdgeSyncError CONFIG_INVALID when a setting is missing
 */
export async function openClaimAgent(deps: ClaimDeps): Promise<UpdateAgent> {
  const { settings, clock, log, metrics, workload, turn: podTurn = ALONE, hooks = noHooks } = deps;
  const { payloadDir, payloadLinkDir: folder, podUid: uid } = settings;
  if (
    settings.channel === undefined ||
    payloadDir === undefined ||
    folder === undefined ||
    uid === undefined
  )
    throw new EdgeSyncError(
      "CONFIG_INVALID",
      "a payload on a shared volume needs the settings channel, payload-dir, payload-link-dir and pod-uid",
    );
  const root = payloadDir;
  const { app, channel: name } = settings.channel;
  const disk = deps.disk ?? nodeDisk;
  const times = deps.times ?? CLAIM_TIMES;
  const periodMs = times.leaseMs / 6;
  const followMs = times.leaseMs / 12;
  const policy = policyOf(settings, workload.healthFailureThreshold, (hook) => hooks.has(hook));
  const held = deps.held ?? ((): boolean => false);
  const time = openTrustTime(deps);
  const { now } = time;
  // What is fetched the leader counts.
  const usage = openUsage({ root, disk, clock, metrics, now, budget: undefined });
  const budget = undefined;
  const report = openReport({ app, channel: name, clock, time, usage, budget, log, metrics });
  const podName = settings.podName ?? uid;

  let volume: ClaimVolume | undefined;
  /** The update agent of this pod while it leads. */
  let inner: UpdateAgent | undefined;
  /** The folder of the epoch for which that was opened. */
  let innerWork: string | undefined;
  /** Of the time in which it leads. */
  let leading: AbortController | undefined;
  let following = false;
  /** Whether the leader's own workload is on the way to what is committed still, as a follower's is. */
  let catching = false;
  /** As a follower sees the site: what its own link names, and nothing that goes on. */
  let seen: UpdateState = INITIAL;

  const permitted = { settings, log, now, usage, holds: deps.holds ?? noHolds };
  const volumes = { ...permitted, root, folder, uid, podName, disk, policy, times };
  const common = { ...volumes, clock, workload, app, held, hooks, podTurn, report };
  const openVolume = (): Promise<ClaimVolume> =>
    openClaimVolume({ ...common, channel: name, ended: followed });

  /** Of a swap that has not been told yet. */
  let ended: Outcome | undefined;
  function followed(outcome: Outcome): void {
    ended = outcome;
  }

  function tellEnd(): void {
    if (ended === undefined) return;
    metrics.add("edgesync_sidecar_follows_total", { outcome: ended });
    const fields = { app, channel: name, version: served(seen)?.version ?? "", outcome: ended };
    if (ended === "healthy") log.info(fields, "committed release followed");
    else log.warn(fields, "committed release followed, but the workload is not healthy");
    ended = undefined;
  }

  async function tend(from: ClaimVolume): Promise<void> {
    const before = from.leader.mayAct();
    await from.tend();
    const now = from.leader.mayAct();
    metrics.set("edgesync_sidecar_leads", {}, Number(now));
    const epoch = from.leader.holder()?.epoch ?? 0;
    if (now && !before) log.info({ app, channel: name, epoch }, "leading the shared volume");
  }

  async function tendForEver(from: ClaimVolume, signal: AbortSignal): Promise<void> {
    for (;;) {
      await clock.sleep(periodMs, signal);
      try {
        await tend(from);
      } catch (error) {
        // What is held runs out by itself, and what is not is asked for again.
        log.debug({ err: error, code: codeOf(error) }, "cannot tend the shared volume");
      }
      if (!from.leader.mayAct()) leading?.abort(new Error("the lead is lost"));
    }
  }

  /** Opens the update machine, which recovers what the last leader has left. */
  async function openInner(from: ClaimVolume): Promise<UpdateAgent> {
    const { own, pods, turn, leader } = from;
    const work = leader.work();
    if (work === undefined) throw new EdgeSyncError("LEASE_LOST", "the lead is not this pod's");
    const leads = (): boolean => leader.mayAct() && leader.work() === work;
    const parts = { own, pods, turn, leads, catchesUp: () => catching };
    const replica = replicaOf(turn);
    innerWork = work;
    const agent = await openUpdateAgent({
      ...deps,
      disk: fencedDisk(disk, root, work, leads),
      shared: (store) => leaderStore(store, parts),
      workload: leaderWorkload(workload, parts),
      // Until its workload runs what is committed nothing newer is tried with it, and both turns are the follower's.
      turn: {
        follow: (swapping) => (catching ? undefined : podTurn.follow(swapping)),
        ask: () => catching || podTurn.ask(),
      },
      replica: {
        take: (signal) => (catching ? Promise.resolve("replica") : replica.take(signal)),
        release: () => (catching ? Promise.resolve() : replica.release()),
      },
    });
    // Nothing to go on with after all: the last leader had given its verdict, or the banks are gone.
    if (!swaps(agent)) await turn.end();
    return agent;
  }

  function swaps(agent: UpdateAgent): boolean {
    const { phase } = agent.status();
    return phase === "trial" || phase === "rolling-back";
  }

  function isBehind({ follower }: ClaimVolume): boolean {
    const { phase } = follower.state();
    return phase === "waiting" || phase === "restarting" || phase === "watching";
  }

  /** Brings the leader's own workload to what is committed, in its turn, while the machine goes on. */
  async function catchUp(from: ClaimVolume, signal: AbortSignal): Promise<void> {
    while (catching) {
      try {
        await from.follower.round(signal);
        tellEnd();
      } catch (error) {
        if (signal.aborted) return;
        log.warn({ err: error, code: codeOf(error) }, "cannot follow what is committed yet");
      }
      catching = isBehind(from);
      if (catching) await clock.sleep(followMs, signal).catch(() => undefined);
      if (signal.aborted) return;
    }
  }

  /** What has to be over before the main container starts. */
  async function recover(): Promise<ClaimVolume> {
    const from = await openVolume();
    await tend(from);
    const { leader, store, turn, own } = from;
    // A pod whose sidecar was restarted in a trial goes on with it; the turn was its own too.
    const swapping = leader.mayAct() && isSwapping(await store.loadState());
    if (leader.mayAct() && (!swapping || (await turn.ask()))) inner = await openInner(from);
    else if (!leader.mayAct() || (await own.current()) === undefined) await follow(from);
    return from;
  }

  async function follow(from: ClaimVolume): Promise<void> {
    await from.follower.begin();
    following = true;
    await see(from);
  }

  async function see({ store, own, leader }: ClaimVolume): Promise<void> {
    const id = own.known();
    if (id === served(seen)?.id) return;
    const { channels, ...journal } = await store.loadState();
    const bank = banksOf(journal).find((item) => item.id === id);
    const before = seen;
    seen = bank ? { phase: "committed", bank, previous: null, channels } : INITIAL;
    if (!leader.mayAct()) report.changed(before, seen);
  }

  async function lead(from: ClaimVolume, signal: AbortSignal): Promise<void> {
    const behind = following && isBehind(from);
    following = false;
    leading = new AbortController();
    const bounded = AbortSignal.any([signal, leading.signal]);
    try {
      const swapping = inner === undefined && isSwapping(await from.store.loadState());
      if (swapping) await from.turn.take(bounded);
      catching = behind && !swapping;
      if (inner === undefined || innerWork !== from.leader.work()) inner = await openInner(from);
      // Its link names what is committed, and nobody has seen its workload start from it.
      if (!catching && !swaps(inner) && !from.own.settled()) {
        await from.follower.begin();
        catching = isBehind(from);
      }
      const caughtUp = catchUp(from, bounded);
      try {
        await inner.run(bounded);
      } finally {
        await caughtUp;
      }
    } catch (error) {
      signal.throwIfAborted();
      if (!leading.signal.aborted) throw error;
      log.warn({ app, channel: name }, "not leading the volume any more");
    } finally {
      inner = undefined;
      leading = undefined;
      catching = false;
      if (!signal.aborted) await from.turn.end();
    }
  }

  async function round(from: ClaimVolume, signal: AbortSignal): Promise<void> {
    const { phase } = from.follower.state();
    // Both end soon, which a wait need not.
    const busy = following && (phase === "restarting" || phase === "watching");
    if (from.leader.mayAct() && !busy) return await lead(from, signal);
    if (!following) await follow(from);
    await from.follower.round(signal);
    await see(from);
    tellEnd();
  }

  async function runOn(from: ClaimVolume, signal: AbortSignal): Promise<never> {
    for (;;) {
      try {
        await round(from, signal);
        report.cleared();
      } catch (error) {
        signal.throwIfAborted();
        report.failed(error, "step", followMs);
      }
      await clock.sleep(followMs, signal);
    }
  }

  try {
    volume = await recover();
  } catch (error) {
    if (codeOf(error) === "CONFIG_INVALID") throw error;
    report.failed(error, "step", 0);
  }
  return {
    async run(signal) {
      while (volume === undefined) {
        await clock.sleep(followMs, signal);
        try {
          volume = await recover();
        } catch (error) {
          report.failed(error, "step", followMs);
        }
      }
      const from = volume;
      const tending = tendForEver(from, signal);
      try {
        await Promise.all([runOn(from, signal), tending]);
      } finally {
        await tending.catch(() => undefined);
        // The next leader need not wait until it is clear that this one is gone.
        await from.leader.release().catch(() => undefined);
      }
    },
    installed: () => inner?.installed() ?? volume?.own.known() !== undefined,
    recovered: () => true,
    // A follower looks every few seconds as it is, and has nothing that it left alone.
    look: () => inner?.look(),
    retry: () => inner?.retry(),
    status() {
      const base = inner?.status() ?? { ...report.status(seen, volume?.own.known()), scrub: null };
      const holder = volume?.leader.holder();
      return {
        ...base,
        replica: {
          role: inner === undefined ? "follower" : "leader",
          leader: holder?.name ?? null,
          epoch: holder?.epoch ?? 0,
          phase:
            inner === undefined || catching ? (volume?.follower.state().phase ?? "idle") : "idle",
          outcome: volume?.follower.outcome() ?? null,
        },
      };
    },
  };
}
