/** Local time in a time zone of the IANA database, which Node carries. */

import { nearName } from "./near-name.ts";

const FORMATS = new Map<string, Intl.DateTimeFormat>();

export function isTimeZone(name: string): boolean {
  if (!/^[A-Za-z][A-Za-z0-9_+/-]{0,63}$/.test(name)) return false;
  try {
    formatOf(name);
    return true;
  } catch {
    // What Intl does not know is none.
    return false;
  }
}

/** What a name that is none may have meant. */
export function zoneProblem(name: string): string {
  const said = JSON.stringify(name.slice(0, 64));
  if (/^(UTC|GMT)?[+-]\d/.test(name))
    return `${said} is an offset, which knows no summer time; name a time zone`;
  const near = name.length > 64 ? undefined : nearName(name, Intl.supportedValuesOf("timeZone"));
  return `${said} is no time zone${near === undefined ? "" : `; did you mean ${near}?`}`;
}

function formatOf(zone: string): Intl.DateTimeFormat {
  const known = FORMATS.get(zone);
  if (known !== undefined) return known;
  // Making one takes a hundred times as long as using it.
  const made = new Intl.DateTimeFormat("en-US", { timeZone: zone, timeZoneName: "longOffset" });
  FORMATS.set(zone, made);
  return made;
}

/** Milliseconds by which local time is ahead of UTC. @param time milliseconds since the epoch */
export function offsetAt(zone: string, time: number): number {
  if (zone === "UTC") return 0;
  const parts = formatOf(zone).formatToParts(time);
  const name = parts.find((part) => part.type === "timeZoneName")?.value ?? "";
  const match = /^GMT([+-])(\d{2}):(\d{2})(?::(\d{2}))?$/.exec(name);
  if (match === null) return 0;
  const [, sign, hours, minutes, seconds = "0"] = match;
  const ms = (Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds)) * 1000;
  return sign === "-" ? -ms : ms;
}

const DAY_MS = 86_400_000;

/** The offsets about a day, and when one gives way to the other: no zone moves its clocks twice in three days. */
export interface Offsets {
  readonly before: number;
  readonly after: number;
  /** Milliseconds since the epoch; -Infinity where both are the same. */
  readonly at: number;
}

/** @param midnight at which a local day begins, as if it were UTC, in milliseconds since the epoch */
export function offsetsAbout(zone: string, midnight: number): Offsets {
  let low = midnight - DAY_MS;
  let high = midnight + 2 * DAY_MS;
  const before = offsetAt(zone, low);
  const after = offsetAt(zone, high);
  if (before === after) return { before, after, at: -Infinity };
  // To the second, as zones are defined.
  while (high - low > 1000) {
    const middle = Math.floor((low + high) / 2000) * 1000;
    if (offsetAt(zone, middle) === before) low = middle;
    else high = middle;
  }
  return { before, after, at: high };
}

/**
 * When it is a local time of that day: twice where clocks are put back over it, and never where they are put forward over it.
 *
 * @param local the local time as if it were UTC, in milliseconds since the epoch
 */
export function instantsOf({ before, after, at }: Offsets, local: number): readonly number[] {
  const first = local - before;
  const second = local - after;
  return [...(first < at ? [first] : []), ...(second >= at ? [second] : [])];
}
