/** What each state of the update machine implies: the steps that are performed on entering it, and again after a failure or a restart of the sidecar. */
import { undelivered } from "./channel-memory.ts";
import { unreachable } from "./errors.ts";
import type { Policy } from "./policy.ts";
import type { Step } from "./update-events.ts";
import { astray, served } from "./update-state.ts";
import type { Bank, Trial, UpdateState } from "./update-state.ts";

export function stepsOf(state: UpdateState, policy: Policy): readonly Step[] {
  const bank = served(state);
  const activate: readonly Step[] = bank === null ? [] : [{ step: "activate", bank }];
  const lost = astray(state);
  const deliver: readonly Step[] = lost.length === 0 ? [] : [{ step: "deliver" }];
  switch (state.phase) {
    case "idle":
      return [{ step: "sweep", keep: [] }];
    case "downloading": {
      const { target, from } = state;
      const wait: Step = { step: "await-download", target, first: from === null };
      const build: Step = { step: "build", target, from };
      return [...activate, ...deliver, sweep(from, ...lost), wait, build];
    }
    case "staged": {
      const wait: Step = {
        step: "await-swap",
        bank: state.bank,
        heldSince: state.heldSince ?? null,
        undelivered: undelivered(state, state.bank),
      };
      return [...activate, ...deliver, ...(state.withheld === true ? [] : [wait])];
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

export function trialStep(trial: Trial, policy: Policy): Step {
  const withinMs = Math.max(0, policy.trialTimeoutMs - trial.watch.spentMs);
  if (trial.stage === "restarting") return { step: "restart", withinMs };
  return { step: "watch", withinMs, bank: trial.bank, from: trial.fallback.version };
}
