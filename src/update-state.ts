/** What a site knows about its updates: the states of the update machine, which are also what the journal holds. */
import { unreachable } from "./errors.ts";
import type { Failure } from "./failure.ts";
import type { NoticeHook } from "./hook.ts";
import type { RollbackReason } from "./reasons.ts";

/** What a channel names at one sequence number. */
export interface Target {
  /** `<app>/<channel>`: sequence numbers of different channels have nothing to do with each other. */
  readonly channel: string;
  readonly sequence: number;
  readonly version: string;
}

/** A complete, verified tree on the payload volume. */
export interface Bank extends Target {
  /** Its folder under `banks/`. */
  readonly id: string;
  /** Digest of the tree, see `treeDigest`. */
  readonly tree: string;
}

/** What is remembered of a channel for ever. */
export interface ChannelMemory {
  /** The highest sequence number seen. */
  readonly sequence: number;
  /** The release that was rolled back at this sequence number; not tried again before the number grows. */
  readonly blocked: Blocked | null;
  /** Salt of the roll-out in which this site's turn has come; it then counts as come until the roll-out is paused. */
  readonly begun?: string | undefined;
  /** What it names now shall not wait for windows, budgets and the like. */
  readonly urgent?: true | undefined;
}

export interface Blocked {
  readonly sequence: number;
  readonly version: string;
  /** Null when nothing of it was ever fetched. */
  readonly tree: string | null;
  readonly reason: RollbackReason;
  /** What a hook said, in a line. */
  readonly detail?: string | undefined;
  /** The last check that failed. */
  readonly failure?: Failure | undefined;
  /** How often in a row nothing reached the application: the release is kept, and tried again by itself after a while. */
  readonly tries?: number | undefined;
}

export type Phase =
  | { readonly phase: "idle" }
  | (Astray & {
      readonly phase: "downloading";
      readonly target: Target;
      readonly from: Bank | null;
    })
  | Staged
  | Trial
  /** The application has not been told yet that `to` is in place again: it may run that, or `failed`. */
  | (Astray & {
      readonly phase: "rolling-back";
      readonly failed: Bank;
      readonly to: Bank;
    })
  | {
      readonly phase: "committed";
      readonly bank: Bank;
      /** Kept because the application may still use its files: with on-update none nobody knows. The next update takes its room. */
      readonly previous: Bank | null;
      /** Of which the application has not been told yet. */
      readonly notice?: Notice | undefined;
    };

/** What has become of a release. */
export interface Notice {
  readonly hook: NoticeHook;
  /** The version before it; after a rollback the one that failed. Null for a first release. */
  readonly from: string | null;
}

interface Astray {
  /**
   * Banks that the application may run besides, the last one first: it could not be told of anything else since. They are kept until it
   * has been told of whatever bank.
   */
  readonly mayRun?: readonly Bank[] | undefined;
}

/** So many of them are kept. Where nothing reaches the application there is no sense in more releases that will not either. */
export const ASTRAY_LIMIT = 3;

export interface Staged extends Astray {
  readonly phase: "staged";
  readonly bank: Bank;
  readonly from: Bank;
  /** Whole milliseconds since the epoch at which the application was first all that stood in the way of the swap. */
  readonly heldSince?: number | undefined;
  /** The channel has been paused: the bank is kept, and not swapped before the channel goes on. */
  readonly withheld?: true | undefined;
}

export interface Trial extends Astray {
  readonly phase: "trial";
  readonly bank: Bank;
  readonly fallback: Bank;
  /** `restarting` until the main container has been seen to start with the new release. */
  readonly stage: "restarting" | "watching";
  /** How often the sidecar itself started during this trial. */
  readonly resumed: number;
  /** How often the main container started with the release on trial. */
  readonly starts: number;
  /** What this process has seen; not saved, so a resumed trial begins anew with it. */
  readonly watch: Watch;
}

export interface Watch {
  /** Milliseconds since the restart was asked for. */
  readonly spentMs: number;
  /** Milliseconds of health without a break; null when the last check was not healthy. */
  readonly healthyMs: number | null;
  /** Failed checks in a row. */
  readonly failures: number;
  /** Milliseconds since the last start without a healthy check; null once there was one. */
  readonly settlingMs: number | null;
  /** The last check that failed. */
  readonly failure?: Failure | undefined;
}

export type UpdateState = Phase & {
  readonly channels: Readonly<Record<string, ChannelMemory>>;
};

export const INITIAL: UpdateState = { phase: "idle", channels: {} };

/** What a process has seen of a trial that it has just begun or resumed. */
export const NOTHING_SEEN: Watch = { spentMs: 0, healthyMs: null, failures: 0, settlingMs: 0 };

/** Every bank that a state knows of; what is to be served comes first. */
export function banksOf(state: Phase): readonly Bank[] {
  const banks = (...list: readonly (Bank | null)[]): readonly Bank[] =>
    list.filter((bank) => bank !== null);
  switch (state.phase) {
    case "idle":
      return [];
    case "downloading":
      return banks(state.from, ...astray(state));
    case "staged":
      return [state.from, state.bank, ...astray(state)];
    case "trial":
      return [state.bank, state.fallback, ...astray(state)];
    case "rolling-back":
      return [state.to, state.failed, ...astray(state)];
    case "committed":
      return banks(state.bank, state.previous);
    default:
      return unreachable(state);
  }
}

/** The bank that `current` must name in a state; null when it is left as it is. */
export function served(state: Phase): Bank | null {
  return banksOf(state)[0] ?? null;
}

/** The banks that the application may run besides those that the phase is about. */
export function astray(state: Phase): readonly Bank[] {
  return ("mayRun" in state && state.mayRun) || [];
}

/** Whether the application is, or may be, on its way from one bank to another. */
export function isSwapping(state: Phase): boolean {
  const { phase } = state;
  return phase === "trial" || phase === "rolling-back" || astray(state).length > 0;
}

export function isSame(a: Target, b: Target): boolean {
  return a.channel === b.channel && a.sequence === b.sequence && a.version === b.version;
}

/** Whether two are the same release, at whatever sequence number. */
export function isVersion(a: Target, b: Target): boolean {
  return a.channel === b.channel && a.version === b.version;
}
