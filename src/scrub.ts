/**
 * The scrub verifies the installed release again, because disks forget: when a pass begins, how fast it reads, and what counts as
 * damage. Everything is counted in monotonic time, so that a clock that is set neither skips a pass nor begins a hundred.
 */
import type { Entry } from "./release.ts";
import { jitterMs } from "./retry.ts";

/** In the order in which they are looked for. */
export const DAMAGE = {
  manifest: "the list of the release's files cannot be read",
  missing: "an entry is not there",
  kind: "it is a file, a directory or a link, and should be another of these",
  target: "a link leads elsewhere",
  mode: "a file or directory cannot be read or run by everybody who should",
  content: "a file has other bytes",
  extra: "there is something that the release does not have",
} as const;
export type Damage = keyof typeof DAMAGE;

/** Milliseconds after a start until the first pass: soon, because a power cut may have come before; not at once, nor with every other site. */
export function firstPassMs(intervalMs: number, random: () => number): number {
  return (intervalMs / 24) * random();
}

/** Milliseconds from the end of a pass to the next. */
export function nextPassMs(intervalMs: number, random: () => number): number {
  return jitterMs(intervalMs, random);
}

const RETRY_FIRST_MS = 60_000;

/** Milliseconds until a repair is tried again that failed `failures` times in a row: from a minute, doubling to the interval. */
export function repairAgainMs(failures: number, intervalMs: number, random: () => number): number {
  const ms = RETRY_FIRST_MS * 2 ** Math.min(failures - 1, 20);
  return jitterMs(Math.min(intervalMs, ms), random);
}

/**
 * Until when a rate is used up, in the milliseconds of `now`. Time in which nothing was read is not made up for, and what was read
 * before a pause counts after it too.
 *
 * @param until what this said the last time
 * @param bytes that have been read now
 * @param rate bytes a second
 */
export function usedUntil(until: number, now: number, bytes: number, rate: number): number {
  return Math.max(until, now) + (bytes * 1000) / rate;
}

export interface Found {
  readonly kind: string;
  /** Permission bits. */
  readonly mode: number;
  /** Of a link. */
  readonly target?: string | undefined;
}

/**
 * What is wrong with an entry, apart from the bytes of a file. Of modes it matters what everybody may do; volumes rewrite the other bits.
 *
 * @param wanted the mode that it was given
 */
export function damageOf(
  entry: Entry,
  found: Found | undefined,
  wanted: number,
): Damage | undefined {
  if (found === undefined) return "missing";
  if (found.kind !== entry.type) return "kind";
  if (entry.type === "symlink") return found.target === entry.target ? undefined : "target";
  const runs = (found.mode & 0o111) !== 0;
  const shown = wanted & 0o555;
  return (found.mode & shown) === shown && runs === ((wanted & 0o111) !== 0) ? undefined : "mode";
}
