/** What `/status` says of a payload's updates. */
import type { ErrorCode } from "#core/errors.ts";
import type { Failure } from "#core/failure.ts";
import type { WaitReason } from "#core/reasons.ts";
import type { Blocked, Phase } from "#core/update-state.ts";
import type { ReplicaStatus } from "../claim/follower.ts";
import type { TimeStatus } from "../channel/trust-time.ts";
import type { ScrubStatus } from "../payload/scrub.ts";
import type { Moment } from "./permits.ts";
import type { PlanStatus } from "./plan-status.ts";

export type PhaseName = Phase["phase"];

/** The part of `/status` that concerns updates. Times are in ISO 8601, by the node's clock. */
export interface UpdateStatus {
  /** `unknown` while the journal cannot be read. */
  readonly phase: PhaseName | "unknown";
  readonly channel: string;
  /** What `current` names. */
  readonly release: { readonly version: string; readonly sequence: number } | null;
  /** What is fetched, staged or on trial. */
  readonly target: { readonly version: string; readonly sequence: number } | null;
  /** The highest sequence number seen in the channel; nothing below it is taken. */
  readonly sequence: number;
  /** Null before the first look. */
  readonly site: string | null;
  /** Null without a roll-out. */
  readonly rollout: RolloutStatus | null;
  readonly plan: PlanStatus | null;
  readonly trial: TrialStatus | null;
  /** What the next step waits for; null when it waits for nothing. */
  readonly waiting: WaitingStatus | null;
  /** Null where there is no limit. */
  readonly budget: BudgetStatus | null;
  /** Not tried again before the channel is set anew. */
  readonly blocked: Blocked | null;
  /** When the channel was last read and verified. */
  readonly lastLook: string | null;
  readonly time: TimeStatus;
  /** The verification of what is installed; null where there is none. */
  readonly scrub: ScrubStatus | null;
  /** What stands in the way; null when the last look went well. */
  readonly error: ErrorStatus | null;
  /** Absent where the payload volume is the pod's own. */
  readonly replica?: ReplicaStatus;
}

export interface ErrorStatus {
  readonly code: ErrorCode;
  readonly message: string;
  readonly since: string;
}

/** Where the site is in the roll-out of a release. */
export interface RolloutStatus {
  /** What the channel points to. */
  readonly version: string;
  /** In [0,1): the site's turn comes when the share of sites passes it. */
  readonly number: number;
  /** When it comes, or came, by the schedule as it stands; null when it does not come, or while the roll-out is paused. */
  readonly turn: string | null;
  /** Why the site does not install it; null when it does, or has it. */
  readonly waiting: WaitReason | null;
}

export interface BudgetStatus {
  /** In UTC, by trusted time. */
  readonly day: string;
  /** Fetched on it. */
  readonly bytes: number;
  readonly limit: number;
}

export interface WaitingStatus {
  /** What is not done meanwhile: a release is not fetched, or the application is not given it. */
  readonly moment: Moment;
  readonly reason: WaitReason;
  readonly since: string;
  /** Null when nobody knows. */
  readonly until: string | null;
  /** What has to be mended, or was answered; null when there is nothing to say. */
  readonly failure: Failure | null;
}

export interface TrialStatus {
  readonly stage: "restarting" | "watching";
  readonly fallback: string;
  readonly starts: number;
  readonly resumed: number;
  readonly spentMs: number;
  readonly healthyMs: number | null;
  /** The last check that failed in this trial, as this process has seen it; null when none has. */
  readonly failure: Failure | null;
}
