/** Replicas of one site are not swapped at the same time, and where they share a volume one of them leads. */
import type { WaitReason } from "#core/reasons.ts";
import type { Target } from "#core/update-state.ts";

export interface Replica {
  /** Says which release the turn will be asked for, where that makes a difference. */
  readonly want?: (target: Target) => void;
  /**
   * Tries to have the turn among the replicas, without waiting for it; also when it is had already. It is had from a swap until the trial
   * is over, and asked for again when a trial is resumed.
   *
   * @returns null when it is had, or why it is not
   */
  take(signal: AbortSignal): Promise<WaitReason | null>;
  /** Gives it to the next. Does nothing when it is not had. */
  release(): Promise<void>;
}

/** The only one of its site. */
export const single: Replica = {
  take: () => Promise.resolve(null),
  release: () => Promise.resolve(),
};
