/** Performs the steps of the update machine, one at a time. Each may be repeated after a crash: done twice is done once. */
import type { Clock } from "#core/clock.ts";
import { EdgeSyncError, unreachable } from "#core/errors.ts";
import type { Failure } from "#core/failure.ts";
import { spacingMs } from "#core/retry.ts";
import type { HookAnswer, HookName } from "#core/hook.ts";
import type { Event, Step, Verdict } from "#core/update.ts";
import type { Bank, Target } from "#core/update-state.ts";
import { CALL_TIMEOUT_MS } from "../application/hooks.ts";
import { openDelivery } from "./delivery.ts";
import type { Asked, Hooks } from "../application/hooks.ts";
import type { Pause } from "./pause.ts";
import { isOfApplication } from "./permits.ts";
import type { Moment, Permit, Permits } from "./permits.ts";
import type { Store } from "../payload/store.ts";
import type { Report } from "./report.ts";
import { within } from "../within.ts";
import type { Workload } from "../application/workload.ts";

export interface StepDeps {
  readonly app: string;
  readonly channel: string;
  readonly store: Store;
  readonly workload: Workload;
  readonly clock: Clock;
  /** A number in [0,1). */
  readonly random: () => number;
  /** Trusted time, in milliseconds since the epoch. */
  readonly now: () => number;
  readonly permits: Permits;
  readonly hooks: Hooks;
  /** Whether the main container's first start is still held back. */
  readonly held: () => boolean;
  /** Whether a check of the workload says anything; without, a release that runs is well. */
  readonly judged: boolean;
  readonly pause: Pause;
  readonly report: Report;
  /** Milliseconds until the channel is to be looked at again: no wait takes longer. */
  readonly patienceMs: () => number;
  readonly build: (target: Target, from: Bank | null, signal: AbortSignal) => Promise<Bank>;
}

/** What a step ends with: an event, nothing that the machine has to know, or a wait that was given up. */
export type StepOutcome = Event | "done" | "later";

export interface Stepper {
  /**
   * @throws whatever stands in the way of the step
   */
  perform(step: Step, signal: AbortSignal): Promise<StepOutcome>;
  /** Monotonic milliseconds since the last event: what the machine counts a trial in. */
  passedMs(): number;
  /** Ends what goes on beside the steps. */
  close(): Promise<void>;
}

/** Milliseconds between two looks at whether the main container may start. */
const HELD_PERIOD_MS = 1_000;

/** Milliseconds: what a check of the workload, or a hook of one, has at least; and the hook that says whether a release is right. */
const CHECK_MS = 10_000;
const CONSENT_MS = CALL_TIMEOUT_MS + 5_000;

/** A notice is given up after so many looks at the channel: it must not keep the site busy for ever. */
const NOTICE_ATTEMPTS = 10;

const GO: Asked = { answer: "go" };

interface Checked {
  readonly verdict: Verdict;
  readonly failure?: Failure | undefined;
}

function verdictOf(answer: HookAnswer["answer"]): Verdict {
  return answer === "go" ? "healthy" : answer === "no" ? "unhealthy" : "unknown";
}

export function openStepper(deps: StepDeps): Stepper {
  const { store, workload, clock, permits, hooks, pause, report, patienceMs, build } = deps;
  const { app, channel, held, judged } = deps;
  /** The bank on trial that the application has agreed to run with. */
  let approved: string | undefined;
  const delivery = openDelivery(workload, pause);
  /** A release that has not reached the application; until is in monotonic milliseconds. */
  let resting: { readonly key: string; readonly until: number } | undefined;
  /** What `current` names. */
  let activated = "";
  /** How often in a row nobody had time for a notice, and for which. */
  let unheard = { key: "", times: 0 };
  let eventAt = clock.monotonic();
  let startsSeen = workload.starts();

  function passedMs(): number {
    const since = eventAt;
    eventAt = clock.monotonic();
    return eventAt - since;
  }

  async function awaitPermit(
    moment: Moment,
    heldSince: number | null,
    ask: () => Promise<Permit>,
    signal: AbortSignal,
  ): Promise<StepOutcome> {
    for (;;) {
      const permit = await ask();
      report.waits(moment, permit);
      if (permit.answer === "no") {
        const { hook, detail, failure } = permit;
        return { event: "vetoed", hook, detail, failure };
      }
      if (permit.answer === "go") break;
      if (moment === "swap" && heldSince === null && isOfApplication(permit.reason))
        return { event: "held", at: deps.now() };
      const leftMs = patienceMs();
      if (leftMs <= 0 || pause.isOver()) return "later";
      await pause.wait(Math.min(leftMs, permit.againMs), signal);
    }
    if (moment === "download") return "done";
    // The trial's time begins here.
    passedMs();
    return { event: "permitted" };
  }

  /** What did not reach the application the last time is left alone for a while before anybody is asked about it again. */
  async function askForSwap(
    { bank, heldSince, undelivered }: Extract<Step, { step: "await-swap" }>,
    signal: AbortSignal,
  ): Promise<Permit> {
    const key = `${bank.id} ${undelivered}`;
    if (undelivered > 0 && resting?.key !== key)
      resting = { key, until: clock.monotonic() + spacingMs(undelivered, deps.random) };
    const leftMs = undelivered > 0 && resting ? resting.until - clock.monotonic() : 0;
    if (leftMs <= 0) return await permits.ask("swap", bank, heldSince, signal);
    const until = deps.now() + leftMs;
    return { answer: "wait", reason: "not_delivered", until, againMs: leftMs };
  }

  /** Nothing can be tried while nothing may run, as after a power cut on a link that is down: that time is not the release's. */
  async function awaitStart(signal: AbortSignal): Promise<void> {
    while (held()) await clock.sleep(Math.min(HELD_PERIOD_MS, workload.healthPeriodMs), signal);
  }

  async function restart(withinMs: number | null, signal: AbortSignal): Promise<StepOutcome> {
    delivery.begin(activated, signal);
    if (withinMs === null) return await outlast(signal);
    const begun = clock.monotonic();
    let heldMs = 0;
    const notItsFaultMs = (): number => {
      if (held()) heldMs = clock.monotonic() - begun;
      // Nor is for how long the kubelet holds a container back.
      return workload.backOffMs() + heldMs;
    };
    // Asked for before it may start: its first start is then the one that is waited for, and not followed by another.
    const start = async (bounded: AbortSignal): Promise<void> => {
      const free = async (): Promise<void> => {
        if (!held()) return;
        await awaitStart(bounded);
        heldMs = clock.monotonic() - begun;
      };
      await Promise.all([delivery.wait(bounded), free()]);
    };
    const restarted = await within(clock, withinMs, signal, start, notItsFaultMs);
    const passed = Math.max(0, passedMs() - notItsFaultMs());
    if (restarted) return delivered(passed);
    startsSeen = workload.starts();
    const { failure, reached } = workload.trouble();
    return {
      event: "tick",
      passedMs: passed,
      ...(failure !== null && { failure }),
      ...(!reached && { unreached: true }),
    };
  }

  /** Until the application has what it had before, or the channel is to be looked at: then the delivery goes on by itself. */
  async function outlast(signal: AbortSignal): Promise<StepOutcome> {
    const ms = Math.max(0, patienceMs());
    return (await delivery.waitFor(ms, signal)) ? delivered(passedMs()) : "later";
  }

  function delivered(ms: number): Event {
    startsSeen = delivery.starts();
    return { event: "restarted", passedMs: ms };
  }

  function ask(
    hook: HookName,
    { version, sequence }: Target,
    from: string | null,
    signal: AbortSignal,
  ): Promise<Asked> {
    return hooks.ask(hook, { app, channel, version, sequence, from }, signal);
  }

  async function watch(
    { withinMs, bank, from }: Extract<Step, { step: "watch" }>,
    signal: AbortSignal,
  ): Promise<Event> {
    if (held()) {
      await awaitStart(signal);
      passedMs();
    }
    await clock.sleep(Math.min(withinMs, workload.healthPeriodMs), signal);
    let checked: Checked = { verdict: "unknown" };
    // Until it agrees to run with the release, the application is not well; how long it may take is for trial-timeout to say.
    const consent = (late: AbortSignal): Promise<Asked> => ask("post-swap", bank, from, late);
    const answer = approved === bank.id ? GO : await bounded(consent, CONSENT_MS, signal);
    if (answer?.answer === "no") {
      const { detail, failure } = answer;
      return { event: "vetoed", hook: "post-swap", detail, failure };
    }
    if (answer?.answer === "go") {
      approved = bank.id;
      checked = (await bounded((late) => check(bank, from, late), CHECK_MS, signal)) ?? checked;
    } else checked = { ...checked, failure: answer?.failure };
    const before = startsSeen;
    startsSeen = workload.starts();
    const starts = Math.max(0, startsSeen - before);
    return { event: "health", ...checked, starts, passedMs: passedMs() };
  }

  /** One that fails is enough. */
  async function check(bank: Bank, from: string, signal: AbortSignal): Promise<Checked> {
    const verdict = judged ? await workload.check(signal) : "healthy";
    if (verdict !== "healthy") return { verdict, failure: workload.trouble().failure ?? undefined };
    if (!hooks.has("health")) return { verdict };
    const { answer, failure } = await ask("health", bank, from, signal);
    return { verdict: verdictOf(answer), failure };
  }

  /** At least once, and not for ever. What it answers changes nothing. */
  async function notify(
    { bank, notice }: Extract<Step, { step: "notify" }>,
    signal: AbortSignal,
  ): Promise<StepOutcome> {
    // Nobody can listen yet, and who will has to be told.
    if (held()) return "later";
    const { answer } = await ask(notice.hook, bank, notice.from, signal);
    const key = `${bank.id} ${notice.hook}`;
    const times = unheard.key === key ? unheard.times + 1 : 1;
    unheard = { key, times };
    if ((answer === "later" || answer === "broken") && times < NOTICE_ATTEMPTS) return "later";
    unheard = { key: "", times: 0 };
    return { event: "notified" };
  }

  /** What takes longer than that, or than the pause between two checks, says as little as what fails: nothing of the release. The trial's deadline does. */
  async function bounded<T>(
    task: (signal: AbortSignal) => Promise<T>,
    leastMs: number,
    signal: AbortSignal,
  ): Promise<T | undefined> {
    let result: T | undefined;
    try {
      const ms = Math.max(leastMs, workload.healthPeriodMs);
      await within(clock, ms, signal, async (late) => {
        result = await task(late);
      });
    } catch {
      signal.throwIfAborted();
    }
    return result;
  }

  return {
    passedMs,
    close: () => delivery.leave(),
    async perform(step, signal) {
      switch (step.step) {
        case "activate":
          activated = step.bank.id;
          await delivery.leave(activated);
          await store.activate(activated);
          return "done";
        case "sweep":
          await store.sweep(step.keep);
          return "done";
        case "await-download":
          return await awaitPermit(
            "download",
            null,
            () => permits.ask("download", step.target, null, signal),
            signal,
          );
        case "build":
          return { event: "staged", bank: await build(step.target, step.from, signal) };
        case "await-swap":
          return await awaitPermit("swap", step.heldSince, () => askForSwap(step, signal), signal);
        case "restart":
          return await restart(step.withinMs, signal);
        case "deliver":
          delivery.begin(activated, signal);
          return delivery.done() ? delivered(passedMs()) : "done";
        case "watch":
          return await watch(step, signal);
        case "notify":
          return await notify(step, signal);
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
