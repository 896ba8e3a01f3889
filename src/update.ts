/**
 * The update state machine. `next(state, event, policy)` says what the site knows afterwards and what is to be done about it; the
 * shell (`sidecar/update/agent.ts`) saves the state, then performs the steps in order, and the last step's outcome is the next event.
 *
 *     idle ──────seen──► downloading ──staged──► committed                       first installation: nothing to decide between
 *     committed ─seen──► downloading ──staged──► staged ──permitted──► trial ──healthy──► committed
 *                                                                        └──reason──► rolling-back ──restarted──► committed
 *
 * Two steps only wait: `await-download` and `await-swap`. What stands in the way there (a window, a budget, a lease, a hook that wants it
 * later, another replica) is no knowledge of the machine; what it hears is that it may go on, or, from a hook, that it never may.
 *
 * What holds in every state, and is tested over arbitrary histories:
 * - `current` is a function of the state ({@link served}); every list of steps that a state implies begins by making it so.
 * - Saved before acted on, and every step may be repeated: recovery is {@link stepsOf} the saved state.
 * - A committed release is left only for another one that the channel names for the site, never by itself.
 * - What the channel withholds from the site is not swapped, also after a restart; what was fetched of it stays.
 * - A trial ends: it is left after `trialTimeoutMs`, after `trialStarts` starts, after {@link RESUMPTIONS} restarts of the sidecar.
 * - A release that was rolled back, or refused by the application, is blocked until the channel's sequence number grows or a person says
 *   `edgesync update retry`. The sequence number itself only grows.
 * - What waits, to be fetched or to be swapped, gives way to what the channel names now.
 *
 * Names after Mender's client states; "blocked" after snapd.
 */
import { block, forgive, learn, refuse } from "./channel-memory.ts";
import { unreachable } from "./errors.ts";
import type { NoticeHook } from "./hook.ts";
import type { Policy } from "./policy.ts";
import type { RollbackReason } from "./reasons.ts";
import type { Event, Step } from "./update-events.ts";
import { NOTHING_SEEN, isSame, isVersion, served } from "./update-state.ts";
import type { Bank, Phase, Staged, Target, Trial, UpdateState, Watch } from "./update-state.ts";

export type { Event, Step, Verdict } from "./update-events.ts";

/**
 * A trial outlives this many restarts of the sidecar, each with a fresh `trialTimeoutMs`, so it takes at most four times that. Saved
 * time would be tighter and would punish a good release for a power cut; wall-clock time cannot be trusted at all.
 */
export const RESUMPTIONS = 3;

type Outcome = readonly [state: UpdateState, steps: readonly Step[]];

/** Total: every event is allowed in every state; one that says nothing there changes nothing. */
export function next(state: UpdateState, event: Event, policy: Policy): Outcome {
  switch (event.event) {
    case "started":
      return onStarted(state, event.banks, policy);
    case "seen":
      return onSeen(state, event, policy);
    case "withheld":
      return onWithheld(state, event.target, policy);
    case "staged":
      return onStaged(state, event.bank, policy);
    case "failed":
      return onFailed(state);
    case "tick":
      return onTick(state, event.passedMs, policy);
    case "permitted":
      return onPermitted(state, policy);
    case "held":
      return onHeld(state, event.at, policy);
    case "vetoed":
      return onVetoed(state, event, policy);
    case "notified":
      return onNotified(state);
    case "retry":
      return stay(forgive(state));
    case "restarted":
      return onRestarted(state, event.passedMs, policy);
    case "health":
      return onHealth(state, event, policy);
    default:
      return unreachable(event);
  }
}

/** What a state implies: performed on entering it, and again after a failure or a restart of the sidecar. */
export function stepsOf(state: Phase, policy: Policy): readonly Step[] {
  const bank = served(state);
  const activate: readonly Step[] = bank === null ? [] : [{ step: "activate", bank }];
  switch (state.phase) {
    case "idle":
      return [{ step: "sweep", keep: [] }];
    case "downloading": {
      const { target, from } = state;
      const wait: Step = { step: "await-download", target, first: from === null };
      return [...activate, sweep(from), wait, { step: "build", target, from }];
    }
    case "staged": {
      const wait: Step = {
        step: "await-swap",
        bank: state.bank,
        heldSince: state.heldSince ?? null,
      };
      return state.withheld === true ? activate : [...activate, wait];
    }
    case "trial":
      return [{ step: "activate", bank: state.bank, trial: true }, trialStep(state, policy)];
    case "rolling-back":
      return [...activate, { step: "restart", withinMs: null }];
    case "committed": {
      const { notice } = state;
      const notify: readonly Step[] =
        notice === undefined ? [] : [{ step: "notify", bank: state.bank, notice }];
      return [...activate, sweep(state.bank, state.previous), ...notify];
    }
    default:
      return unreachable(state);
  }
}

function sweep(...keep: readonly (Bank | null)[]): Step {
  return { step: "sweep", keep: keep.flatMap((bank) => (bank === null ? [] : [bank.id])) };
}

function trialStep(trial: Trial, policy: Policy): Step {
  const withinMs = Math.max(0, policy.trialTimeoutMs - trial.watch.spentMs);
  if (trial.stage === "restarting") return { step: "restart", withinMs };
  return { step: "watch", withinMs, bank: trial.bank, from: trial.fallback.version };
}

function enter(state: UpdateState, phase: Phase, policy: Policy): Outcome {
  return [{ ...phase, channels: state.channels }, stepsOf(phase, policy)];
}

function stay(state: UpdateState): Outcome {
  return [state, []];
}

/** Recovery. What was being fetched is fetched again when the channel is seen; what was lost from the volume is let go. */
function onStarted(state: UpdateState, banks: readonly string[], policy: Policy): Outcome {
  const has = (bank: Bank | null): bank is Bank => bank !== null && banks.includes(bank.id);
  const settle = (...candidates: readonly (Bank | null)[]): Outcome => {
    const bank = candidates.find(has);
    if (bank === undefined) return enter(state, { phase: "idle" }, policy);
    return enter(state, { phase: "committed", bank, previous: null }, policy);
  };
  switch (state.phase) {
    case "idle":
      return enter(state, state, policy);
    case "downloading":
      return settle(state.from);
    case "staged":
      if (!has(state.bank) || !has(state.from)) return settle(state.from, state.bank);
      return enter(state, state, policy);
    case "trial": {
      if (!has(state.bank) || !has(state.fallback)) return settle(state.fallback, state.bank);
      const resumed = state.resumed + 1;
      if (resumed > RESUMPTIONS) return rollBack(state, state, "interrupted", policy);
      return enter(state, { ...state, resumed, watch: NOTHING_SEEN }, policy);
    }
    case "rolling-back":
      if (!has(state.to)) return settle(state.failed);
      return enter(state, state, policy);
    case "committed": {
      if (!has(state.bank)) return settle(state.previous);
      const previous = has(state.previous) ? state.previous : null;
      return enter(state, { ...state, previous }, policy);
    }
    default:
      return unreachable(state);
  }
}

function onSeen(
  state: UpdateState,
  event: Extract<Event, { event: "seen" }>,
  policy: Policy,
): Outcome {
  const { target } = event;
  const refusal = refuse(state, target);
  if (refusal !== undefined) return [state, [refusal]];
  const known = learn(state, target, event);
  const blocked = known.channels[target.channel]?.blocked ?? null;
  const grown = target.sequence > (state.channels[target.channel]?.sequence ?? 0);
  switch (known.phase) {
    case "idle":
      // A site that has lost all that it had takes what there is, also what it once rolled back.
      if (blocked?.reason === "hook_refused") return stay(known);
      return enter(known, { phase: "downloading", target, from: null }, policy);
    case "committed":
      if (blocked !== null || isSame(known.bank, target)) return stay(known);
      return enter(known, { phase: "downloading", target, from: known.bank }, policy);
    case "downloading":
      // The shell looks only while nothing is fetched, so nothing is lost.
      if (blocked !== null || isSame(known.target, target)) return stay(known);
      return enter(known, { ...known, target }, policy);
    case "staged":
      // What waits to be swapped gives way to what is newer, and to nothing else.
      if (grown && !isVersion(known.bank, target))
        return enter(known, { phase: "downloading", target, from: known.from }, policy);
      return known.withheld === true ? enter(known, freed(known), policy) : stay(known);
    case "trial":
    case "rolling-back":
      // One thing at a time: the channel is looked at again when this one is over.
      return stay(known);
    default:
      return unreachable(known);
  }
}

function freed(staged: Staged): Staged {
  const { withheld: _, ...others } = staged;
  return others;
}

/** What has not been swapped is not swapped; what has been fetched for it is kept. */
function onWithheld(state: UpdateState, target: Target, policy: Policy): Outcome {
  const refusal = refuse(state, target);
  if (refusal !== undefined) return [state, [refusal]];
  const known = learn(state, target, {});
  switch (known.phase) {
    case "downloading":
      return onFailed(known);
    case "staged": {
      const { bank, from } = known;
      // Of another release than the one that may come later nothing is needed.
      if (!isVersion(bank, target))
        return enter(known, { phase: "committed", bank: from, previous: null }, policy);
      return known.withheld === true
        ? stay(known)
        : enter(known, { ...known, withheld: true }, policy);
    }
    case "idle":
    case "committed":
    case "trial":
    case "rolling-back":
      return stay(known);
    default:
      return unreachable(known);
  }
}

function onStaged(state: UpdateState, bank: Bank, policy: Policy): Outcome {
  if (state.phase !== "downloading" || !isSame(state.target, bank)) return stay(state);
  const { from } = state;
  if (from === null) return commit(state, bank, null, "post-commit", policy);
  // The same tree under another number or name is adopted as it stands, without a trial of what runs already.
  if (from.tree === bank.tree)
    return enter(
      state,
      { phase: "committed", bank: { ...bank, id: from.id }, previous: null },
      policy,
    );
  return enter(state, { phase: "staged", bank, from }, policy);
}

function onFailed(state: UpdateState): Outcome {
  const { channels } = state;
  if (state.phase === "downloading") {
    const { from } = state;
    if (from === null) return [{ phase: "idle", channels }, []];
    return [{ phase: "committed", bank: from, previous: null, channels }, []];
  }
  // The swap itself failed, so nothing was tried: that is the disk's fault and not the release's.
  if (state.phase === "trial" && state.stage === "restarting")
    return [{ phase: "staged", bank: state.bank, from: state.fallback, channels }, []];
  return stay(state);
}

function onPermitted(state: UpdateState, policy: Policy): Outcome {
  if (state.phase !== "staged" || state.withheld === true) return stay(state);
  const { bank, from: fallback } = state;
  const begun = { stage: "restarting", resumed: 0, starts: 0, watch: NOTHING_SEEN } as const;
  return enter(state, { phase: "trial", bank, fallback, ...begun }, policy);
}

function onTick(state: UpdateState, passedMs: number, policy: Policy): Outcome {
  if (state.phase !== "trial") return [state, stepsOf(state, policy)];
  const spent = { ...state.watch, spentMs: state.watch.spentMs + passedMs };
  if (spent.spentMs >= policy.trialTimeoutMs)
    return rollBack(state, state, "trial_timeout", policy);
  return enter(state, { ...state, watch: spent }, policy);
}

function onRestarted(state: UpdateState, passedMs: number, policy: Policy): Outcome {
  if (state.phase === "rolling-back")
    return commit(state, state.to, state.failed, "post-rollback", policy);
  if (state.phase !== "trial" || state.stage !== "restarting") return stay(state);
  const watch = { ...state.watch, spentMs: state.watch.spentMs + passedMs };
  return watchOn(state, { ...state, stage: "watching", starts: state.starts + 1, watch }, policy);
}

function onHealth(
  state: UpdateState,
  event: Extract<Event, { event: "health" }>,
  policy: Policy,
): Outcome {
  if (state.phase !== "trial" || state.stage !== "watching") return stay(state);
  const { passedMs, starts, verdict } = event;
  const before = state.watch;
  const settledMs =
    starts > 0 ? 0 : before.settlingMs === null ? null : before.settlingMs + passedMs;
  const counts = settledMs === null || settledMs >= policy.graceMs;
  const watch: Watch = {
    spentMs: before.spentMs + passedMs,
    healthyMs:
      verdict !== "healthy" || starts > 0
        ? null
        : before.healthyMs === null
          ? 0
          : before.healthyMs + passedMs,
    failures:
      verdict === "healthy" ? 0 : before.failures + (verdict === "unhealthy" && counts ? 1 : 0),
    settlingMs: verdict === "healthy" ? null : settledMs,
  };
  return watchOn(state, { ...state, starts: state.starts + starts, watch }, policy);
}

/** @param other the bank that was served before, or was to be */
function commit(
  state: UpdateState,
  bank: Bank,
  other: Bank | null,
  hook: NoticeHook,
  policy: Policy,
): Outcome {
  const notice = policy.notices.includes(hook) && { hook, from: other?.version ?? null };
  const previous = policy.restarts ? null : other;
  return enter(
    state,
    { phase: "committed", bank, previous, ...(notice !== false && { notice }) },
    policy,
  );
}

/** The verdict on a trial, if there is one yet. */
function watchOn(state: UpdateState, trial: Trial, policy: Policy): Outcome {
  const { starts, watch } = trial;
  if (starts > policy.trialStarts) return rollBack(state, trial, "too_many_starts", policy);
  if (watch.failures >= policy.healthFailureThreshold)
    return rollBack(state, trial, "health_failed", policy);
  if (watch.healthyMs !== null && watch.healthyMs >= policy.trialDurationMs)
    return commit(state, trial.bank, trial.fallback, "post-commit", policy);
  if (watch.spentMs >= policy.trialTimeoutMs)
    return rollBack(state, trial, "trial_timeout", policy);
  return [{ ...trial, channels: state.channels }, [trialStep(trial, policy)]];
}

/** Once for a release, however often it is held: the application cannot begin anew. */
function onHeld(state: UpdateState, at: number, policy: Policy): Outcome {
  if (state.phase !== "staged" || state.heldSince !== undefined) return stay(state);
  return enter(state, { ...state, heldSince: at }, policy);
}

/** The application has the last word on what it is given: the site stays on what it has. */
function onVetoed(
  state: UpdateState,
  { hook, detail }: Extract<Event, { event: "vetoed" }>,
  policy: Policy,
): Outcome {
  const reason = "hook_refused";
  if (state.phase === "downloading" && hook === "pre-download") {
    const known = block(state, { ...state.target, tree: null, reason, detail });
    return onFailed(known);
  }
  if (state.phase === "staged" && hook === "pre-swap") {
    const { channel, sequence, version, tree } = state.bank;
    const known = block(state, { channel, sequence, version, tree, reason, detail });
    return enter(known, { phase: "committed", bank: state.from, previous: null }, policy);
  }
  if (state.phase === "trial" && hook === "post-swap")
    return rollBack(state, state, reason, policy, detail);
  return stay(state);
}

function onNotified(state: UpdateState): Outcome {
  if (state.phase !== "committed") return stay(state);
  const { notice: _, ...told } = state;
  return stay(told);
}

function rollBack(
  state: UpdateState,
  { bank, fallback }: Trial,
  reason: RollbackReason,
  policy: Policy,
  detail?: string,
): Outcome {
  const { channel, sequence, version, tree } = bank;
  const what = {
    channel,
    sequence,
    version,
    tree,
    reason,
    ...(detail !== undefined && { detail }),
  };
  return enter(block(state, what), { phase: "rolling-back", failed: bank, to: fallback }, policy);
}
