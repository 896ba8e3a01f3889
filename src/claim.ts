/** What a shared payload volume adds to the update machine: which bank is the committed one, and what a leader makes of a journal that another has left. */
import { served } from "./update-state.ts";
import type { Bank, Phase, UpdateState } from "./update-state.ts";

/** The bank that `current` names on a shared volume: what is on trial is seen by the leader's own workload and by no other. */
export function committedOf(state: Phase): Bank | null {
  return state.phase === "trial" ? state.fallback : served(state);
}

/**
 * A journal as the pod that now leads has to read it.
 *
 * @param current the bank that `current` names: it moves at the verdict, before the journal says so
 * @param started the bank that this pod's workload is known to have started from
 */
export function inherit(
  state: UpdateState,
  current: string | undefined,
  started: string | undefined,
): UpdateState {
  if (state.phase !== "trial") return state;
  const { bank, channels } = state;
  if (bank.id === current) return { phase: "committed", bank, previous: null, channels };
  // Another pod's workload was being watched: this one's has not seen the release yet.
  return started === bank.id ? state : { ...state, stage: "restarting" };
}
