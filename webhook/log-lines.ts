/**
 * Where the log goes: the lines of some milliseconds in one write. A write for each review's line would cost as much as a third of the review. They are put
 * down as bytes when they come: a line is made of dozens of small texts, which to keep and join later costs far more.
 */
import { Buffer } from "node:buffer";
import type { Clock } from "#core/clock.ts";

/** Milliseconds for which a line may wait; whoever reads them as they come does not see it. */
const BATCH_MS = 20;

/** More lines than that go out earlier. */
const BATCH_BYTES = 64 * 1024;

/** Bytes that a character (a UTF-16 unit) may take in UTF-8. */
const MOST_BYTES = 3;

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
  const waiting = Buffer.allocUnsafeSlow(BATCH_BYTES);
  let used = 0;
  let due = false;
  const flush = (): void => {
    if (used > 0) out.write(waiting.toString("utf8", 0, used));
    used = 0;
  };
  const flushDue = (): void => {
    due = false;
    flush();
  };
  return {
    write(line) {
      if (line.length * MOST_BYTES > BATCH_BYTES - used) flush();
      if (line.length * MOST_BYTES > BATCH_BYTES) {
        out.write(line);
        return;
      }
      used += waiting.write(line, used);
      if (due) return;
      due = true;
      // Once the process is about to end, each goes out at once.
      void clock.sleep(BATCH_MS, signal).then(flushDue, flushDue);
    },
    flush,
  };
}
