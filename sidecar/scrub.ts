/** Work on what has been committed, in the pause between two looks. */
import type { Bank } from "#core/update-state.ts";

export interface Scrub {
  /**
   * Goes on with its work on the committed bank for at most `forMs`; ends early when there is nothing to do, or no more before
   * the next pause. Rejects with the signal's reason and with nothing else: what goes wrong it reports itself.
   */
  work(bank: Bank, forMs: number, signal: AbortSignal): Promise<void>;
}

export const noScrub: Scrub = { work: () => Promise.resolve() };
