/** A plan as `/status` and the log tell it: what is had in which way, for how many bytes, and why files come whole. */
import type { Plan, Share } from "#core/plan.ts";
import type { WholeReason } from "#core/reasons.ts";
import type { How } from "#core/route.ts";

/** By how contents are had: kept, by one delta, by a chain of deltas, whole. Bytes are on the wire; what two contents share counts for one. */
export type Ways = Readonly<Record<How, Share>>;

/** Only the reasons that there are. */
export type Whole = Readonly<Partial<Record<WholeReason, Share>>>;

export interface PlanStatus {
  readonly version: string;
  readonly from: string | null;
  readonly downloadBytes: number;
  /** In this process; a download that was resumed began with more. */
  readonly receivedBytes: number;
  /** What a site with nothing would fetch. */
  readonly fullBytes: number;
  readonly savedBytes: number;
  readonly ways: Ways;
  readonly whole: Whole;
}

export function planStatus(
  { downloadBytes, fullBytes, ways, whole }: Plan,
  version: string,
  from: string | null,
  receivedBytes: number,
): PlanStatus {
  const reasons = Object.entries(whole).filter(([, share]) => share.contents > 0);
  return {
    version,
    from,
    downloadBytes,
    receivedBytes,
    fullBytes,
    savedBytes: fullBytes - downloadBytes,
    ways,
    whole: Object.fromEntries(reasons),
  };
}
