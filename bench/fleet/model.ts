/**
 * A fleet on paper: each site's looks one after the other, when they are and what they cost. Sites do not meet, so one is done after
 * another and only sums are kept. When a site looks, whether its turn has come and how it backs off is asked of the sidecar's own
 * functions; what an exchange costs was measured on the wire.
 */
import type { Rollout } from "#core/channel-document.ts";
import { pauseMs, pollMs } from "#core/retry.ts";
import { isTurn, lookDelayMs, siteNumber, turnOf } from "#core/rollout.ts";

/** What one exchange of a site with the repository takes. */
export interface Cost {
  readonly requests: number;
  readonly connections: number;
  /** At the socket, in both directions, with headers and, over TLS, with handshakes. */
  readonly bytes: number;
}

/** What a look can find. The others hold an idle look's requests too. */
export const EXCHANGES = ["idle", "renewed", "news", "install", "afterwards"] as const;
export type Exchange = (typeof EXCHANGES)[number];
export type Costs = Readonly<Record<Exchange, Cost>>;

export interface Fleet {
  readonly app: string;
  readonly channel: string;
  readonly sites: number;
  readonly name: (index: number) => string;
  readonly intervalMs: number;
  /** Milliseconds since the epoch. Every site comes up here. */
  readonly from: number;
  readonly to: number;
  /** When a site looks for the first time. */
  readonly firstLook: (random: () => number) => number;
  /** How often the publisher signs anew; null for never. */
  readonly renewMs: number | null;
  readonly publishedAt: number;
  readonly rollout: Rollout;
  /** While the repository does not answer. */
  readonly outage: { readonly from: number; readonly to: number } | null;
}

export interface Tally {
  /** Requests in each second from `from` on. */
  readonly seconds: Uint32Array;
  /** Bytes in each minute. */
  readonly minutes: Float64Array;
  /** Sites that install in each minute. */
  readonly installs: Uint32Array;
}

export function simulate(fleet: Fleet, costs: Costs, seed: number): Tally {
  const { from, to } = fleet;
  const tally: Tally = {
    seconds: new Uint32Array(Math.ceil((to - from) / 1_000)),
    minutes: new Float64Array(Math.ceil((to - from) / 60_000)),
    installs: new Uint32Array(Math.ceil((to - from) / 60_000)),
  };
  const random = randomFrom(seed);
  for (let index = 0; index < fleet.sites; index++)
    follow(fleet, fleet.name(index), costs, random, tally);
  return tally;
}

/** One site from its first look to the end. */
function follow(
  { app, channel, intervalMs, from, to, firstLook, renewMs, publishedAt, rollout, outage }: Fleet,
  site: string,
  costs: Costs,
  random: () => number,
  tally: Tally,
): void {
  const number = siteNumber({ site, app, channel, salt: rollout.salt });
  const turn = turnOf(rollout, number);
  const epoch = (time: number): number =>
    renewMs === null ? 0 : Math.floor((time - from) / renewMs);
  let seen: "nothing" | "news" | "release" = "nothing";
  let afterwards = false;
  let signed = 0;
  let failures = 0;
  let bunched = true;
  for (let now = from + firstLook(random); now < to;) {
    if (outage !== null && now >= outage.from && now < outage.to) {
      failures += 1;
      bunched = true;
      count(tally, now - from, 1, 0);
      now += pauseMs("soon", failures, intervalMs, random);
      continue;
    }
    failures = 0;
    let found: Exchange = "idle";
    if (afterwards) found = "afterwards";
    if (epoch(now) > signed) found = "renewed";
    const isNews = now >= publishedAt && seen === "nothing";
    if (isNews) {
      found = "news";
      seen = "news";
    }
    signed = epoch(now);
    afterwards = false;
    count(tally, now - from, costs[found].requests, costs[found].bytes);
    if (seen === "news" && isTurn(rollout, number, now)) {
      seen = "release";
      afterwards = true;
      const { install, idle } = costs;
      const [requests, bytes] = [install.requests - idle.requests, install.bytes - idle.bytes];
      count(tally, now - from, requests, bytes);
      const minute = Math.floor((now - from) / 60_000);
      tally.installs[minute] = (tally.installs[minute] ?? 0) + 1;
    }
    const delayMs = pollMs(intervalMs, bunched, random);
    bunched = false;
    now +=
      seen === "news"
        ? lookDelayMs(delayMs, { turn, schedule: rollout }, { now, intervalMs, random })
        : delayMs;
  }
}

function count({ seconds, minutes }: Tally, atMs: number, requests: number, bytes: number): void {
  const second = Math.floor(atMs / 1_000);
  const minute = Math.floor(atMs / 60_000);
  seconds[second] = (seconds[second] ?? 0) + requests;
  minutes[minute] = (minutes[minute] ?? 0) + bytes;
}

/** Sum of what lies in a stretch of a list. */
export function sumOf(list: Uint32Array | Float64Array, from = 0, to = list.length): number {
  let sum = 0;
  for (let index = from; index < to; index++) sum += list[index] ?? 0;
  return sum;
}

/** The busiest stretch of so many seconds, in requests a second. */
export function peakOf({ seconds }: Tally, from: number, to: number, width: number): number {
  let peak = 0;
  for (let start = from; start + width <= to; start += width)
    peak = Math.max(peak, sumOf(seconds, start, start + width));
  return peak / width;
}

/** Mulberry32, in [0,1): the same run for the same seed. */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
