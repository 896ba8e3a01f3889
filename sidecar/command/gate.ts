/** `edgesync status --wait`: until the start gate is open, telling what is missing meanwhile. */
import type { Clock } from "#core/clock.ts";
import { EdgeSyncError, codeOf } from "#core/errors.ts";
import { formatDuration } from "#core/values.ts";
import type { Agent } from "./ask.ts";
import { isOpen, summaryOf } from "./words.ts";

export interface Progress {
  /** Where a line can be written over by the next. */
  readonly isTerminal: boolean;
  /** Columns of that terminal; a line that is written over must not be broken. */
  readonly columns?: number;
  readonly write: (text: string) => void;
}

/** Milliseconds between two looks at the gate. */
const PERIOD_MS = 500;

/**
 * The status as soon as the start gate is open, however long that takes: a machine may be cut off for days.
 *
 * @param timeoutMs after which it is given up; `undefined` for never
 * @throws EdgeSyncError GATE_CLOSED
 */
export async function whenOpen(
  agent: Agent,
  timeoutMs: number | undefined,
  { progress, clock }: { readonly progress: Progress; readonly clock: Clock },
  signal: AbortSignal,
): Promise<unknown> {
  const end = clock.monotonic() + (timeoutMs ?? Infinity);
  const show = openShow(progress);
  for (;;) {
    let reasons: readonly string[];
    try {
      const document = await agent.status(signal);
      if (isOpen(document)) {
        show.end();
        return document;
      }
      reasons = summaryOf(document);
    } catch (error) {
      signal.throwIfAborted();
      // It may not be up yet.
      if (!(error instanceof EdgeSyncError) || codeOf(error) !== "AGENT_UNAVAILABLE") throw error;
      reasons = [error.message];
    }
    const reason = reasons.join("; ");
    if (timeoutMs !== undefined && clock.monotonic() >= end) {
      show.end();
      throw new EdgeSyncError(
        "GATE_CLOSED",
        `not open after ${formatDuration(timeoutMs)}: ${reason}`,
      );
    }
    show.now(reason);
    const leftMs = Math.max(1, end - clock.monotonic());
    await clock.sleep(Math.min(PERIOD_MS, leftMs), signal);
  }
}

/** One line for each change, or the same line anew on a terminal. */
function openShow({ isTerminal, columns = 80, write }: Progress): {
  readonly now: (text: string) => void;
  readonly end: () => void;
} {
  let last = "";
  return {
    now(text) {
      // Bytes that come are no news for a log.
      const state = isTerminal ? text : text.replaceAll(/, [\d.]+ of [\d.]+ MB/g, "");
      if (state === last) return;
      last = state;
      write(isTerminal ? `\r\u001b[K${state.slice(0, columns - 1)}` : `edgesync: ${state}\n`);
    },
    end() {
      if (isTerminal && last !== "") write("\r\u001b[K");
    },
  };
}
