/**
 * Holds: leases by which an application keeps updates away for a while. Each has an owner and an end, so that one whose owner has
 * died ends by itself. They come over the control port, or as files; what counts as one is said here.
 */
import * as s from "valibot";
import { isObject } from "./json.ts";

export interface Hold {
  readonly owner: string;
  /** Milliseconds since the epoch, by the node's clock. */
  readonly since: number;
  readonly until: number;
  readonly reason?: string | undefined;
}

/** Milliseconds: the longest that one hold may be asked for, and what a file without a time means. */
export const HOLD_LIMIT_MS = 86_400_000;
export const FILE_HOLD_MS = 3_600_000;

/** At most so many at a time, of either kind: nobody needs more, and they are kept in memory. */
export const HOLDS_LIMIT = 32;

/** Who holds updates from the command line, unless told otherwise. One place is kept for it, whatever the application does. */
export const OPERATOR = "operator";

/** Whether a hold of `owner` has no place beside those of `others`. */
export function isFull(owner: string, others: Iterable<string>): boolean {
  const places = HOLDS_LIMIT - 1;
  return owner !== OPERATOR && [...others].filter((other) => other !== OPERATOR).length >= places;
}

const OWNER = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;

export const OWNER_FORM = "a name of letters, digits, '.', '_' and '-', at most 63 characters";

export function isOwner(text: string): boolean {
  return OWNER.test(text);
}

const seconds = s.pipe(s.number(), s.integer(), s.minValue(1), s.maxValue(HOLD_LIMIT_MS / 1000));
const reason = s.exactOptional(s.pipe(s.string(), s.maxLength(1024)));

const request = s.strictObject({ seconds, reason });

export interface HoldRequest {
  readonly forMs: number;
  readonly reason: string | undefined;
}

/** What a body of `PUT /v1/holds/<owner>` asks for; `undefined` when it is not one. */
export function parseHoldRequest(input: unknown): HoldRequest | undefined {
  const result = s.safeParse(request, input);
  if (!result.success) return undefined;
  return { forMs: result.output.seconds * 1000, reason: shown(result.output.reason) };
}

export const REQUEST_FORM = `{"seconds": 1 to ${HOLD_LIMIT_MS / 1000}, "reason": "a text, if you like"}`;

const HOUR = "; it holds for an hour";
const UNTIL_FORM = "until must be a time such as 2026-01-31T18:00:00Z";

const file = s.object({
  owner: s.exactOptional(s.pipe(s.string(), s.regex(OWNER))),
  until: s.exactOptional(s.string()),
  seconds: s.exactOptional(s.pipe(s.number(), s.minValue(0))),
  reason,
});

const FIELDS: Readonly<Record<string, string>> = {
  owner: `owner must be ${OWNER_FORM}`,
  until: UNTIL_FORM,
  seconds: "seconds must be a number from 0",
  reason: "reason must be a text of at most 1024 characters",
};

export interface HoldFile {
  readonly owner: string;
  readonly forMs: number;
  readonly reason: string | undefined;
  /** Why it does not hold as it says; absent when it does. */
  readonly problem?: string;
}

/**
 * What a `*.hold` file asks for, as it is first seen. One that cannot be read, because it is being written for instance, holds like an
 * empty one: an hour from when it was written.
 *
 * @param name of the file, without its ending
 * @param writtenAt when it was last written, and `now`: milliseconds since the epoch, by the same clock
 */
export function readHoldFile(name: string, text: string, writtenAt: number, now: number): HoldFile {
  const json = jsonOf(text);
  const result = s.safeParse(file, json);
  const { owner = name, until, seconds, reason } = result.success ? result.output : {};
  const stated =
    until !== undefined
      ? Date.parse(until)
      : writtenAt + (seconds === undefined ? FILE_HOLD_MS : seconds * 1000);
  const isTime = !Number.isNaN(stated);
  const end = isTime ? stated : writtenAt + FILE_HOLD_MS;
  let problem = text.trim() === "" ? undefined : problemOf(json);
  if (!isTime) problem = UNTIL_FORM + HOUR;
  if (end - now > HOLD_LIMIT_MS) problem ??= "its end is more than a day away; it holds for a day";
  const forMs = Math.min(HOLD_LIMIT_MS, Math.max(0, end - now));
  return { owner, forMs, reason: shown(reason), ...(problem !== undefined && { problem }) };
}

function problemOf(json: unknown): string | undefined {
  if (json === undefined) return `it is not JSON${HOUR}`;
  if (!isObject(json)) return `it is no JSON object${HOUR}`;
  const result = s.safeParse(file, json, { abortEarly: true });
  if (!result.success) return `${FIELDS[s.getDotPath(result.issues[0]) ?? ""] ?? ""}${HOUR}`;
  const unknown = Object.keys(json).find((key) => !Object.hasOwn(FIELDS, key));
  if (unknown === undefined) return undefined;
  return `${shown(unknown) ?? "a field"} is not one of ${Object.keys(FIELDS).join(", ")}`;
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Empty, or half written.
    return undefined;
  }
}

/** Other people's text, fit for a log and a terminal. */
export function shown(text: string | undefined): string | undefined {
  const clean = text?.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, " ").trim();
  return clean === undefined || clean === "" ? undefined : clean.slice(0, 200);
}

const saved = s.object({
  pod: s.nullable(s.string()),
  savedAt: s.number(),
  holds: s.pipe(
    s.array(
      s.object({
        owner: s.pipe(s.string(), s.regex(OWNER)),
        since: s.number(),
        until: s.number(),
        reason: s.exactOptional(s.string()),
      }),
    ),
    // One more: what was saved before a place was kept may be full.
    s.maxLength(HOLDS_LIMIT + 1),
  ),
});

/** @param pod whose application they are: on a volume that outlives the pod they are nobody's afterwards */
export function formatHolds(holds: readonly Hold[], pod: string | undefined, now: number): string {
  return `${JSON.stringify({ pod: pod ?? null, savedAt: now, holds })}\n`;
}

/**
 * The holds of this pod that were saved and have not ended, each with the milliseconds that are left of it. A clock that was set back
 * meanwhile does not make them longer. What cannot be read holds nothing.
 */
export function parseHolds(
  text: string,
  pod: string | undefined,
  now: number,
): readonly (Hold & { readonly leftMs: number })[] {
  const result = s.safeParse(saved, jsonOf(text));
  if (!result.success || result.output.pod !== (pod ?? null)) return [];
  const { savedAt, holds } = result.output;
  return holds
    .map((hold) => ({
      ...hold,
      leftMs: Math.min(HOLD_LIMIT_MS, hold.until - Math.max(now, savedAt)),
    }))
    .filter(({ leftMs }) => leftMs > 0);
}
