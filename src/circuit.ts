/**
 * What keeps all requests of one pod to one Vault from becoming a storm when Vault fails, whatever way it fails in. A first request, which
 * follows a success, is always let through: together they are no more than a healthy Vault gets. It is the tries after a failure that
 * are counted here, over all credentials. So a credential whose own path works is never held up by the others for longer than a second.
 *
 * - `failed` (no answer, 5xx, 429, standby, nonsense) opens the circuit: until something succeeds again there is one try at a
 *   time for the whole pod, with growing pauses, in place of every credential's own.
 * - `refused` (400, 403, 404) is the path's own trouble: it opens nothing, and shows that Vault is there.
 *
 * Whatever the answers and the dice, tries after a failure that do not succeed are no more than {@link FAILURES_PER_HOUR} in
 * any 60 minutes. Times are monotonic milliseconds.
 */
import { backoffMs, inTimeMs, retryAfterPauseMs, urgentPauseMs } from "./backoff.ts";
import { unreachable } from "./errors.ts";

export interface Circuit {
  /** Since when nothing has succeeded; `undefined` while the circuit is closed. */
  readonly openSince: number | undefined;
  /** Failures in a row, whichever credential they were of. */
  readonly failures: number;
  /** When the pause that holds was begun. */
  readonly failedAt: number;
  /** Milliseconds that it lasts. */
  readonly pauseMs: number;
  /** The dice that it was thrown with: in [0,1). */
  readonly share: number;
  /** Milliseconds for which Vault then asked to be left alone, whatever ends meanwhile. */
  readonly retryAfterMs: number;
  /** When something was last asked for. */
  readonly askedAt: number;
  /** Whether the one try is under way. */
  readonly trying: boolean;
  /** When the allowance of failures is full again. */
  readonly allowance: number;
}

/** What is about to be asked for: `again` when the last request for the same credential did not succeed. */
export type Ask = "first" | "again";

export type CircuitEvent =
  | { readonly kind: "asked"; readonly ask: Ask }
  /** Vault gave what was asked for. */
  | { readonly kind: "succeeded"; readonly ask: Ask }
  | { readonly kind: "refused"; readonly ask: Ask }
  | { readonly kind: "failed"; readonly ask: Ask; readonly retryAfterMs?: number | undefined }
  /** Nothing was asked for after all. */
  | { readonly kind: "skipped"; readonly ask: Ask };

/** Tries after a failure that may fail at once, after a quiet time. */
const BURST = 60;
/** Milliseconds after which one more may. */
const REFILL_MS = 6_000;
/** The most tries after a failure that fail again, of a whole pod, in any 60 minutes: 660. */
export const FAILURES_PER_HOUR: number = BURST + Math.ceil(3_600_000 / REFILL_MS);

/** Milliseconds between two requests while the circuit is open, at least. */
const LEAST_PAUSE_MS = 1_000;

/** Milliseconds over which the tries that have waited are spread when Vault is back. */
const SPREAD_MS = 60_000;

export const closedCircuit: Circuit = {
  openSince: undefined,
  failures: 0,
  failedAt: Number.NEGATIVE_INFINITY,
  pauseMs: 0,
  share: 0,
  retryAfterMs: 0,
  askedAt: Number.NEGATIVE_INFINITY,
  trying: false,
  allowance: Number.NEGATIVE_INFINITY,
};

/**
 * From when on something may be asked for; without an end while another try is under way.
 *
 * @param endsAt of the credential that is held, when it ends: near its end the pauses are shorter, so that it does not lapse while
 *   Vault is back already
 */
export function mayAskAt(circuit: Circuit, ask: Ask, endsAt?: number): number {
  const spaced =
    circuit.openSince === undefined ? Number.NEGATIVE_INFINITY : circuit.askedAt + LEAST_PAUSE_MS;
  if (ask === "first") return spaced;
  if (circuit.openSince !== undefined && circuit.trying) return Number.POSITIVE_INFINITY;
  const { failedAt, pauseMs, share, retryAfterMs, allowance } = circuit;
  const left = endsAt === undefined ? undefined : endsAt - failedAt;
  const pause = Math.max(
    LEAST_PAUSE_MS,
    urgentPauseMs(pauseMs, left, share),
    retryAfterPauseMs(retryAfterMs, left, share),
  );
  return Math.max(spaced, failedAt + pause, allowance - (BURST - 1) * REFILL_MS);
}

/**
 * The circuit after an event at `at`.
 *
 * @param random a number in [0,1)
 */
export function nextCircuit(
  circuit: Circuit,
  event: CircuitEvent,
  at: number,
  random: number,
): Circuit {
  const again = event.ask === "again";
  // What did not fail is given back, so that a Vault that works again is not held to the allowance.
  const returned = again ? circuit.allowance - REFILL_MS : circuit.allowance;
  switch (event.kind) {
    case "asked":
      return {
        ...circuit,
        askedAt: at,
        trying: circuit.trying || again,
        allowance: again ? Math.max(circuit.allowance, at) + REFILL_MS : circuit.allowance,
      };
    case "succeeded":
      return { ...closed(circuit), allowance: returned };
    case "refused":
      return closed(circuit);
    case "failed": {
      const trying = circuit.trying && !again;
      // A first request that fails says no more than the tries before it, and must not put the next of them off.
      if (!again && circuit.openSince !== undefined) return circuit;
      const { openSince = at, failures } = circuit;
      return {
        ...circuit,
        openSince,
        failures: failures + 1,
        failedAt: at,
        pauseMs: backoffMs(failures, () => random),
        share: random,
        retryAfterMs: event.retryAfterMs ?? 0,
        trying,
      };
    }
    case "skipped":
      return { ...circuit, trying: circuit.trying && !again, allowance: returned };
    default:
      return unreachable(event);
  }
}

function closed(circuit: Circuit): Circuit {
  const { askedAt, allowance } = circuit;
  return { ...closedCircuit, askedAt, allowance };
}

/**
 * Milliseconds for which a try that has waited for the circuit waits on once it is closed: at random, so that neither a pod's
 * secrets nor a fleet's pods come all at once, over no longer than the circuit was open, and in time for what is about to end.
 *
 * @param random a number in [0,1)
 */
export function recoveryMs(openMs: number, leftMs: number | undefined, random: number): number {
  return random * inTimeMs(Math.min(Math.max(0, openMs), SPREAD_MS), leftMs);
}
