/** The agents do not end by themselves. Should one fail all the same, it is opened again, with growing pauses: nobody else will. */
import { backoffMs } from "#core/backoff.ts";
import type { Clock } from "#core/clock.ts";
import { codeOf } from "#core/errors.ts";
import type { Log } from "#core/telemetry.ts";

export interface SuperviseDeps {
  readonly clock: Clock;
  /** A number in [0,1). */
  readonly random: () => number;
  readonly log: Log;
}

/** Milliseconds; the first start of the main container may hang on it, so it is not tried much more seldom than a probe comes. */
const CAP_MS = 30_000;

/** Resolves when `signal` is aborted and what runs has ended; never rejects. */
export async function supervise(
  part: string,
  run: (signal: AbortSignal) => Promise<void>,
  { clock, random, log }: SuperviseDeps,
  signal: AbortSignal,
): Promise<void> {
  for (let attempt = 0; !signal.aborted; attempt++) {
    const begun = clock.monotonic();
    try {
      await run(signal);
    } catch (err) {
      if (signal.aborted) return;
      log.error({ err, code: codeOf(err), part }, "part of the sidecar failed");
    }
    if (clock.monotonic() - begun > CAP_MS) attempt = 0;
    const delayMs = backoffMs(attempt, random, CAP_MS);
    // An abort ends the loop, and the pause with it.
    await clock.sleep(delayMs, signal).catch(() => undefined);
  }
}
