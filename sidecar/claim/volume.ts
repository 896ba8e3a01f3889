/** What there is of a shared payload volume once it could be opened: who leads, whose turn it is, who uses what, and the pod's own link. */
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import type { Outcome } from "#core/follow.ts";
import type { Policy } from "#core/policy.ts";
import { INITIAL, banksOf } from "#core/update-state.ts";
import type { Target, UpdateState } from "#core/update-state.ts";
import { openClaimFollower } from "./follower.ts";
import type { ClaimFollower } from "./follower.ts";
import { openFileLease } from "./lease.ts";
import type { FileLease } from "./lease.ts";
import { openOwnLink } from "./link.ts";
import type { OwnLink } from "./link.ts";
import { openPods } from "./pods.ts";
import type { Pods } from "./pods.ts";
import { replicaOf } from "./store.ts";
import type { SwapTurn } from "./store.ts";
import type { Disk } from "../disk/durable.ts";
import type { Hooks } from "../application/hooks.ts";
import { openPermits } from "../update/permits.ts";
import type { PermitDeps } from "../update/permits.ts";
import { openStore } from "../payload/store.ts";
import type { Store } from "../payload/store.ts";
import type { Turn } from "./turn.ts";
import type { UpdateDeps } from "../update/agent.ts";
import type { Report } from "../update/report.ts";

export interface ClaimTimes {
  /** Milliseconds after which a leader, or a holder of the turn, that does not beat is taken for gone. */
  readonly leaseMs: number;
  /** Milliseconds after which the banks of a pod that does not beat are nobody's. */
  readonly forgetMs: number;
}

export const CLAIM_TIMES: ClaimTimes = { leaseMs: 60_000, forgetMs: 900_000 };

/** Milliseconds that a swap may take besides its trial and its rollback, as among the payloads of a pod. */
const TURN_SLACK_MS = 3_600_000;

/** Milliseconds after which an application that has refused what is committed is asked again. */
const REFUSED_MS = 60_000;

export interface ClaimVolume {
  readonly store: Store;
  readonly pods: Pods;
  readonly own: OwnLink;
  readonly leader: FileLease;
  readonly turn: SwapTurn;
  readonly follower: ClaimFollower;
  /** Beats, looks who leads, and asks for the turn if it is wanted. */
  tend(): Promise<void>;
}

export interface ClaimVolumeDeps
  extends
    Pick<UpdateDeps, "clock" | "workload">,
    Pick<PermitDeps, "settings" | "log" | "now" | "usage" | "holds"> {
  readonly app: string;
  readonly channel: string;
  /** Of the volume, and of the pod's own link. */
  readonly root: string;
  readonly folder: string;
  readonly uid: string;
  readonly podName: string;
  readonly disk: Disk;
  readonly policy: Policy;
  readonly times: ClaimTimes;
  readonly held: () => boolean;
  readonly hooks: Hooks;
  /** Among the payloads of the pod. */
  readonly podTurn: Turn;
  readonly report: Pick<Report, "waits" | "lost">;
  readonly ended: (outcome: Outcome) => void;
}

export async function openClaimVolume(deps: ClaimVolumeDeps): Promise<ClaimVolume> {
  const { clock, root, folder, uid, podName, disk, policy } = deps;
  const { leaseMs, forgetMs } = deps.times;
  const store = await openStore(root, disk);
  for (const name of ["leader", "turn", "pods"]) await disk.makeDirectory(join(root, name), 0o755);
  await disk.syncDirectory(root);
  const pods = openPods({ folder: join(root, "pods"), uid, disk, clock, forgetMs });
  const keepsOld = !policy.restarts;
  const own = await openOwnLink({ folder, root, podName, store, pods, disk, keepsOld });
  const common = { uid, name: podName, disk, clock, leaseMs, token: randomUUID };
  const leader = openFileLease({ ...common, folder: join(root, "leader") });
  const turnLease = openFileLease({ ...common, folder: join(root, "turn") });
  const limitMs = 2 * policy.trialTimeoutMs + TURN_SLACK_MS;
  const turn = openTurn(turnLease, pods, clock, { periodMs: leaseMs / 6, limitMs });
  let beatAt = -Infinity;
  /** As the journal had them when it was last read. */
  let channels: UpdateState["channels"] = {};

  /** For what is said of a bank; the journal may have gone on to another. */
  async function targetOf(id: string): Promise<Target> {
    const { app, channel } = deps;
    const journal = await store.loadState();
    ({ channels } = journal);
    const bank = banksOf(journal).find((item) => item.id === id);
    return bank ?? { channel: `${app}/${channel}`, sequence: 0, version: id };
  }

  const state = (): UpdateState => ({ ...INITIAL, channels });
  const hooks = patient(deps.hooks);
  const asked = { hooks, turn: deps.podTurn, replica: replicaOf(turn), state };
  const permits = openPermits({ ...deps, ...asked });
  const follower = openClaimFollower({ ...deps, store, own, turn, permits, targetOf });

  return {
    store,
    pods,
    own,
    leader,
    turn,
    follower,
    async tend() {
      await leader.tend(true, pods.alone);
      await turn.tend();
      if (clock.monotonic() - beatAt < forgetMs / 4) return;
      await own.beat();
      beatAt = clock.monotonic();
    },
  };
}

/** What is committed is not for one workload to refuse, nor for a hook that cannot be asked: that is a "later", which `hold-limit` ends. */
function patient(hooks: Hooks): Hooks {
  return {
    ...hooks,
    broken: () => Promise.resolve(undefined),
    async ask(hook, facts, signal) {
      const answer = await hooks.ask(hook, facts, signal);
      const isMine = answer.answer === "go" || answer.answer === "later";
      return isMine ? answer : { answer: "later", afterMs: REFUSED_MS };
    },
  };
}

/** @param limitMs after which a holder loses the turn, so that a restart that never comes does not stop the others for ever */
function openTurn(
  lease: FileLease,
  pods: Pods,
  clock: UpdateDeps["clock"],
  { periodMs, limitMs }: { readonly periodMs: number; readonly limitMs: number },
): SwapTurn & { tend(): Promise<void> } {
  let wanted = false;
  /** Monotonic milliseconds since which it is had. */
  let since: number | undefined;

  async function look(): Promise<void> {
    await lease.tend(wanted, pods.alone);
    since = lease.mayAct() ? (since ?? clock.monotonic()) : undefined;
  }

  async function ask(): Promise<boolean> {
    wanted = true;
    if (!lease.mayAct()) await look();
    return lease.mayAct();
  }

  async function end(): Promise<void> {
    wanted = false;
    since = undefined;
    await lease.release();
  }

  return {
    ask,
    mayAct: lease.mayAct,
    async take(signal) {
      while (!(await ask())) await clock.sleep(periodMs, signal);
    },
    end,
    async tend() {
      if (since !== undefined && clock.monotonic() - since >= limitMs) await end();
      else if (wanted || lease.mayAct()) await look();
    },
  };
}
