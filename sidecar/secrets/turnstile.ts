/**
 * Where all requests of a pod to its Vault pass: a few at a time, and as `src/circuit.ts` lets them when Vault fails. Of those that
 * wait, the one that has failed least often goes first, so that what fails for good keeps nothing else waiting.
 */
import type { Clock } from "#core/clock.ts";
import { closedCircuit, mayAskAt, nextCircuit, recoveryMs } from "#core/circuit.ts";
import type { Ask, Circuit, CircuitEvent } from "#core/circuit.ts";
import { codeOf } from "#core/errors.ts";
import type { Log, SidecarMetrics } from "#core/telemetry.ts";
import { openAlarm } from "./alarm.ts";
import { answeredOf } from "./vault.ts";

/** What came of a request. */
export type Outcome =
  | { readonly kind: "succeeded" | "refused" | "skipped" }
  | { readonly kind: "failed"; readonly retryAfterMs?: number | undefined };

export interface Turnstile {
  /** Lets what waits pass, until aborted. */
  run(signal: AbortSignal): Promise<void>;
  /** Carries out `work`, which must not reject but when it is aborted, when its turn has come. */
  pass(visit: Visit, work: () => Promise<Outcome>, signal: AbortSignal): Promise<void>;
  /** Since when, in monotonic milliseconds, nothing has succeeded; `undefined` when Vault works. */
  readonly openSince: number | undefined;
}

export interface Visit {
  /** How often in a row it has failed already. */
  readonly attempt: number;
  /** When what is held ends, monotonic milliseconds; `undefined` when nothing is held, or it has no end. */
  readonly endsAt?: number | undefined;
  /** The token: everything else waits for it, so it waits for nothing but the circuit. */
  readonly isToken?: boolean;
}

export interface TurnstileDeps {
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly metrics: SidecarMetrics;
}

/** The HTTP client has one connection more: the token's own requests find it free. */
const LANES = 3;

interface Entry extends Visit {
  readonly ask: Ask;
  /** Monotonic milliseconds. */
  notBefore: number;
  readonly admit: () => void;
}

export function openTurnstile({ clock, random, log, metrics }: TurnstileDeps): Turnstile {
  const alarm = openAlarm(clock);
  const waiting = new Set<Entry>();
  let circuit: Circuit = closedCircuit;
  let busy = 0;

  const apply = (event: CircuitEvent): void => {
    const now = clock.monotonic();
    const { openSince } = circuit;
    circuit = nextCircuit(circuit, event, now, random());
    if ((openSince === undefined) === (circuit.openSince === undefined)) return;
    metrics.set("edgesync_sidecar_vault_failing", {}, circuit.openSince === undefined ? 0 : 1);
    if (openSince === undefined) {
      log.warn({ outcome: "failed" }, "Vault fails; it is tried once at a time until it answers");
      return;
    }
    const openMs = now - openSince;
    log.info({ outcome: "ok", durationMs: Math.round(openMs) }, "Vault answers again");
    for (const entry of waiting)
      if (entry.ask === "again" && entry.isToken !== true)
        entry.notBefore = now + recoveryMs(openMs, leftOf(entry, now), random());
  };
  const allowedAt = (entry: Entry): number =>
    entry.isToken !== true && busy >= LANES
      ? Number.POSITIVE_INFINITY
      : Math.max(entry.notBefore, mayAskAt(circuit, entry.ask, entry.endsAt));
  const admitAll = (): void => {
    for (const entry of [...waiting].toSorted((a, b) => a.attempt - b.attempt)) {
      if (allowedAt(entry) > clock.monotonic()) continue;
      waiting.delete(entry);
      if (entry.isToken !== true) busy++;
      apply({ kind: "asked", ask: entry.ask });
      entry.admit();
    }
  };

  return {
    async run(signal) {
      for (;;) {
        admitAll();
        await alarm.until(Math.min(...Array.from(waiting, allowedAt)), signal);
      }
    },
    async pass({ attempt, endsAt, isToken = false }, work, signal) {
      signal.throwIfAborted();
      const ask = attempt === 0 ? "first" : "again";
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      const notBefore = Number.NEGATIVE_INFINITY;
      const entry: Entry = { attempt, endsAt, isToken, ask, notBefore, admit: resolve };
      const abort = (): void => {
        if (waiting.delete(entry)) reject(signal.reason as Error);
      };
      signal.addEventListener("abort", abort, { once: true });
      waiting.add(entry);
      alarm.ring();
      await promise.finally(() => signal.removeEventListener("abort", abort));
      let outcome: Outcome = { kind: "skipped" };
      try {
        outcome = await work();
      } finally {
        if (!entry.isToken) busy--;
        apply({ ...outcome, ask });
        alarm.ring();
      }
    },
    get openSince() {
      return circuit.openSince;
    },
  };
}

function leftOf({ endsAt }: Visit, now: number): number | undefined {
  return endsAt === undefined ? undefined : endsAt - now;
}

/** What a request that was answered with `error` says of Vault. */
export function outcomeOf(error: unknown): Outcome {
  const code = codeOf(error);
  if (code === "VAULT_UNAVAILABLE" || code === "TLS_UNTRUSTED")
    return { kind: "failed", retryAfterMs: answeredOf(error)?.retryAfterMs };
  return { kind: code === "VAULT_DENIED" || code === "SECRET_INVALID" ? "refused" : "skipped" };
}
