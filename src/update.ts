/**
 * The update state machine. `next(state, event, policy)` says what the site knows afterwards and what is to be done about it; the
 * shell (`sidecar/update-agent.ts`) saves the state, then performs the steps in order, and the last step's outcome is the next event.
 *
 *     idle ──────seen──► downloading ──staged──► committed                       first installation: nothing to decide between
 *     committed ─seen──► downloading ──staged──► staged ──permitted──► trial ──healthy──► committed
 *                                                                        └──reason──► rolling-back ──restarted──► committed
 *
 * What holds in every state, and is tested over arbitrary histories:
 * - `current` is a function of the state ({@link served}); every list of steps that a state implies begins by making it so.
 * - Saved before acted on, and every step may be repeated: recovery is {@link stepsOf} the saved state.
 * - A committed release is left only for another one that the channel names for the site, never by itself.
 * - What the channel withholds from the site is not swapped, also after a restart; what was fetched of it stays.
 * - A trial ends: it is left after `trialTimeoutMs`, after `trialStarts` starts, after {@link RESUMPTIONS} restarts of the sidecar.
 * - A release that was rolled back is blocked until the channel's sequence number grows: `edgesync channel set` is the explicit
 *   command that tries it again. The sequence number itself only grows.
 *
 * Names after Mender's client states; "blocked" after snapd.
 */
import type { ErrorCode } from "./errors.ts";
import { unreachable } from "./errors.ts";
import type { Policy } from "./policy.ts";
import type { RollbackReason } from "./reasons.ts";
import { NOTHING_SEEN, isSame, isVersion, served } from "./update-state.ts";
import type { Bank, Blocked, Phase, Target, Trial, UpdateState, Watch } from "./update-state.ts";

export type Verdict = "healthy" | "unhealthy" | "unknown";

export type Event =
  /** The sidecar came up; `banks` are the complete banks that the volume holds. */
  | { readonly event: "started"; readonly banks: readonly string[] }
  /** The channel, verified, names this for the site; `begun` is the salt of the roll-out in which its turn has come. */
  | { readonly event: "seen"; readonly target: Target; readonly begun?: string | undefined }
  /** The channel, verified, names this, but not for the site yet: its turn has not come, or the roll-out is paused. */
  | { readonly event: "withheld"; readonly target: Target }
  /** The target's bank is complete and verified on disk, or was already. */
  | { readonly event: "staged"; readonly bank: Bank }
  /** The last step could not be done; it is tried again by a `tick`. */
  | { readonly event: "failed"; readonly code: ErrorCode }
  /** Time to go on with whatever is pending. */
  | { readonly event: "tick"; readonly passedMs: number }
  /** Now is a time at which the bank may be swapped. */
  | { readonly event: "permitted" }
  /** Every container that has the payload was seen to start since the lever was pulled. */
  | { readonly event: "restarted"; readonly passedMs: number }
  | {
      readonly event: "health";
      readonly verdict: Verdict;
      /** Starts of the main container since the last event. */
      readonly starts: number;
      /** Monotonic milliseconds since the last event. */
      readonly passedMs: number;
    };

export type Step =
  /** Makes `current` name the bank. No event. */
  | { readonly step: "activate"; readonly bank: Bank }
  /** Removes every bank but these, the one that `current` names, and all leftovers. No event. */
  | { readonly step: "sweep"; readonly keep: readonly string[] }
  /** Fetches and builds the bank: `staged` or `failed`. */
  | { readonly step: "build"; readonly target: Target; readonly from: Bank | null }
  /** Waits until a swap is permitted: `permitted`. It may be given up for a while, so that the channel can be looked at. */
  | { readonly step: "await-swap" }
  /** Pulls the lever and waits until it took effect: `restarted`, or `tick` after `withinMs`. Null waits as long as it takes. */
  | { readonly step: "restart"; readonly withinMs: number | null }
  /** Waits a period, but not longer than `withinMs`, and checks: `health`. */
  | { readonly step: "watch"; readonly withinMs: number }
  /** Reports an offer that must not be taken. No event. */
  | {
      readonly step: "refuse";
      readonly code: ErrorCode;
      readonly target: Target;
      readonly floor: number;
    };

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
      return [...activate, sweep(from), { step: "build", target, from }];
    }
    case "staged":
      return state.withheld === true ? activate : [...activate, { step: "await-swap" }];
    case "trial":
      return [...activate, trialStep(state, policy)];
    case "rolling-back":
      return [...activate, { step: "restart", withinMs: null }];
    case "committed":
      return [...activate, sweep(state.bank, state.previous)];
    default:
      return unreachable(state);
  }
}

function sweep(...keep: readonly (Bank | null)[]): Step {
  return { step: "sweep", keep: keep.flatMap((bank) => (bank === null ? [] : [bank.id])) };
}

function trialStep(trial: Trial, policy: Policy): Step {
  const withinMs = Math.max(0, policy.trialTimeoutMs - trial.watch.spentMs);
  return { step: trial.stage === "restarting" ? "restart" : "watch", withinMs };
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
  { target, begun }: Extract<Event, { event: "seen" }>,
  policy: Policy,
): Outcome {
  const refusal = refuse(state, target);
  if (refusal !== undefined) return [state, [refusal]];
  const known = learn(state, target, begun);
  const grown = target.sequence > (state.channels[target.channel]?.sequence ?? 0);
  switch (known.phase) {
    case "idle":
      return enter(known, { phase: "downloading", target, from: null }, policy);
    case "committed": {
      const blocked = known.channels[target.channel]?.blocked ?? null;
      if (blocked !== null || isSame(known.bank, target)) return stay(known);
      return enter(known, { phase: "downloading", target, from: known.bank }, policy);
    }
    case "staged":
      // What waits to be swapped gives way to what is newer, and to nothing else.
      if (grown && !isVersion(known.bank, target))
        return enter(known, { phase: "downloading", target, from: known.from }, policy);
      if (known.withheld !== true) return stay(known);
      return enter(known, { phase: "staged", bank: known.bank, from: known.from }, policy);
    case "downloading":
    case "trial":
    case "rolling-back":
      // One thing at a time: the channel is looked at again when this one is over.
      return stay(known);
    default:
      return unreachable(known);
  }
}

/** What has not been swapped is not swapped; what has been fetched for it is kept. */
function onWithheld(state: UpdateState, target: Target, policy: Policy): Outcome {
  const refusal = refuse(state, target);
  if (refusal !== undefined) return [state, [refusal]];
  const known = learn(state, target, undefined);
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
        : enter(known, { phase: "staged", bank, from, withheld: true }, policy);
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

function refuse({ channels }: UpdateState, target: Target): Step | undefined {
  const floor = channels[target.channel]?.sequence ?? 0;
  if (target.sequence >= floor) return undefined;
  return { step: "refuse", code: "RELEASE_ROLLBACK", target, floor };
}

/** A grown sequence number forgets what was blocked at the one before. The same knowledge is the same state. */
function learn(state: UpdateState, target: Target, begun: string | undefined): UpdateState {
  const memory = state.channels[target.channel] ?? { sequence: 0, blocked: null };
  const grown = target.sequence > memory.sequence;
  if (!grown && memory.begun === begun) return state;
  return remember(state, target, grown ? null : memory.blocked, begun);
}

function remember(
  state: UpdateState,
  { channel, sequence }: Target,
  blocked: Blocked | null,
  begun: string | undefined,
): UpdateState {
  const memory = { sequence, blocked, ...(begun !== undefined && { begun }) };
  return { ...state, channels: { ...state.channels, [channel]: memory } };
}

function onStaged(state: UpdateState, bank: Bank, policy: Policy): Outcome {
  if (state.phase !== "downloading" || !isSame(state.target, bank)) return stay(state);
  const { from } = state;
  if (from === null) return enter(state, { phase: "committed", bank, previous: null }, policy);
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
    return enter(
      state,
      { phase: "committed", bank: state.to, previous: policy.restarts ? null : state.failed },
      policy,
    );
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
  const { passedMs, starts } = event;
  const before = state.watch;
  const verdict = policy.judged ? event.verdict : "healthy";
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

/** The verdict on a trial, if there is one yet. */
function watchOn(state: UpdateState, trial: Trial, policy: Policy): Outcome {
  const { starts, watch } = trial;
  if (starts > policy.trialStarts) return rollBack(state, trial, "too_many_starts", policy);
  if (watch.failures >= policy.healthFailureThreshold)
    return rollBack(state, trial, "health_failed", policy);
  if (watch.healthyMs !== null && watch.healthyMs >= policy.trialDurationMs) {
    const previous = policy.restarts ? null : trial.fallback;
    return enter(state, { phase: "committed", bank: trial.bank, previous }, policy);
  }
  if (watch.spentMs >= policy.trialTimeoutMs)
    return rollBack(state, trial, "trial_timeout", policy);
  return [{ ...trial, channels: state.channels }, [trialStep(trial, policy)]];
}

function rollBack(
  state: UpdateState,
  { bank, fallback }: Trial,
  reason: RollbackReason,
  policy: Policy,
): Outcome {
  const { channel, sequence, version, tree } = bank;
  const memory = state.channels[channel];
  // A newer channel state that came in meanwhile is not the one that failed.
  const known =
    memory !== undefined && memory.sequence > sequence
      ? state
      : remember(state, bank, { sequence, version, tree, reason }, memory?.begun);
  return enter(known, { phase: "rolling-back", failed: bank, to: fallback }, policy);
}
