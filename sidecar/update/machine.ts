/**
 * The update machine at work: what `next` of `src/update.ts` decides is saved before anything is done about it, and its steps are
 * performed one at a time.
 */
import { backoffMs } from "#core/backoff.ts";
import type { Clock } from "#core/clock.ts";
import { codeOf } from "#core/errors.ts";
import type { Policy } from "#core/policy.ts";
import { next } from "#core/update.ts";
import type { Event, Step } from "#core/update.ts";
import { isSwapping, served } from "#core/update-state.ts";
import type { UpdateState } from "#core/update-state.ts";
import type { Downloads } from "../repository/download.ts";
import type { Store } from "../payload/store.ts";
import type { Replica } from "../claim/replica.ts";
import type { Turn } from "../claim/turn.ts";
import type { Report } from "./report.ts";
import type { StepOutcome, Stepper } from "./steps.ts";

/** What is there once the payload volume could be opened. */
export interface Volume {
  readonly store: Store;
  readonly downloads: Downloads;
  readonly stepper: Stepper;
}

export interface UpdateMachine {
  /** Undefined until the journal has been read. */
  state(): UpdateState | undefined;
  /** Undefined until the payload volume could be opened. */
  volume(): Volume | undefined;
  /** The bank that `current` names. */
  current(): string | undefined;
  /** The step that comes next. */
  pending(): Step | undefined;
  /** Whether a step was put off, or failed, that the state still implies. A sweep counts for nothing here: it costs room, and may fail for ever. */
  unfinished(): boolean;
  /** Whether it was put off, because it may not be done yet: the wait for it goes on with {@link UpdateMachine.resume}. */
  waits(): boolean;
  /** Opens the volume, reads the journal and makes `current` what it says: all that has to be over before the main container starts. */
  recover(signal: AbortSignal): Promise<void>;
  /** One transition, saved before anything is done about it. @returns whether it changed anything */
  feed(event: Event, signal: AbortSignal): Promise<boolean>;
  /** Goes on with what was left. */
  resume(signal: AbortSignal): Promise<void>;
  /** Performs the next step. Throws what it throws: `putOff` or `failed` says what becomes of it. */
  perform(signal: AbortSignal): Promise<void>;
  /** Makes again what the disk has lost around the bank that is served; not in a swap, which does so itself. @returns whether the bank is there */
  keep(): Promise<boolean>;
  /** Whether it was there when that was last looked at. */
  whole(): boolean;
  /** What a start would decide, where that bank is gone and another is there to go on with. */
  salvage(signal: AbortSignal): Promise<void>;
  /** What is pending is left for a while. */
  putOff(): void;
  /** Tells the machine that a step could not be done. @returns whether it stands in the way of anything */
  failed(step: Step, error: unknown, signal: AbortSignal): Promise<boolean>;
}

export interface MachineDeps {
  readonly open: () => Promise<Volume>;
  readonly policy: Policy;
  readonly clock: Clock;
  readonly random: () => number;
  readonly report: Report;
  /** Among the payloads of the pod. */
  readonly turn: Turn;
  readonly replica: Replica;
}

/** Milliseconds; while the journal cannot be saved nothing else makes sense. */
const SAVE_RETRY_MS = 30_000;

export function openUpdateMachine(deps: MachineDeps): UpdateMachine {
  const { policy, clock, random, report, turn, replica } = deps;
  let volume: Volume | undefined;
  let state: UpdateState | undefined;
  let pending: readonly Step[] = [];
  let unfinished = false;
  let unswept = false;
  let waits = false;
  let current: string | undefined;
  /** The folder of the bank, when it was found to be gone. */
  let gone: string | undefined;
  /** Of what changes the journal and `current`: one at a time. */
  let changing: Promise<unknown> = Promise.resolve();

  function alone<T>(change: () => Promise<T>): Promise<T> {
    const changed = changing.then(change);
    changing = changed.catch(() => undefined);
    return changed;
  }

  async function feed(event: Event, signal: AbortSignal): Promise<boolean> {
    if (state === undefined || volume === undefined) return false;
    const before = state;
    const [after, steps] = next(before, event, policy);
    await save(volume.store, after, signal);
    state = after;
    pending = steps;
    turn.follow(isSwapping(after));
    if (after.phase !== before.phase) waits = false;
    if (after !== before) report.changed(before, after);
    // Only now: until the journal says that the bank is staged, a crash would have it built again from these.
    if (event.event === "staged") await discardDownloads(volume.downloads, signal);
    if (isSwapping(before) && !isSwapping(after)) await replica.release();
    return after !== before;
  }

  async function discardDownloads(downloads: Downloads, signal: AbortSignal): Promise<void> {
    try {
      await downloads.keepOnly(new Set());
    } catch (error) {
      signal.throwIfAborted();
      // The next plan throws them away.
      report.leftBehind(error);
    }
  }

  /** Keeps trying, because the event would be lost with the error: a verdict on a trial, or that a restart has happened. */
  async function save(store: Store, after: UpdateState, signal: AbortSignal): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      try {
        await alone(() => store.saveState(after));
        return;
      } catch (error) {
        signal.throwIfAborted();
        const delayMs = backoffMs(attempt, random, SAVE_RETRY_MS);
        report.failed(error, "step", delayMs);
        await clock.sleep(delayMs, signal);
      }
    }
  }

  function putOff(): void {
    pending = [];
    unfinished = true;
    waits = true;
  }

  return {
    state: () => state,
    volume: () => volume,
    current: () => current,
    pending: () => pending[0],
    unfinished: () => unfinished,
    waits: () => waits,
    feed,
    putOff,
    async recover(signal) {
      volume ??= await deps.open();
      const { store, stepper } = volume;
      const after = await alone(async () => {
        current = await store.current();
        const loaded = await store.loadState();
        const banks = await store.banks();
        const bank = served(loaded);
        if (bank !== null && !banks.includes(bank.id))
          report.lost({ kind: "bank", path: store.bankPath(bank.id) });
        else if (current === undefined && bank !== null)
          report.lost({ kind: "current", path: bank.id });
        const [recovered, steps] = next(loaded, { event: "started", banks }, policy);
        state = recovered;
        turn.follow(isSwapping(recovered));
        report.changed(loaded, recovered);
        // Until all is done; then what is left of the steps takes its place.
        unfinished = true;
        // A disk that takes no more must not keep the old release from starting: the next start decides the same again.
        await store.saveState(recovered).catch((error: unknown) => report.failed(error, "step", 0));
        const [first, ...others] = steps;
        if (first?.step === "activate") {
          await stepper.perform(first, signal);
          current = first.bank.id;
        }
        pending = first?.step === "activate" ? others : steps;
        unfinished = false;
        return recovered;
      });
      // A trial goes on whoever else is in one by now: it cannot wait.
      if (isSwapping(after)) await replica.take(signal);
    },
    async resume(signal) {
      if (!(unfinished || unswept) || volume === undefined) return;
      unfinished = false;
      unswept = false;
      waits = false;
      await feed({ event: "tick", passedMs: volume.stepper.passedMs() }, signal);
    },
    async perform(signal) {
      const [first, ...others] = pending;
      if (first === undefined || volume === undefined) return;
      pending = others;
      const { stepper } = volume;
      const perform = (): Promise<StepOutcome> => stepper.perform(first, signal);
      const outcome = await (first.step === "activate" ? alone(perform) : perform());
      if (first.step === "activate") current = first.bank.id;
      if (outcome === "later") {
        putOff();
        // Of a notice nobody waits for the end.
        waits = first.step !== "notify";
      } else if (outcome !== "done") await feed(outcome, signal);
      // It goes on by itself: that it has come about is found out with the next look.
      else if (first.step === "deliver") unfinished = true;
    },
    whole: () => gone === undefined,
    keep: () =>
      alone(async () => {
        const bank = state === undefined ? null : served(state);
        if (state === undefined || volume === undefined || bank === null) return true;
        // What is on its way to be so has not been lost.
        if (isSwapping(state) || pending[0]?.step === "activate") return true;
        const lost = await volume.store.keep(bank.id);
        current = await volume.store.current();
        const before = gone;
        gone = undefined;
        for (const one of lost)
          if (one.kind !== "bank") report.lost(one, "mended");
          else {
            gone = one.path;
            if (before !== gone) report.lost(one);
          }
        return gone === undefined;
      }),
    async salvage(signal) {
      if (volume === undefined || (state?.phase !== "staged" && state?.phase !== "rolling-back"))
        return;
      const banks = await volume.store.banks();
      if (!banks.includes(served(state)?.id ?? "")) await feed({ event: "started", banks }, signal);
    },
    async failed(step, error, signal) {
      if (step.step === "sweep") {
        // Costs room and nothing else. It may be for ever, where the files are another owner's.
        report.leftBehind(error);
        unswept = true;
        return false;
      }
      pending = [];
      // An offer that is refused is no failure of what goes on here.
      if (step.step === "refuse") return true;
      await feed({ event: "failed", code: codeOf(error) }, signal);
      unfinished = true;
      return true;
    },
  };
}
