/**
 * The machine of a pod that shares its payload volume and does not lead: it follows what is committed, in its turn. `next(state, event, policy)` as in
 * `update.ts`: the shell registers the banks of the new state, then performs the steps in order, and the last one's outcome is the next event.
 *
 *     idle ──committed──► settled                                               nothing ran yet, so there is nothing to restart
 *     settled ─committed─► waiting ──turn──► restarting ──restarted──► watching ──health──► settled
 *
 * - The link names what is committed as soon as the pod has its turn, and not before; where its own bank is gone, at once.
 * - Between its turn and the verdict the pod holds the turn. Both ways out of it, a verdict and a time that ran out, give it back.
 * - A verdict says how the workload is and changes nothing: which release a site has is for the leader to decide.
 */
import { unreachable } from "./errors.ts";
import type { Policy } from "./policy.ts";
import type { Verdict } from "./update.ts";

/** How the workload came out of its swap. */
export type Outcome = "healthy" | "unhealthy" | "unknown";

export type Follow =
  /** Nothing is committed on the volume. */
  | { readonly phase: "idle" }
  | {
      readonly phase: "settled";
      readonly bank: string;
      /** Null when it was not this process that swapped. */
      readonly outcome: Outcome | null;
    }
  | {
      readonly phase: "waiting";
      /** What the link names. */
      readonly bank: string;
      readonly to: string;
    }
  | { readonly phase: "restarting"; readonly bank: string }
  | {
      readonly phase: "watching";
      readonly bank: string;
      /** Milliseconds since the restart. */
      readonly spentMs: number;
      /** Milliseconds of health without a break; null when the last check was not healthy. */
      readonly healthyMs: number | null;
      /** Failed checks in a row, the grace after the start left out. */
      readonly failures: number;
    };

export type FollowEvent =
  /** The pod is a follower from now on. */
  | {
      readonly event: "started";
      /** The complete bank that the pod's own link names. */
      readonly link: string | null;
      /** Whether its workload is known to have started from it. */
      readonly settled: boolean;
      readonly committed: string | null;
    }
  /** `current` names this bank, and `missing` says that the link's own one is not there. */
  | { readonly event: "committed"; readonly bank: string; readonly missing: boolean }
  | { readonly event: "turn" }
  | { readonly event: "restarted" }
  /** The restart was not seen in time. */
  | { readonly event: "late" }
  | { readonly event: "health"; readonly verdict: Verdict; readonly passedMs: number };

export type FollowStep =
  /** Makes the pod's own link name the bank. */
  | { readonly step: "link"; readonly bank: string }
  | { readonly step: "await-turn" }
  /** Pulls the lever: `restarted`, or `late` after `withinMs`. */
  | { readonly step: "restart"; readonly withinMs: number }
  /** Waits a period and checks: `health`. */
  | { readonly step: "watch" }
  | { readonly step: "end-turn" };

type Next = readonly [state: Follow, steps: readonly FollowStep[]];

export function nextFollow(state: Follow, event: FollowEvent, policy: Policy): Next {
  switch (event.event) {
    case "started":
      return onStarted(event);
    case "committed":
      return onCommitted(state, event.bank, event.missing);
    case "turn":
      if (state.phase !== "waiting") return [state, []];
      return enter({ phase: "restarting", bank: state.to }, policy);
    case "restarted":
      if (state.phase !== "restarting") return [state, []];
      return enter(
        { phase: "watching", bank: state.bank, spentMs: 0, healthyMs: null, failures: 0 },
        policy,
      );
    case "late":
      // Somebody else's turn; this one's comes again.
      if (state.phase !== "restarting") return [state, []];
      return [
        { phase: "waiting", bank: state.bank, to: state.bank },
        [{ step: "end-turn" }, { step: "await-turn" }],
      ];
    case "health":
      return onHealth(state, event, policy);
    default:
      return unreachable(event);
  }
}

/** What a state implies. */
function enter(state: Follow, policy: Policy): Next {
  switch (state.phase) {
    case "idle":
    case "settled":
      return [state, [{ step: "end-turn" }]];
    case "waiting":
      return [state, [{ step: "await-turn" }]];
    case "restarting":
      return [
        state,
        [
          { step: "link", bank: state.bank },
          { step: "restart", withinMs: policy.trialTimeoutMs },
        ],
      ];
    case "watching":
      return [state, [{ step: "watch" }]];
    default:
      return unreachable(state);
  }
}

function onStarted({ link, settled, committed }: Extract<FollowEvent, { event: "started" }>): Next {
  // A turn that an earlier process of the pod had is not this one's.
  if (committed === null)
    return [
      link === null ? { phase: "idle" } : { phase: "settled", bank: link, outcome: null },
      [],
    ];
  const linked: readonly FollowStep[] =
    link === committed ? [] : [{ step: "link", bank: committed }];
  // Without a link nothing has started yet: what does start takes what the link then names.
  if (link === null || (link === committed && settled))
    return [{ phase: "settled", bank: committed, outcome: null }, linked];
  return [
    { phase: "waiting", bank: committed, to: committed },
    [...linked, { step: "await-turn" }],
  ];
}

function onCommitted(state: Follow, bank: string, missing: boolean): Next {
  if (state.phase === "idle")
    return [{ phase: "settled", bank, outcome: null }, [{ step: "link", bank }]];
  if (missing)
    return [
      { phase: "waiting", bank, to: bank },
      [{ step: "end-turn" }, { step: "link", bank }, { step: "await-turn" }],
    ];
  if (state.phase === "settled" && state.bank !== bank)
    return [{ phase: "waiting", bank: state.bank, to: bank }, [{ step: "await-turn" }]];
  // What was committed meanwhile is followed at once, without the one between.
  if (state.phase === "waiting" && state.to !== bank)
    return [{ ...state, to: bank }, [{ step: "await-turn" }]];
  return [state, []];
}

function onHealth(
  state: Follow,
  { verdict, passedMs }: Extract<FollowEvent, { event: "health" }>,
  policy: Policy,
): Next {
  if (state.phase !== "watching") return [state, []];
  const healthy = !policy.judged || verdict === "healthy";
  const spentMs = state.spentMs + passedMs;
  const healthyMs = healthy ? (state.healthyMs === null ? 0 : state.healthyMs + passedMs) : null;
  const counts = verdict === "unhealthy" && spentMs >= policy.graceMs;
  const failures = healthy ? 0 : state.failures + (counts ? 1 : 0);
  const settle = (outcome: Outcome): Next =>
    enter({ phase: "settled", bank: state.bank, outcome }, policy);
  if (healthyMs !== null && healthyMs >= policy.trialDurationMs) return settle("healthy");
  if (failures >= policy.healthFailureThreshold) return settle("unhealthy");
  if (spentMs >= policy.trialTimeoutMs)
    return settle(verdict === "unhealthy" ? "unhealthy" : "unknown");
  return enter({ phase: "watching", bank: state.bank, spentMs, healthyMs, failures }, policy);
}
