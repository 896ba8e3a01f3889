/**
 * Whether a release may be fetched, and whether the application may be given it, now. Everything that an operator states is in here; what
 * others have a say in (hooks, replicas) comes after it.
 *
 * What is urgent waits for no window, no budget and no spacing; a hold and the leases of the application stand all the same. A first
 * release waits for no window and no hold, because nothing runs without it: they are for updates. The budget and the rate are for bytes.
 */
import { dayEnd } from "./budget.ts";
import type { Usage } from "./budget.ts";
import type { WaitReason } from "./reasons.ts";
import { isTime } from "./channel-document.ts";
import type { Value } from "./values.ts";
import { openingOf } from "./window.ts";
import type { Window } from "./window.ts";

/** Whether updates are held back by the operator; a number is until when, in milliseconds since the epoch. */
export type Hold = boolean | number;

export const hold: Value<Hold> = {
  allowed: "true, false, or the time in UTC until which, such as 2026-03-01T06:00:00Z",
  parse(input) {
    if (input === "true" || input === "false") return input === "true";
    return isTime(input) ? Date.parse(input) : undefined;
  },
  format: (value) =>
    typeof value === "number" ? new Date(value).toISOString().replace(".000Z", "Z") : String(value),
};

/** What may be permitted: that bytes of a release are fetched, or that the application is given it. */
export type Moment = "download" | "swap";

export interface Rules {
  readonly hold: Hold;
  readonly downloadWindow: readonly Window[] | undefined;
  readonly swapWindow: readonly Window[] | undefined;
  /** Bytes a day. */
  readonly downloadBudget: number | undefined;
  /** Milliseconds between two restarts of the application. */
  readonly restartSpacing: number;
  /** Milliseconds for which the application may hold one release. */
  readonly holdLimit: number;
}

/** All times are in milliseconds; `now` and `until` since the epoch. */
export interface Facts {
  readonly now: number;
  readonly urgent: boolean;
  /** Nothing is installed yet. */
  readonly first: boolean;
  readonly usage: Usage;
  /** How long this process has seen the day of `usage` last. */
  readonly dayRanMs: number;
  /** When the last lease of the application ends; null when it holds none. */
  readonly leasedUntil: number | null;
  /** For how long the application has held the release already. */
  readonly heldMs: number;
  /** Since the application was restarted for a release; null when it has not been. */
  readonly sinceRestartMs: number | null;
}

/** Null when nobody knows until when. */
export type Permission =
  | { readonly go: true; readonly until: number | null }
  | { readonly go: false; readonly reason: WaitReason; readonly until: number | null };

export function permission(moment: Moment, rules: Rules, facts: Facts): Permission {
  const { now, urgent, first } = facts;
  const held = first ? null : holdOf(rules.hold, now);
  if (held !== null) return held;
  const list = moment === "download" ? rules.downloadWindow : rules.swapWindow;
  const window = urgent || first || list === undefined ? undefined : openingOf(list, now);
  if (window?.open === false) {
    const until = Number.isFinite(window.until) ? window.until : null;
    return { go: false, reason: `${moment}_window`, until };
  }
  const other = moment === "download" ? overBudget(rules, facts) : tooSoon(rules, facts);
  return other ?? { go: true, until: window?.until ?? null };
}

function holdOf(value: Hold, now: number): Permission | null {
  if (value === false || (typeof value === "number" && value <= now)) return null;
  return { go: false, reason: "held", until: value === true ? null : value };
}

function overBudget(
  { downloadBudget }: Rules,
  { urgent, usage, now, dayRanMs }: Facts,
): Permission | null {
  if (downloadBudget === undefined || urgent || usage.bytes < downloadBudget) return null;
  return { go: false, reason: "download_budget", until: dayEnd(usage, now, dayRanMs) };
}

function tooSoon({ holdLimit, restartSpacing }: Rules, facts: Facts): Permission | null {
  const { now, urgent, leasedUntil, heldMs, sinceRestartMs } = facts;
  if (leasedUntil !== null && heldMs < holdLimit)
    return {
      go: false,
      reason: "app_lease",
      until: Math.min(leasedUntil, now + holdLimit - heldMs),
    };
  if (urgent || sinceRestartMs === null || sinceRestartMs >= restartSpacing) return null;
  return { go: false, reason: "spacing", until: now + restartSpacing - sinceRestartMs };
}
