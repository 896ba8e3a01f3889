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
 * Names after Mender's client states; "blocked" after snapd.
 */
import { block, forgive, learn, refuse, undelivered } from "./channel-memory.ts";
import { unreachable } from "./errors.ts";
import type { NoticeHook } from "./hook.ts";
import type { Policy } from "./policy.ts";
import type { RollbackReason } from "./reasons.ts";
import { lateReason, verdictOn, watched } from "./trial.ts";
import type { Event, Step } from "./update-events.ts";
import { ASTRAY_LIMIT, NOTHING_SEEN, astray, isSame, isVersion } from "./update-state.ts";
import type { Bank, Blocked, Phase, Staged, Target, Trial, UpdateState } from "./update-state.ts";
import { stepsOf, trialStep } from "./update-steps.ts";

export type { Event, Step, Verdict } from "./update-events.ts";
export { stepsOf } from "./update-steps.ts";

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
      return onFailed(state, policy);
    case "tick":
      return onTick(state, event, policy);
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

function enter({ channels }: UpdateState, phase: Phase, policy: Policy): Outcome {
  const state = { ...phase, channels };
  return [state, stepsOf(state, policy)];
}

/** Banks that the application may run besides those that a phase is about. */
function besides(lost: readonly Bank[], ...known: readonly Bank[]): Pick<Staged, "mayRun"> {
  const ids = new Set(known.map(({ id }) => id));
  const mayRun = lost.filter(({ id }) => !ids.has(id));
  return mayRun.length === 0 ? {} : { mayRun };
}

/** To what the site has, of which the application may still have to be told. */
function back(state: UpdateState, to: Bank, policy: Policy): Outcome {
  const [failed, ...others] = astray(state);
  if (failed === undefined)
    return enter(state, { phase: "committed", bank: to, previous: null }, policy);
  return enter(state, { phase: "rolling-back", failed, to, ...besides(others) }, policy);
}

function stay(state: UpdateState): Outcome {
  return [state, []];
}

/** Recovery. What was being fetched is fetched again when the channel is seen; what was lost from the volume is let go. */
function onStarted(state: UpdateState, banks: readonly string[], policy: Policy): Outcome {
  const has = (bank: Bank | null): bank is Bank => bank !== null && banks.includes(bank.id);
  const lost = besides(astray(state).filter(has));
  const settle = (...candidates: readonly (Bank | null)[]): Outcome => {
    const bank = candidates.find(has);
    if (bank === undefined) return enter(state, { phase: "idle" }, policy);
    return enter(state, { phase: "committed", bank, previous: null }, policy);
  };
  switch (state.phase) {
    case "idle":
      return enter(state, state, policy);
    case "downloading":
      return has(state.from)
        ? back({ ...state, mayRun: lost.mayRun }, state.from, policy)
        : settle();
    case "staged":
      if (!has(state.from)) return settle(state.bank);
      if (!has(state.bank)) return back({ ...state, mayRun: lost.mayRun }, state.from, policy);
      return enter(state, { ...told(state), ...lost }, policy);
    case "trial": {
      if (!has(state.fallback)) return settle(state.bank);
      if (!banks.includes(state.bank.id)) {
        // The application may run what is gone, and that is not the release's fault.
        const { bank: failed, fallback: to } = state;
        const others = besides(lost.mayRun ?? [], failed, to);
        const known = undelivered(state, failed) > 0 ? forgive(state, failed.channel) : state;
        return enter(known, { phase: "rolling-back", failed, to, ...others }, policy);
      }
      const trial = { ...told(state), ...lost, resumed: state.resumed + 1, watch: NOTHING_SEEN };
      if (trial.resumed > RESUMPTIONS) return rollBack(state, trial, "interrupted", policy);
      return enter(state, trial, policy);
    }
    case "rolling-back":
      if (!has(state.to)) return settle(state.failed);
      return enter(state, { ...told(state), ...lost }, policy);
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
      // What was never tried is here no more, or it would be staged: to have it again takes as long as with every release.
      if (blocked !== null && blocked.reason !== "not_delivered") return stay(known);
      if (isSame(known.bank, target)) return stay(known);
      return enter(known, { phase: "downloading", target, from: known.bank }, policy);
    case "downloading":
      // The shell looks only while nothing is fetched, so nothing is lost.
      if (blocked !== null || isSame(known.target, target)) return stay(known);
      return enter(known, { ...known, target }, policy);
    case "staged":
      // What waits to be swapped gives way to what is newer, and to nothing else.
      if (grown && !isVersion(known.bank, target)) {
        const { from, mayRun } = known;
        return enter(
          known,
          { phase: "downloading", target, from, ...besides(mayRun ?? []) },
          policy,
        );
      }
      return known.withheld === true ? enter(known, freed(known), policy) : stay(known);
    case "trial":
      // One thing at a time: the channel is looked at again when this one is over.
      return stay(known);
    case "rolling-back": {
      // The application may never take what it had: what is newer is built from there, and told to it in its turn.
      const { failed, to } = known;
      const { mayRun = [] } = besides([failed, ...astray(known)], to);
      if (blocked !== null || isSame(to, target) || mayRun.length > ASTRAY_LIMIT)
        return stay(known);
      return enter(known, { phase: "downloading", target, from: to, ...besides(mayRun) }, policy);
    }
    default:
      return unreachable(known);
  }
}

function freed(staged: Staged): Staged {
  const { withheld: _, ...others } = staged;
  return others;
}

/** When the application has been told of one bank it runs no other. */
function told<S extends Phase>(state: S & Pick<Staged, "mayRun">): Omit<S, "mayRun"> {
  const { mayRun: _, ...others } = state;
  return others;
}

/** What has not been swapped is not swapped; what has been fetched for it is kept. */
function onWithheld(state: UpdateState, target: Target, policy: Policy): Outcome {
  const refusal = refuse(state, target);
  if (refusal !== undefined) return [state, [refusal]];
  const known = learn(state, target, {});
  switch (known.phase) {
    case "downloading":
      return onFailed(known, policy);
    case "staged": {
      const { bank, from } = known;
      // Of another release than the one that may come later nothing is needed.
      if (!isVersion(bank, target)) return back(known, from, policy);
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
  if (from.tree === bank.tree) return back(state, { ...bank, id: from.id }, policy);
  // Also where it is this one, fetched a second time: when something newer takes its place it is still what the application may run.
  return enter(state, { phase: "staged", bank, from, ...besides(astray(state)) }, policy);
}

function onFailed(state: UpdateState, policy: Policy): Outcome {
  const { channels } = state;
  if (state.phase === "downloading") {
    const { from } = state;
    return [from === null ? { phase: "idle", channels } : back(state, from, policy)[0], []];
  }
  // The swap itself failed, so nothing was tried: that is the disk's fault and not the release's.
  if (state.phase === "trial" && state.stage === "restarting") {
    const { bank, fallback: from } = state;
    return [{ phase: "staged", bank, from, ...besides(astray(state)), channels }, []];
  }
  return stay(state);
}

function onPermitted(state: UpdateState, policy: Policy): Outcome {
  if (state.phase !== "staged" || state.withheld === true) return stay(state);
  const { bank, from: fallback } = state;
  const begun = { stage: "restarting", resumed: 0, starts: 0, watch: NOTHING_SEEN } as const;
  const trial = { phase: "trial", bank, fallback, ...begun, ...besides(astray(state)) } as const;
  return enter(state, trial, policy);
}

function onTick(
  state: UpdateState,
  event: Extract<Event, { event: "tick" }>,
  policy: Policy,
): Outcome {
  if (state.phase !== "trial") return [state, stepsOf(state, policy)];
  const { passedMs, failure } = event;
  const spentMs = state.watch.spentMs + passedMs;
  const trial = { ...state, watch: { ...state.watch, spentMs, ...(failure && { failure }) } };
  if (spentMs >= policy.trialTimeoutMs)
    return rollBack(state, trial, lateReason(trial, event), policy);
  return enter(state, trial, policy);
}

function onRestarted(state: UpdateState, passedMs: number, policy: Policy): Outcome {
  switch (state.phase) {
    case "rolling-back": {
      const { to, failed } = state;
      // It was not tried, so it waits for its next trial as it waited for the first.
      if (undelivered(state, failed) > 0)
        return enter(state, { phase: "staged", bank: failed, from: to }, policy);
      return commit(state, to, failed, "post-rollback", policy);
    }
    case "downloading":
      return astray(state).length === 0 ? stay(state) : enter(state, told(state), policy);
    case "staged":
      return astray(state).length === 0 ? stay(state) : enter(state, told(state), policy);
    case "trial": {
      if (state.stage !== "restarting") return stay(state);
      const watch = { ...state.watch, spentMs: state.watch.spentMs + passedMs };
      const starts = state.starts + 1;
      const trial = { ...told(state), stage: "watching", starts, watch } as const;
      // What was in the way of its delivery is over.
      const known = undelivered(state, trial.bank) > 0 ? forgive(state, trial.bank.channel) : state;
      return watchOn(known, trial, policy);
    }
    case "idle":
    case "committed":
      return stay(state);
    default:
      return unreachable(state);
  }
}

function onHealth(
  state: UpdateState,
  event: Extract<Event, { event: "health" }>,
  policy: Policy,
): Outcome {
  if (state.phase !== "trial" || state.stage !== "watching") return stay(state);
  return watchOn(state, watched(state, event, policy), policy);
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

function watchOn(state: UpdateState, trial: Trial, policy: Policy): Outcome {
  const verdict = verdictOn(trial, policy);
  if (verdict === "healthy")
    return commit(state, trial.bank, trial.fallback, "post-commit", policy);
  if (verdict !== undefined) return rollBack(state, trial, verdict, policy);
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
  { hook, detail, failure }: Extract<Event, { event: "vetoed" }>,
  policy: Policy,
): Outcome {
  const why = { reason: "hook_refused", detail, ...(failure && { failure }) } as const;
  if (state.phase === "downloading" && hook === "pre-download") {
    const known = block(state, { ...state.target, tree: null, ...why });
    return onFailed(known, policy);
  }
  if (state.phase === "staged" && hook === "pre-swap")
    return back(block(state, { ...identity(state.bank), ...why }), state.from, policy);
  if (state.phase === "trial" && hook === "post-swap")
    return rollBack(state, state, why.reason, policy, why);
  return stay(state);
}

function onNotified(state: UpdateState): Outcome {
  if (state.phase !== "committed") return stay(state);
  const { notice: _, ...heard } = state;
  return stay(heard);
}

function identity({ channel, sequence, version, tree }: Bank): Target & Pick<Bank, "tree"> {
  return { channel, sequence, version, tree };
}

function rollBack(
  state: UpdateState,
  trial: Trial,
  reason: RollbackReason,
  policy: Policy,
  said: Pick<Blocked, "detail" | "failure"> = {},
): Outcome {
  const { bank, fallback, stage, watch } = trial;
  const { failure } = watch;
  const tries = reason === "not_delivered" ? { tries: undelivered(state, bank) + 1 } : {};
  const why = { reason, ...(failure && { failure }), ...said, ...tries };
  // What runs is what was told last, where anything was.
  const lost = stage === "restarting" ? besides(astray(trial), bank, fallback) : {};
  return enter(
    block(state, { ...identity(bank), ...why }),
    { phase: "rolling-back", failed: bank, to: fallback, ...lost },
    policy,
  );
}
