/** The shell around the machine of `src/follow.ts`: performs its steps, a round at a time, and tells it how they went. */
import type { Clock } from "#core/clock.ts";
import { unreachable } from "#core/errors.ts";
import { nextFollow } from "#core/follow.ts";
import type { Follow, FollowEvent, FollowStep, Outcome } from "#core/follow.ts";
import type { HookAnswer } from "#core/hook.ts";
import type { Policy } from "#core/policy.ts";
import type { Verdict } from "#core/update.ts";
import type { Target } from "#core/update-state.ts";
import type { OwnLink } from "./link.ts";
import type { SwapTurn } from "./store.ts";
import type { Hooks } from "../application/hooks.ts";
import type { Permits } from "../update/permits.ts";
import type { Store } from "../payload/store.ts";
import type { Turn } from "./turn.ts";
import type { Report } from "../update/report.ts";
import { within } from "../within.ts";
import type { Workload } from "../application/workload.ts";

/** The part of `/status` that says who is who on a shared volume. */
export interface ReplicaStatus {
  readonly role: "leader" | "follower";
  /** Name of the pod that leads, as far as is known. */
  readonly leader: string | null;
  readonly epoch: number;
  /** What the pod, as a follower, is doing about the committed release. */
  readonly phase: Follow["phase"];
  /** How its workload came out of the last swap; null when there was none since the sidecar came up. */
  readonly outcome: Outcome | null;
}

export interface ClaimFollower {
  /** Recovery, when the pod begins to follow: its link names what is committed. */
  begin(): Promise<void>;
  /** Looks at what is committed and goes on with what is pending; returns when it has to wait. */
  round(signal: AbortSignal): Promise<void>;
  state(): Follow;
  /** Of the last swap in this process. */
  outcome(): Outcome | null;
}

export interface ClaimFollowerDeps {
  readonly store: Pick<Store, "current">;
  readonly own: OwnLink;
  readonly clock: Clock;
  readonly workload: Workload;
  readonly hooks: Pick<Hooks, "has" | "ask">;
  readonly app: string;
  readonly channel: string;
  readonly policy: Policy;
  readonly turn: SwapTurn;
  /** Among the payloads of the pod. */
  readonly podTurn: Turn;
  /** Whether the workload may be swapped now; the turn comes with it. */
  readonly permits: Permits;
  readonly report: Pick<Report, "waits" | "lost">;
  readonly targetOf: (bank: string) => Promise<Target>;
  readonly ended: (outcome: Outcome) => void;
}

export function openClaimFollower(deps: ClaimFollowerDeps): ClaimFollower {
  const { store, own, clock, workload, hooks, policy, turn, podTurn, targetOf } = deps;
  let state: Follow = { phase: "idle" };
  let pending: readonly FollowStep[] = [];
  let outcome: Outcome | null = null;
  /** Monotonic milliseconds before which it makes no sense to ask, and about which bank. */
  let rest = { to: "", until: -Infinity };

  function feed(event: FollowEvent): void {
    const before = state;
    const [after, steps] = nextFollow(before, event, policy);
    // Whoever waits for the turn is to have it first, or it would be taken back before they look.
    if (event.event === "late" && after.phase === "waiting") putOff(after.to, LATE_MS);
    // Nothing new: what is pending stays.
    if (after === before && steps.length === 0) return;
    [state, pending] = [after, steps];
    if (state.phase !== "settled" || state.outcome === null || before.phase !== "watching") return;
    outcome = state.outcome;
    deps.ended(outcome);
  }

  const isCommitted = async (bank: string): Promise<boolean> => (await store.current()) === bank;

  function putOff(to: string, ms: number): void {
    rest = { to, until: clock.monotonic() + ms };
  }

  async function isPermitted(signal: AbortSignal): Promise<boolean> {
    if (state.phase !== "waiting") return false;
    const { to } = state;
    if (rest.to === to && clock.monotonic() < rest.until) return false;
    const permit = await deps.permits.ask("swap", await targetOf(to), null, signal);
    deps.report.waits("swap", permit);
    if (permit.answer === "wait") putOff(to, permit.againMs);
    if (permit.answer === "go") podTurn.follow(true);
    return permit.answer === "go";
  }

  /** One that takes too long, or cannot be made, says nothing of the release. */
  async function check(signal: AbortSignal): Promise<Verdict> {
    let verdict: Verdict = "unknown";
    const { app, channel } = deps;
    const { version, sequence } = await targetOf("bank" in state ? state.bank : "");
    try {
      await within(clock, Math.max(10_000, workload.healthPeriodMs), signal, async (late) => {
        const own = await workload.check(late);
        const facts = { app, channel, version, sequence, from: null };
        const asked =
          own === "healthy" && hooks.has("health") ? await hooks.ask("health", facts, late) : null;
        verdict = asked === null || asked.answer === "go" ? own : saidBy(asked.answer);
      });
    } catch {
      signal.throwIfAborted();
    }
    return verdict;
  }

  /** @returns the event that the step ends with, undefined when it has none, "later" when it cannot be done yet */
  async function perform(
    step: FollowStep,
    signal: AbortSignal,
  ): Promise<FollowEvent | "later" | undefined> {
    switch (step.step) {
      case "link":
        // Registered first, looked at again then: what is swept now is not this bank, or is not committed any more.
        if (await own.link(step.bank, () => isCommitted(step.bank))) return undefined;
        return state.phase === "restarting" ? { event: "late" } : "later";
      case "await-turn":
        return (await isPermitted(signal)) ? { event: "turn" } : "later";
      case "restart": {
        if (!turn.mayAct()) return { event: "late" };
        const restart = (late: AbortSignal): Promise<void> => workload.restart(late);
        const heldBack = (): number => workload.backOffMs();
        if (!(await within(clock, step.withinMs, signal, restart, heldBack)))
          return { event: "late" };
        await own.started();
        return { event: "restarted" };
      }
      case "watch": {
        const begun = clock.monotonic();
        await clock.sleep(workload.healthPeriodMs, signal);
        const verdict = await check(signal);
        return { event: "health", verdict, passedMs: clock.monotonic() - begun };
      }
      case "end-turn":
        podTurn.follow(false);
        await turn.end();
        return undefined;
      default:
        return unreachable(step);
    }
  }

  async function settle(signal: AbortSignal): Promise<void> {
    let failure: { readonly cause: unknown } | undefined;
    for (let [first, ...others] = pending; first !== undefined; [first, ...others] = pending) {
      let event: FollowEvent | "later" | undefined;
      try {
        event = await perform(first, signal);
      } catch (cause) {
        signal.throwIfAborted();
        if (state.phase !== "restarting") throw cause;
        // A disk, or a lever, that fails here is no reason for others to wait.
        failure = { cause };
        event = { event: "late" };
      }
      if (event === "later") break;
      pending = others;
      if (event !== undefined) feed(event);
    }
    if (failure !== undefined) throw failure.cause;
  }

  return {
    state: () => state,
    outcome: () => outcome,
    async begin() {
      const link = (await own.current()) ?? null;
      const committed = (await store.current()) ?? null;
      feed({ event: "started", link, settled: own.settled(), committed });
      podTurn.follow(false);
      const [first, ...others] = pending;
      if (first?.step !== "link") return;
      // Left for the next round when something newer was committed just now.
      if ((await perform(first, NEVER)) === undefined) pending = others;
    },
    async round(signal) {
      // Before it counts as missing: an application that has its files needs no restart.
      const path = await own.mend();
      if (path !== undefined) deps.report.lost({ kind: "current", path }, "mended");
      const bank = await store.current();
      if (bank !== undefined) {
        const missing = (await own.current()) === undefined && state.phase !== "idle";
        feed({ event: "committed", bank, missing });
      }
      await settle(signal);
    },
  };
}

/** Who says later, or nothing, has not said that anything is wrong. */
function saidBy(answer: HookAnswer["answer"]): Verdict {
  return answer === "no" ? "unhealthy" : "unknown";
}

/** Milliseconds; as long as a lease, in which each of the others has looked. */
const LATE_MS = 60_000;
const NEVER = new AbortController().signal;
