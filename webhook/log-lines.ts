/** Where the log goes: the lines of some milliseconds in one write. A write for each review's line would cost as much as a third of the review. */
import type { Clock } from "#core/clock.ts";

/** Milliseconds for which a line may wait; whoever reads them as they come does not see it. */
const BATCH_MS = 20;

export interface LogLines {
  write(line: string): void;
  /** Hands on what waits, for the end of the process. */
  flush(): void;
}

/** @param out takes texts at once and writes them when it can */
export function openLogLines(
  out: { write(text: string): unknown },
  clock: Clock,
  signal: AbortSignal,
): LogLines {
  let waiting = "";
  const flush = (): void => {
    if (waiting !== "") out.write(waiting);
    waiting = "";
  };
  return {
    write(line) {
      // Once the process is about to end, each goes out at once.
      if (waiting === "") void clock.sleep(BATCH_MS, signal).then(flush, flush);
      waiting += line;
    },
    flush,
  };
}
