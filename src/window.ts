/**
 * Times in which something may be done: a cron that opens, how long it stays open, and the time zone of the cron.
 *
 * Where clocks are put forward over an opening time, the window opens when they have been; where they are put back over it, it opens
 * once, the first time. A cron for every hour means hours that really pass, and has neither. A window stays open for its duration as
 * time passes, whatever clocks do meanwhile.
 */
import { cronProblem, isCronDay, parseCron } from "./cron.ts";
import type { Cron } from "./cron.ts";
import { instantsOf, isTimeZone, offsetAt, offsetsAbout, zoneProblem } from "./time-zone.ts";
import { refusal } from "./refusal.ts";
import { duration, formatDuration } from "./values.ts";
import type { Value } from "./values.ts";

export interface Window {
  readonly cron: Cron;
  /** The five fields, as they were written. */
  readonly fields: string;
  readonly durationMs: number;
  readonly zone: string;
}

const MAX_WINDOWS = 32;
const open = duration("1m", "168h");

export const windows: Value<readonly Window[]> = {
  allowed: `<five fields of cron> <duration from 1m to 168h> [<time zone>], such as 0 2 * * 1-5 4h Europe/Berlin; up to ${MAX_WINDOWS}, separated by ;`,
  parse(input) {
    const texts = input.split(";", MAX_WINDOWS + 1);
    const parsed = texts.map((text) => parseWindow(text.trim()));
    const known = parsed.filter((window) => window !== undefined);
    return known.length === texts.length && texts.length <= MAX_WINDOWS ? known : undefined;
  },
  problem(input) {
    const texts = input.split(";", MAX_WINDOWS + 1).map((text) => text.trim());
    if (texts.length > MAX_WINDOWS) return undefined;
    const index = texts.findIndex((text) => parseWindow(text) === undefined);
    const which = texts.length > 1 ? `window ${index + 1}: ` : "";
    return `${which}${problemOf(texts[index] ?? "")}; right would be 0 2 * * 1-5 4h Europe/Berlin`;
  },
  format: (value) =>
    value
      .map(({ fields, durationMs, zone }) =>
        [fields, formatDuration(durationMs), ...(zone === "UTC" ? [] : [zone])].join(" "),
      )
      .join("; "),
};

function parseWindow(input: string): Window | undefined {
  const words = input.split(/\s+/);
  const [length = "", zone = "UTC", ...rest] = words.slice(5);
  const cron = parseCron(words.slice(0, 5));
  const durationMs = open.parse(length);
  if (cron === undefined || durationMs === undefined || rest.length > 0) return undefined;
  return isTimeZone(zone)
    ? { cron, fields: words.slice(0, 5).join(" "), durationMs, zone }
    : undefined;
}

/** What is wrong with a text that is no window: of several things the first. */
function problemOf(input: string): string {
  const words = input === "" ? [] : input.split(/\s+/);
  if (words.length === 0) return "there is nothing";
  if (words[0]?.startsWith("@")) return `${words[0].slice(0, 40)} is none of five fields of cron`;
  const early = words.findIndex((word) => /^\d+(h|m|s|d|ms)/.test(word));
  const count = early === -1 ? words.length : early;
  if (count < 5)
    return `there are ${count} fields of cron; five are needed: minute, hour, day of the month, month, day of the week`;
  const cron = cronProblem(words.slice(0, 5));
  if (cron !== undefined) return cron;
  const [length, zone = "UTC", more] = words.slice(5);
  if (length === undefined) return "the duration is missing behind the five fields of cron";
  if (open.parse(length) === undefined)
    return `the duration is ${JSON.stringify(length.slice(0, 40))}; ${refusal(open, length)}`;
  if (!isTimeZone(zone)) return zoneProblem(zone);
  return `${JSON.stringify(more?.slice(0, 40))} is too much behind the time zone; windows are parted by ;`;
}

export interface Opening {
  readonly open: boolean;
  /** Milliseconds since the epoch at which that changes; of an open one it is the soonest that it may. */
  readonly until: number;
}

const DAY_MS = 86_400_000;

/** Beyond it nobody wants to know when an open window closes. */
const MERGED = 64;

/** Whether one of several windows is open. @param now milliseconds since the epoch, as all times here */
export function openingOf(list: readonly Window[], now: number): Opening {
  let until = now;
  // One may open before another has closed.
  for (let merged = 0; merged < MERGED; merged++) {
    const ends = list.map((window) => lastStart(window, until) + window.durationMs);
    const end = Math.max(...ends);
    if (!(end > until)) break;
    until = end;
  }
  if (until > now) return { open: true, until };
  return { open: false, until: Math.min(...list.map((window) => nextStart(window, now))) };
}

/** When a window opened last, if it is open still; -Infinity otherwise. */
function lastStart(window: Window, now: number): number {
  const today = localDay(window, now);
  const first = localDay(window, now - window.durationMs) - 1;
  for (let day = today + 1; day >= first; day--) {
    const last = Math.max(...startsOn(window, day).filter((start) => start <= now));
    if (last > -Infinity) return last + window.durationMs > now ? last : -Infinity;
  }
  return -Infinity;
}

/** A 29th of February may be eight years away. */
const FURTHEST_DAYS = 8 * 366 + 2;

function nextStart(window: Window, now: number): number {
  const today = localDay(window, now);
  for (let day = today - 1; day <= today + FURTHEST_DAYS; day++) {
    const next = Math.min(...startsOn(window, day).filter((start) => start > now));
    if (next < Infinity) return next;
  }
  return Infinity;
}

function localDay({ zone }: Window, time: number): number {
  return Math.floor((time + offsetAt(zone, time)) / DAY_MS);
}

/** Every opening time of a local day. */
function startsOn({ cron, zone }: Window, day: number): readonly number[] {
  if (!isCronDay(cron, day)) return [];
  const midnight = day * DAY_MS;
  const offsets = offsetsAbout(zone, midnight);
  const starts: number[] = [];
  for (const hour of cron.hours)
    for (const minute of cron.minutes) {
      const instants = instantsOf(offsets, midnight + (hour * 60 + minute) * 60_000);
      if (cron.anyHour) starts.push(...instants);
      // Where clocks are put forward over it: when they have been.
      else starts.push(instants[0] ?? offsets.at);
    }
  return starts;
}
