/**
 * The store and the workload as the leader of a shared volume has them, so that the update agent need not know of it: its trial is seen through the pod's
 * own link, `current` moves at the verdict, what other pods use is not swept, and one workload swaps at a time.
 */
import { committedOf, inherit } from "#core/claim.ts";
import { EdgeSyncError } from "#core/errors.ts";
import { banksOf } from "#core/update-state.ts";
import type { UpdateState } from "#core/update-state.ts";
import type { OwnLink } from "./link.ts";
import type { Pods } from "./pods.ts";
import type { Replica } from "./replica.ts";
import type { Store } from "../payload/store.ts";
import type { Workload } from "../application/workload.ts";

/** The right to swap, of one pod on the volume at a time. */
export interface SwapTurn {
  /** Resolves when it is this pod's. */
  take(signal: AbortSignal): Promise<void>;
  /** Asks for it; whether it is this pod's now. Asked for once, it is waited for in the background. */
  ask(): Promise<boolean>;
  readonly mayAct: () => boolean;
  end(): Promise<void>;
}

/** As the update agent asks for it. */
export function replicaOf(turn: SwapTurn): Replica {
  return {
    take: async () => ((await turn.ask()) ? null : "replica"),
    release: () => turn.end(),
  };
}

export interface LeaderDeps {
  readonly own: OwnLink;
  readonly pods: Pods;
  readonly turn: SwapTurn;
  /** Whether the pod still leads. */
  readonly leads: () => boolean;
  /** Whether its workload, and so its link, goes to what is committed as a follower's does. */
  readonly catchesUp: () => boolean;
}

type StoreDeps = Pick<LeaderDeps, "own" | "pods" | "catchesUp">;

export function leaderStore(store: Store, { own, pods, catchesUp }: StoreDeps): Store {
  let saved: UpdateState | undefined;

  async function publish(): Promise<void> {
    const bank = saved && committedOf(saved);
    if (bank && bank.id !== (await store.current())) await store.activate(bank.id);
  }

  return {
    ...store,
    current: own.current,
    async loadState() {
      const link = await own.current();
      const started = own.settled() ? link : undefined;
      saved = inherit(await store.loadState(), await store.current(), started);
      return saved;
    },
    async saveState(after) {
      const bank = committedOf(after);
      const known = saved !== undefined && banksOf(saved).some(({ id }) => id === bank?.id);
      // The commit: from here on the others follow, and no journal takes it back.
      if (bank !== null && known && bank.id !== (await store.current()))
        await store.activate(bank.id);
      await store.saveState(after);
      saved = after;
    },
    async activate(id) {
      if (!catchesUp()) await own.link(id);
      await publish();
    },
    async keep(id) {
      const lost = await store.keep(id);
      const path = await own.mend();
      return path === undefined ? lost : [...lost, { kind: "current", path }];
    },
    async sweep(keep) {
      // Read after `current` has moved: a pod says what it uses before it reads `current`, so one of the two sees the other.
      await store.sweep([...keep, ...(await pods.used())]);
    },
  };
}

type WorkloadDeps = Pick<LeaderDeps, "own" | "turn" | "leads">;

export function leaderWorkload(workload: Workload, { own, turn, leads }: WorkloadDeps): Workload {
  return {
    ...workload,
    async restart(signal) {
      // Another pod's trial is taken back here without a restart: this workload has not seen it.
      if (own.settled()) return;
      await turn.take(signal);
      if (!leads()) throw new EdgeSyncError("LEASE_LOST", "another pod leads the shared volume");
      await workload.restart(signal);
      await own.started();
    },
  };
}
