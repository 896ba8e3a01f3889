/** The words of the update machine: what it hears, and what it has done. */
import type { ErrorCode } from "./errors.ts";
import type { Failure } from "./failure.ts";
import type { Veto } from "./hook.ts";
import type { Bank, Notice, Target } from "./update-state.ts";

export type Verdict = "healthy" | "unhealthy" | "unknown";

export type Event =
  /** The sidecar came up; `banks` are the complete banks that the volume holds. */
  | { readonly event: "started"; readonly banks: readonly string[] }
  /** The channel, verified, names this for the site. */
  | {
      readonly event: "seen";
      readonly target: Target;
      /** Salt of the roll-out in which its turn has come. */
      readonly begun?: string | undefined;
      /** It shall not wait for windows, budgets and the like. */
      readonly urgent?: true | undefined;
    }
  /** The channel, verified, names this, but not for the site yet: its turn has not come, or the roll-out is paused. */
  | { readonly event: "withheld"; readonly target: Target }
  /** The target's bank is complete and verified on disk, or was already. */
  | { readonly event: "staged"; readonly bank: Bank }
  /** The last step could not be done; it is tried again by a `tick`. */
  | { readonly event: "failed"; readonly code: ErrorCode }
  /** Time to go on with whatever is pending. */
  | {
      readonly event: "tick";
      readonly passedMs: number;
      /** What stood in the way of the delivery at last. */
      readonly failure?: Failure | undefined;
      /** Nothing of the delivery can have reached the application. */
      readonly unreached?: true | undefined;
    }
  /** Now is a time at which the bank may be swapped. */
  | { readonly event: "permitted" }
  /** Only the application stands in the way of the swap: for how long it may is counted from here, in whole milliseconds since the epoch. */
  | { readonly event: "held"; readonly at: number }
  /** The application does not want the release, and says why in a line. */
  | {
      readonly event: "vetoed";
      readonly hook: Veto;
      readonly detail: string;
      readonly failure?: Failure | undefined;
    }
  /** The application has been told what became of a release, or has not listened for long enough. */
  | { readonly event: "notified" }
  /** A person's command: what is blocked may be tried again. */
  | { readonly event: "retry" }
  /** The application has what `current` names: every container that has the payload was seen to start, or it has been told. */
  | { readonly event: "restarted"; readonly passedMs: number }
  | {
      readonly event: "health";
      readonly verdict: Verdict;
      /** Starts of the main container since the last event. */
      readonly starts: number;
      /** Monotonic milliseconds since the last event. */
      readonly passedMs: number;
      /** What did not go well in it. */
      readonly failure?: Failure | undefined;
    };

export type Step =
  /** Makes `current` name the bank; one on trial only for this pod, where others see the volume too. No event. */
  | { readonly step: "activate"; readonly bank: Bank; readonly trial?: true }
  /** Removes every bank but these, the one that `current` names, and all leftovers. No event. */
  | { readonly step: "sweep"; readonly keep: readonly string[] }
  /** Waits until bytes of the release may be fetched. No event, or `vetoed`. It may be given up for a while, like `await-swap`. */
  | { readonly step: "await-download"; readonly target: Target; readonly first: boolean }
  /** Fetches and builds the bank: `staged` or `failed`. */
  | { readonly step: "build"; readonly target: Target; readonly from: Bank | null }
  /** Waits until a swap is permitted: `permitted`, `held` or `vetoed`. It may be given up for a while, so that the channel can be looked at. */
  | {
      readonly step: "await-swap";
      readonly bank: Bank;
      readonly heldSince: number | null;
      /** How often in a row nothing reached the application. */
      readonly undelivered: number;
    }
  /**
   * Gives the application what `current` names and waits until it has it: `restarted`, or `tick` after `withinMs`. Null waits as long as it
   * takes; that may be given up for a while, so that the channel can be looked at, and the delivery goes on meanwhile.
   */
  | { readonly step: "restart"; readonly withinMs: number | null }
  /** Has that go on, or begun, beside what follows: `restarted` when it has come about, else no event. */
  | { readonly step: "deliver" }
  /** Waits a period, but not longer than `withinMs`, and checks: `health`. */
  | {
      readonly step: "watch";
      readonly withinMs: number;
      readonly bank: Bank;
      /** The version before it. */
      readonly from: string;
    }
  /** Tells the application what became of a release: `notified`. It may be given up for a while. */
  | { readonly step: "notify"; readonly bank: Bank; readonly notice: Notice }
  /** Reports an offer that must not be taken. No event. */
  | {
      readonly step: "refuse";
      readonly code: ErrorCode;
      readonly target: Target;
      readonly floor: number;
    };
