/** Tells a server that sends on and on, but next to nothing: the slow retrieval attack of TUF and Uptane, or a connection that is as good as dead. */
import type { Clock } from "#core/clock.ts";
import type { EdgeSyncError } from "#core/errors.ts";

/** The least that must come: bytes in so many milliseconds of waiting. */
export interface Pace {
  readonly bytes: number;
  readonly windowMs: number;
}

/** 64 bytes a second: what is slower than the thinnest of links that anybody works with would not finish in this century. */
export const LEAST_PACE: Pace = { bytes: 64 * 60, windowMs: 60_000 };

/**
 * The same body, until it falls behind. Only the time counts in which bytes are waited for, and what has come is passed on first, so that
 * a download can go on behind it.
 *
 * @param behind makes what reading then throws
 */
export async function* keepPace(
  body: AsyncIterable<Uint8Array>,
  { bytes: least, windowMs }: Pace,
  clock: Clock,
  behind: () => EdgeSyncError,
): AsyncGenerator<Uint8Array, void, undefined> {
  const chunks = body[Symbol.asyncIterator]();
  let waitedMs = 0;
  let received = 0;
  try {
    for (;;) {
      const since = clock.monotonic();
      const chunk = await chunks.next();
      if (chunk.done === true) return;
      waitedMs += clock.monotonic() - since;
      received += chunk.value.byteLength;
      yield chunk.value;
      if (waitedMs < windowMs) continue;
      // A wait may have been longer than the window.
      if (received < (least * waitedMs) / windowMs) throw behind();
      waitedMs = 0;
      received = 0;
    }
  } finally {
    await chunks.return?.();
  }
}
