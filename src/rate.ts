/** A token bucket: bytes may come at a rate, and after a pause one second's worth of them at once. */

export interface Bucket {
  /** Bytes that may come now; below zero while what has come too early is waited for. */
  readonly tokens: number;
  /** Monotonic milliseconds at which it was so. */
  readonly at: number;
}

export const FULL: Bucket = { tokens: Infinity, at: 0 };

/**
 * Takes bytes that have come.
 *
 * @param rate bytes a second
 * @returns with the milliseconds to wait before more are taken
 */
export function take(
  { tokens, at }: Bucket,
  bytes: number,
  now: number,
  rate: number,
): readonly [Bucket, waitMs: number] {
  const filled = Math.min(rate, tokens + (Math.max(0, now - at) * rate) / 1000);
  const left = filled - bytes;
  return [{ tokens: left, at: now }, left < 0 ? (-left / rate) * 1000 : 0];
}
