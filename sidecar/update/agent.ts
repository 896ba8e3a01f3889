/**
 * The loop around the update machine: it looks at the channel, has the steps performed that follow from it, and pauses. What goes
 * wrong is recorded, logged and tried again; `run` ends only when it is aborted, because a sidecar that exits takes the pod's
 * readiness with it.
 *
 * A look follows whatever has just come to an end, a trial or a wait, also when the next one was not due: what came meanwhile was not taken.
 */
import { codeOf } from "#core/errors.ts";
import { pauseMs, retryOf } from "#core/retry.ts";
import type { Step } from "#core/update.ts";
import { INITIAL, isVersion } from "#core/update-state.ts";
import type { UpdateState } from "#core/update-state.ts";
import type { Volume } from "./machine.ts";
import { openParts } from "./parts.ts";
import type { UpdateDeps } from "./parts.ts";
import type { UpdateStatus } from "./report.ts";

export type { UpdateDeps } from "./parts.ts";

export interface UpdateAgent {
  /** Follows the channel until aborted; rejects with the signal's reason and with nothing else. */
  run(signal: AbortSignal): Promise<void>;
  /** Whether `current` names a complete bank. */
  installed(): boolean;
  /** Whether recovery is over. It is as soon as the agent is open, also where the disk would not let it change anything. */
  recovered(): boolean;
  status(): UpdateStatus;
  /** A person's command: looks at the channel as soon as nothing else is going on. */
  look(): void;
  /** A person's command: what was rolled back, refused or left alone is tried again. */
  retry(): void;
}

/** Milliseconds between two looks at whether what the application sees is there. */
const KEEP_MS = 60_000;

/**
 * Opens the payload volume and brings `current` to where the journal wants it. What goes wrong with the volume is not thrown: the
 * agent comes up all the same, and `run` tries again.
 *
 * @throws EdgeSyncError CONFIG_INVALID when a setting is missing that a payload needs
 */
export async function openUpdateAgent(deps: UpdateDeps): Promise<UpdateAgent> {
  const { settings, clock, random } = deps;
  /** Monotonic milliseconds at which the channel is to be looked at again. */
  let lookAt = -Infinity;
  const parts = openParts(deps, () => lookAt - clock.monotonic());
  const { machine, follower, builder, repository, report, pause, usage, scrub, rebuild, permits } =
    parts;
  const state = (): UpdateState => machine.state() ?? INITIAL;
  let failures = 0;
  /** What an error came up in. */
  let activity: "open" | "look" | Step["step"] = "open";
  let forgiving = false;

  async function step(signal: AbortSignal): Promise<void> {
    const next = machine.pending();
    if (next === undefined) return;
    activity = next.step;
    try {
      await machine.perform(signal);
    } catch (error) {
      signal.throwIfAborted();
      if (next.step === "build" && builder.stopped()) machine.putOff();
      else {
        if (next.step === "build") builder.tire(next.target, error);
        if (await machine.failed(next, error, signal)) throw error;
      }
    }
    // Of an offer that was withdrawn while its release was fetched the machine is told now.
    const withheld = builder.takenBack();
    if (withheld !== undefined) await machine.feed(withheld.event, signal);
  }

  async function settle(signal: AbortSignal): Promise<void> {
    let asked = false;
    for (let next = machine.pending(); next !== undefined; next = machine.pending()) {
      if (next.step === "await-swap" && !asked) {
        // Once: where a look takes longer than the time between two, there would be no end.
        asked = true;
        await lookBeforeSwap(signal);
      }
      await step(signal);
    }
  }

  /** A site that was off, or took long to fetch, may hold what was withdrawn meanwhile. One that is cut off goes on with what it knows. */
  async function lookBeforeSwap(signal: AbortSignal): Promise<void> {
    const volume = machine.volume();
    const now = state();
    const target = follower.latest()?.event.target;
    const left = now.phase === "staged" && target !== undefined && !isVersion(now.bank, target);
    if (volume === undefined || !(left || follower.isStale())) return;
    try {
      await look(volume, signal);
    } catch (error) {
      signal.throwIfAborted();
      report.failed(error, "look", 0);
    }
    if (machine.pending() === undefined)
      await machine.feed({ event: "tick", passedMs: volume.stepper.passedMs() }, signal);
  }

  /** Reads the channel and offers the machine what it names. */
  async function look(from: Volume, signal: AbortSignal): Promise<void> {
    const { event, refusal } = await follower.ask(from, state(), signal);
    const resting = event.event === "seen" && builder.rests(event.target);
    const changed = !resting && (await machine.feed(event, signal));
    if (machine.pending()?.step === "refuse") await step(signal);
    report.looked(changed);
    // What a look takes is little; where it cannot be saved now it is with the next bytes of a release.
    await usage.save().catch(() => undefined);
    if (refusal !== undefined) throw refusal;
  }

  /** @returns milliseconds until the next look */
  async function cycle(signal: AbortSignal): Promise<number> {
    try {
      activity = "open";
      if (machine.state() === undefined) await machine.recover(signal);
      await machine.salvage(signal);
      await machine.resume(signal);
      await settle(signal);
      pause.begin();
      if (forgiving) await forgive(signal);
      activity = "look";
      const volume = machine.volume();
      if (volume !== undefined) await look(volume, signal);
      await settle(signal);
      failures = 0;
      if (!builder.tired()) report.cleared();
      return follower.untilNext();
    } catch (error) {
      signal.throwIfAborted();
      failures += 1;
      follower.failed();
      pause.begin();
      const building = activity === "build";
      const retry = retryOf(codeOf(error), building);
      const ownMs = pauseMs(retry, failures, settings.pollInterval, random);
      const delayMs = Math.max(ownMs, repository.holdMs());
      const looking = activity === "look" || activity === "refuse";
      report.failed(error, building ? "build" : looking ? "look" : "step", delayMs);
      return delayMs;
    }
  }

  async function forgive(signal: AbortSignal): Promise<void> {
    forgiving = false;
    builder.forgive();
    permits.forgive();
    await machine.feed({ event: "retry" }, signal);
  }

  /** The time between two looks. What waits for a permission waits in its step, and not here. */
  async function rest(ms: number, signal: AbortSignal): Promise<void> {
    const now = state();
    // What is to be fetched may wait for a window; the application cannot.
    const bank =
      now.phase === "committed" ? now.bank : now.phase === "downloading" ? now.from : null;
    // Looked at again: it may have been about a bank that is served no more.
    if (bank !== null && !machine.whole() && !(await keep())) {
      // As long as it takes: there is nothing that could be done meanwhile.
      await rebuild.work(bank, signal);
      if (!(await keep())) return await pause.wait(Math.min(ms, rebuild.againMs()), signal);
    }
    if (machine.waits()) return;
    if (now.phase !== "committed") return await pause.wait(ms, signal);
    if (machine.unfinished()) await pause.wait(ms, signal);
    else await pause.fill(ms, (forMs, bounded) => scrub.work(now.bank, forMs, bounded), signal);
  }

  /** @returns whether the bank that is served is there */
  async function keep(): Promise<boolean> {
    try {
      return await machine.keep();
    } catch (error) {
      report.failed(error, "step", KEEP_MS);
      return machine.whole();
    }
  }

  /** Also while a release is fetched for days, and where nothing is verified. */
  async function keepForEver(signal: AbortSignal): Promise<never> {
    for (;;) {
      await clock.sleep(Math.min(KEEP_MS, settings.pollInterval), signal);
      const before = machine.whole();
      if (!(await keep()) && before) pause.end();
    }
  }

  async function follow(signal: AbortSignal): Promise<void> {
    // Sites that come up together after a power cut do not all ask at once; one that has nothing yet does not wait.
    if (machine.current() !== undefined && machine.pending() === undefined)
      await pause.wait((random() * settings.pollInterval) / 10, signal);
    for (;;) {
      const delayMs = await cycle(signal);
      lookAt = clock.monotonic() + delayMs;
      await rest(delayMs, signal);
    }
  }

  try {
    await machine.recover(new AbortController().signal);
  } catch (error) {
    report.failed(error, "step", 0);
  }
  return {
    async run(signal) {
      const over = new AbortController();
      const kept = keepForEver(AbortSignal.any([signal, over.signal])).catch(() => undefined);
      try {
        await follow(signal);
      } finally {
        over.abort();
        await kept;
        await machine.volume()?.stepper.close();
      }
    },
    installed: () => machine.current() !== undefined,
    recovered: () => true,
    status: () => ({
      ...report.status(machine.state(), machine.current()),
      scrub: rebuild.status(scrub.status()),
    }),
    look: pause.end,
    retry() {
      forgiving = true;
      pause.end();
    },
  };
}
