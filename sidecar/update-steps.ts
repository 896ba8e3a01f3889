/** Performs the steps of the update machine, one at a time. Each may be repeated after a crash: done twice is done once. */
import type { Clock } from "#core/clock.ts";
import { EdgeSyncError, unreachable } from "#core/errors.ts";
import type { Event, Step, Verdict } from "#core/update.ts";
import type { Bank, Target } from "#core/update-state.ts";
import type { Store } from "./store.ts";
import type { Turn } from "./turn.ts";
import type { Workload } from "./workload.ts";

export interface StepDeps {
  readonly store: Store;
  readonly workload: Workload;
  readonly clock: Clock;
  /** Whether the main container's first start is still held back. */
  readonly held: () => boolean;
  /** Among the payloads of the pod. */
  readonly turn: Turn;
  /** Milliseconds to wait for a swap before the channel is looked at again. */
  readonly patienceMs: number;
  readonly build: (target: Target, from: Bank | null, signal: AbortSignal) => Promise<Bank>;
}

export interface Stepper {
  /**
   * @returns the event that the step ends with, if it has one; a wait that was given up has none
   * @throws whatever stands in the way of the step
   */
  perform(step: Step, signal: AbortSignal): Promise<Event | undefined>;
  /** Monotonic milliseconds since the last event: what the machine counts a trial in. */
  passedMs(): number;
}

/** Milliseconds between two looks at whether the main container may start, and whether no other payload is being swapped. */
const HELD_PERIOD_MS = 1_000;

export function openStepper({
  store,
  workload,
  clock,
  held,
  turn,
  patienceMs,
  build,
}: StepDeps): Stepper {
  let eventAt = clock.monotonic();
  let startsSeen = workload.starts();

  function passedMs(): number {
    const since = eventAt;
    eventAt = clock.monotonic();
    return eventAt - since;
  }

  async function awaitSwap(signal: AbortSignal): Promise<Event | undefined> {
    const end = clock.monotonic() + patienceMs;
    while (held() || !turn.ask()) {
      if (clock.monotonic() >= end) return undefined;
      await clock.sleep(HELD_PERIOD_MS, signal);
    }
    // The trial's time begins here.
    passedMs();
    return { event: "permitted" };
  }

  async function restart(withinMs: number | null, signal: AbortSignal): Promise<Event> {
    const restarted =
      withinMs === null
        ? await workload.restart(signal).then(() => true)
        : await within(clock, withinMs, signal, (bounded) => workload.restart(bounded));
    startsSeen = workload.starts();
    return { event: restarted ? "restarted" : "tick", passedMs: passedMs() };
  }

  async function watch(withinMs: number, signal: AbortSignal): Promise<Event> {
    await clock.sleep(Math.min(withinMs, workload.healthPeriodMs), signal);
    const verdict = await check(signal);
    const before = startsSeen;
    startsSeen = workload.starts();
    const starts = Math.max(0, startsSeen - before);
    return { event: "health", verdict, starts, passedMs: passedMs() };
  }

  /** A check that takes longer than the pause between two says as little as one that fails to be made. */
  async function check(signal: AbortSignal): Promise<Verdict> {
    let verdict: Verdict = "unknown";
    try {
      await within(clock, Math.max(10_000, workload.healthPeriodMs), signal, async (bounded) => {
        verdict = await workload.check(bounded);
      });
    } catch {
      signal.throwIfAborted();
      // Not being able to ask says nothing about the release; the trial's deadline still does.
    }
    return verdict;
  }

  return {
    passedMs,
    async perform(step, signal) {
      switch (step.step) {
        case "activate":
          await store.activate(step.bank.id);
          return undefined;
        case "sweep":
          await store.sweep(step.keep);
          return undefined;
        case "build":
          return { event: "staged", bank: await build(step.target, step.from, signal) };
        case "await-swap":
          return await awaitSwap(signal);
        case "restart":
          return await restart(step.withinMs, signal);
        case "watch":
          return await watch(step.withinMs, signal);
        case "refuse":
          throw new EdgeSyncError(
            step.code,
            `channel ${step.target.channel} is at sequence ${step.target.sequence}, this site has seen ${step.floor}`,
          );
        default:
          return unreachable(step);
      }
    },
  };
}

/** Whether a task ended in time; if not, it was aborted. */
async function within(
  clock: Clock,
  ms: number,
  signal: AbortSignal,
  task: (signal: AbortSignal) => Promise<void>,
): Promise<boolean> {
  const over = new AbortController();
  const bounded = AbortSignal.any([signal, over.signal]);
  const ended = task(bounded).then(() => true);
  const late = clock.sleep(ms, bounded).then(() => false);
  try {
    return await Promise.race([ended, late]);
  } finally {
    over.abort(new Error("the time is over"));
    await Promise.allSettled([ended, late]);
  }
}
