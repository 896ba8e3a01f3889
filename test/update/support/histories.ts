/** Histories of the update machine: events, and what comes of them. */
import * as fc from "../../support/property.ts";
import type { Veto } from "#core/hook.ts";
import type { Policy } from "#core/policy.ts";
import { next } from "#core/update.ts";
import type { Event, Step } from "#core/update.ts";
import { INITIAL } from "#core/update-state.ts";
import type { Bank, Target, UpdateState } from "#core/update-state.ts";

export const CHANNEL = "web/stable";

export const policy: Policy = {
  trialDurationMs: 60_000,
  trialTimeoutMs: 600_000,
  trialStarts: 2,
  healthFailureThreshold: 3,
  graceMs: 60_000,
  judged: true,
  restarts: true,
  notices: [],
};

/** Of an application that wants to be told. */
export const attentive: Policy = { ...policy, notices: ["post-commit", "post-rollback"] };

export function target(sequence: number): Target {
  return { channel: CHANNEL, sequence, version: `1.${sequence}.0` };
}

export function bank(sequence: number): Bank {
  const tree = sequence.toString(16).padStart(64, "0");
  return { ...target(sequence), id: `1.${sequence}.0-${tree.slice(-12)}`, tree };
}

export const seen = (sequence: number): Event => ({ event: "seen", target: target(sequence) });
export const begun = (sequence: number, salt: string): Event => ({
  event: "seen",
  target: target(sequence),
  begun: salt,
});
export const urgent = (sequence: number): Event => ({
  event: "seen",
  target: target(sequence),
  urgent: true,
});
export const held: Event = { event: "held", at: 1_000 };
export const vetoed = (hook: Veto): Event => ({ event: "vetoed", hook, detail: "not now" });
export const withheld = (sequence: number): Event => ({
  event: "withheld",
  target: target(sequence),
});
export const staged = (sequence: number): Event => ({
  event: "staged",
  bank: bank(sequence),
});
export const permitted: Event = { event: "permitted" };
/** Time of a trial in which nothing of the release reached the application. */
export const unreached = (ms: number): Event => ({
  event: "tick",
  passedMs: ms,
  failure: {
    check: "on-update",
    target: "http:8080/reload",
    result: "ECONNREFUSED",
    at: "2026-03-01T06:00:00.000Z",
  },
  unreached: true,
});
export const restarted: Event = { event: "restarted", passedMs: 1_000 };
export const health = (
  verdict: "healthy" | "unhealthy" | "unknown",
  passedMs = 10_000,
  starts = 0,
): Event => ({ event: "health", verdict, starts, passedMs });
export const started = (...sequences: readonly number[]): Event => ({
  event: "started",
  banks: sequences.map((sequence) => bank(sequence).id),
});

export const sequence = fc.integer({ min: 1, max: 16 });
export const all = Array.from({ length: 128 }, (_, index) => index + 1);
export const passedMs = fc.integer({ min: 0, max: 90_000 });
export const anyEvent: fc.Arbitrary<Event> = fc.oneof(
  fc.constant(started(...all)),
  sequence.map(seen),
  sequence.map((number) => begun(number, String(number))),
  sequence.map(urgent),
  sequence.map(withheld),
  sequence.map(staged),
  fc.constantFrom(vetoed("pre-download"), vetoed("pre-swap"), vetoed("post-swap")),
  fc.constantFrom<Event>({ event: "notified" }, { event: "retry" }, held),
  fc.constant<Event>({ event: "failed", code: "DISK_FAILED" }),
  fc.constant(permitted),
  passedMs.map((ms): Event => ({ event: "tick", passedMs: ms })),
  passedMs.map((ms) => unreached(ms)),
  passedMs.map((ms): Event => ({ event: "restarted", passedMs: ms })),
  fc
    .record({
      verdict: fc.constantFrom("healthy", "unhealthy", "unknown"),
      starts: fc.integer({ min: 0, max: 1 }),
      passedMs,
    })
    .map((fields): Event => ({ event: "health", ...fields })),
);
/** Mostly what the steps lead to, so that histories get somewhere; streaks, as bad days have them; and anything else in between. */
export const history = fc
  .array(
    fc.oneof(
      { weight: 2, arbitrary: fc.tuple(anyEvent) },
      { weight: 8, arbitrary: fc.tuple(fc.constant("obey" as const)) },
      { weight: 1, arbitrary: anyEvent.map((event) => Array.from({ length: 5 }, () => event)) },
    ),
    { minLength: 1, maxLength: 80, size: "max" },
  )
  .map((parts): readonly (Event | "obey")[] => parts.flat());

/** What performing the last step of a list leads to. */
export function obey(steps: readonly Step[], turn: number): Event {
  const last = steps.at(-1);
  if (last?.step === "build") return staged(last.target.sequence);
  if (last?.step === "await-swap") return turn % 11 === 0 ? vetoed("pre-swap") : permitted;
  if (last?.step === "notify") return { event: "notified" };
  if (last?.step === "restart" && turn % 4 === 3)
    return last.withinMs === null ? seen(1 + Math.floor(turn / 4)) : unreached(last.withinMs);
  if (last?.step === "restart") return restarted;
  if (last?.step === "watch") return health(turn % 7 === 0 ? "unhealthy" : "healthy", 30_000);
  const number = 1 + Math.floor(turn / 6);
  return turn % 5 === 0 ? withheld(number) : begun(number, "salt");
}

/** Calls back for each transition of a history. */
export function follow(
  events: readonly (Event | "obey")[],
  look: (before: UpdateState, event: Event, state: UpdateState, steps: readonly Step[]) => void,
): void {
  let state = INITIAL;
  let steps: readonly Step[] = [];
  for (const [turn, given] of events.entries()) {
    const event = given === "obey" ? obey(steps, turn) : given;
    const before = state;
    [state, steps] = next(before, event, attentive);
    look(before, event, state, steps);
  }
}
