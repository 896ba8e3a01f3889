/**
 * The shell around the update machine of `src/update.ts`: it looks at the channel, saves what the machine decides, has the steps
 * performed and tells the machine how they went. What goes wrong is recorded, logged and tried again; `run` ends only when it is
 * aborted, because a sidecar that exits takes the pod's readiness with it.
 */
import { backoffMs } from "#core/backoff.ts";
import type { Clock } from "#core/clock.ts";
import { EdgeSyncError, codeOf } from "#core/errors.ts";
import type { Plan } from "#core/plan.ts";
import { policyOf } from "#core/policy.ts";
import { pauseMs, restMs, retryOf } from "#core/retry.ts";
import type { Settings } from "#core/settings.ts";
import type { Log, SidecarMetrics } from "#core/telemetry.ts";
import { next } from "#core/update.ts";
import type { Event, Step } from "#core/update.ts";
import { INITIAL, isSame, isSwapping, isVersion } from "#core/update-state.ts";
import type { Bank, Target, UpdateState } from "#core/update-state.ts";
import { openFollower } from "./follower.ts";
import type { Offer } from "./offer.ts";
import { openDownloads } from "./download.ts";
import type { Downloads } from "./download.ts";
import { nodeDisk } from "./durable.ts";
import type { Disk } from "./durable.ts";
import type { Http } from "./http.ts";
import { install } from "./install.ts";
import { openAddresses } from "./addresses.ts";
import { openStore } from "./store.ts";
import type { Store } from "./store.ts";
import { withBundles } from "./offline.ts";
import { openTrustTime } from "./trust-time.ts";
import { openReport } from "./update-report.ts";
import type { UpdateStatus } from "./update-report.ts";
import { ALONE } from "./turn.ts";
import type { Turn } from "./turn.ts";
import { openStepper } from "./update-steps.ts";
import type { Stepper } from "./update-steps.ts";
import type { Workload } from "./workload.ts";

export interface UpdateDeps {
  readonly settings: Settings;
  readonly clock: Clock;
  /** A number in [0,1). */
  readonly random: () => number;
  readonly log: Log;
  readonly metrics: SidecarMetrics;
  readonly http: Http;
  readonly workload: Workload;
  /** `<os>-<architecture>`, as releases name it. */
  readonly platform: string;
  /** Whether the main container's first start is still held back: nothing can be tried before something runs. */
  readonly held?: () => boolean;
  /** Among the payloads of the pod; without it there is one. */
  readonly turn?: Turn;
  /** For tests that make it fail. */
  readonly disk?: Disk;
}

export interface UpdateAgent {
  /** Follows the channel until aborted; rejects with the signal's reason and with nothing else. */
  run(signal: AbortSignal): Promise<void>;
  /** Whether `current` names a complete bank. */
  installed(): boolean;
  /** Whether recovery is over. It is as soon as the agent is open, also where the disk would not let it change anything. */
  recovered(): boolean;
  status(): UpdateStatus;
}

/** Milliseconds; while the journal cannot be saved nothing else makes sense. */
const SAVE_RETRY_MS = 30_000;

/** What is there once the payload volume could be opened. */
interface Volume {
  readonly store: Store;
  readonly downloads: Downloads;
  readonly stepper: Stepper;
}

/** A release that is left alone for a while, because to try it again costs its bytes again. */
interface Rest {
  readonly target: Target;
  readonly failures: number;
  /** Monotonic milliseconds. */
  readonly until: number;
}

/**
 * Opens the payload volume and brings `current` to where the journal wants it. What goes wrong with the volume is not thrown: the
 * agent comes up all the same, and `run` tries again.
 *
 * @throws EdgeSyncError CONFIG_INVALID when a setting is missing that a payload needs
 */
export async function openUpdateAgent(deps: UpdateDeps): Promise<UpdateAgent> {
  const { settings, clock, random, log, workload, platform, turn = ALONE } = deps;
  const { channel, repository: address, payloadDir, trustRootFile } = settings;
  if (
    channel === undefined ||
    address === undefined ||
    payloadDir === undefined ||
    trustRootFile === undefined
  )
    throw new EdgeSyncError(
      "CONFIG_INVALID",
      "a payload needs the settings channel, repository, payload-dir and trust-root-file",
    );
  const { app } = channel;
  const root = payloadDir;
  const disk = deps.disk ?? nodeDisk;
  const policy = policyOf(settings, workload.healthFailureThreshold);
  const repository = withBundles(
    openAddresses(settings, [address, ...(settings.repositoryMirrors ?? [])], { ...deps, disk }),
    settings.importDir,
    { disk, log },
  );
  const time = openTrustTime(deps);
  const report = openReport({ ...channel, clock, time, log, metrics: deps.metrics });

  const follower = openFollower({
    followed: channel,
    settings,
    clock,
    random,
    disk,
    repository,
    time,
    report,
    platform,
    root,
    trustRoot: trustRootFile,
  });

  let volume: Volume | undefined;
  /** Undefined until the journal has been read. */
  let state: UpdateState | undefined;
  let pending: readonly Step[] = [];
  /** Whether a step failed that the state still implies. */
  let unfinished = false;
  let current: string | undefined;
  /** Came up while a release was fetched, and takes it back. */
  let takenBack: Offer | undefined;
  let failures = 0;
  let rest: Rest | undefined;
  /** What an error came up in. */
  let activity: "open" | "look" | Step["step"] = "open";

  async function openVolume(): Promise<Volume> {
    const store = await openStore(root, disk);
    const { metrics } = deps;
    const folder = store.partial;
    const { arrived } = report;
    const downloads = openDownloads({ disk, folder, repository, metrics, arrived });
    const held = deps.held ?? ((): boolean => false);
    const patienceMs = settings.pollInterval;
    const stepper = openStepper({ store, workload, clock, held, turn, patienceMs, build });
    return { store, downloads, stepper };
  }

  /** Reads the journal and makes `current` what it says: all that has to be over before the main container starts. */
  async function recover(signal: AbortSignal): Promise<void> {
    volume ??= await openVolume();
    const { store, stepper } = volume;
    current = await store.current();
    const loaded = await store.loadState();
    const [after, steps] = next(loaded, { event: "started", banks: await store.banks() }, policy);
    state = after;
    turn.follow(isSwapping(after));
    report.changed(loaded, after);
    // Until all is done; then what is left of the steps takes its place.
    unfinished = true;
    // A disk that takes no more must not keep the old release from starting: the next start decides the same again.
    await store.saveState(after).catch((error: unknown) => report.failed(error, "step", 0));
    const [first, ...others] = steps;
    if (first?.step === "activate") {
      await stepper.perform(first, signal);
      current = first.bank.id;
    }
    pending = first?.step === "activate" ? others : steps;
    unfinished = false;
  }

  /** One transition, saved before anything is done about it. */
  async function feed(event: Event, signal: AbortSignal): Promise<boolean> {
    if (state === undefined || volume === undefined) return false;
    const before = state;
    const [after, steps] = next(before, event, policy);
    await save(volume.store, after, signal);
    state = after;
    pending = steps;
    turn.follow(isSwapping(after));
    if (after !== before) report.changed(before, after);
    // Only now: until the journal says that the bank is staged, a crash would have it built again from these.
    if (event.event === "staged") await discardDownloads(volume.downloads, signal);
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
        await store.saveState(after);
        return;
      } catch (error) {
        signal.throwIfAborted();
        const delayMs = backoffMs(attempt, random, SAVE_RETRY_MS);
        report.failed(error, "step", delayMs);
        await clock.sleep(delayMs, signal);
      }
    }
  }

  /** Performs the first pending step. What it throws has been told to the machine. */
  async function step(signal: AbortSignal): Promise<void> {
    const [first, ...others] = pending;
    if (first === undefined || volume === undefined) return;
    activity = first.step;
    pending = others;
    try {
      const event = await volume.stepper.perform(first, signal);
      if (first.step === "activate") current = first.bank.id;
      if (event !== undefined) await feed(event, signal);
      else if (first.step === "await-swap") unfinished = true;
      await takeBack(signal);
    } catch (error) {
      signal.throwIfAborted();
      if (await takeBack(signal)) return;
      if (first.step === "sweep") {
        // Costs room and nothing else. It may be for ever, where the files are another owner's.
        report.leftBehind(error);
        unfinished = true;
        return;
      }
      pending = [];
      if (first.step === "build") tire(first.target, error);
      // An offer that is refused is no failure of what goes on here.
      if (first.step !== "refuse") {
        await feed({ event: "failed", code: codeOf(error) }, signal);
        unfinished = true;
      }
      throw error;
    }
  }

  /** Tells the machine of an offer that was withdrawn while its release was fetched, if there is one. */
  async function takeBack(signal: AbortSignal): Promise<boolean> {
    const withheld = takenBack;
    takenBack = undefined;
    if (withheld === undefined) return false;
    await feed(withheld.event, signal);
    return true;
  }

  async function settle(signal: AbortSignal): Promise<void> {
    let asked = false;
    while (pending.length > 0) {
      if (pending[0]?.step === "await-swap" && !asked) {
        // Once: where a look takes longer than the time between two, there would be no end.
        asked = true;
        await lookBeforeSwap(signal);
      }
      await step(signal);
    }
  }

  /** A site that was off, or took long to fetch, may hold what was withdrawn meanwhile. One that is cut off goes on with what it knows. */
  async function lookBeforeSwap(signal: AbortSignal): Promise<void> {
    const target = follower.latest()?.event.target;
    const left =
      state?.phase === "staged" && target !== undefined && !isVersion(state.bank, target);
    if (volume === undefined || !(left || follower.isStale())) return;
    try {
      await look(volume, signal);
    } catch (error) {
      signal.throwIfAborted();
      report.failed(error, "look", 0);
    }
    if (pending.length === 0)
      await feed({ event: "tick", passedMs: volume.stepper.passedMs() }, signal);
  }

  async function build(target: Target, from: Bank | null, signal: AbortSignal): Promise<Bank> {
    const trusted = follower.latest()?.trusted;
    if (trusted === undefined || volume === undefined)
      throw new EdgeSyncError("INTERNAL", "a release is built before the channel was looked at");
    const over = new AbortController();
    const bounded = AbortSignal.any([signal, over.signal]);
    const watched = watchOffer(volume, over, bounded);
    try {
      const deps = {
        ...volume,
        app,
        platform,
        trusted: trusted.set,
        trust: trusted.deps,
        fallback: settings.fullFallback,
        limits: { volume: settings.payloadSize, local: undefined, reserve: 0 },
        seed: undefined,
        planned: (plan: Plan, base: string | null) => report.planned(plan, target.version, base),
      };
      const bank = await install(target, from, deps, bounded);
      rest = undefined;
      return bank;
    } finally {
      over.abort(new Error("the release is not fetched any more"));
      await watched;
    }
  }

  /** Stops the fetching of a release when it is withdrawn, which may be days after it began. */
  async function watchOffer(
    from: Volume,
    over: AbortController,
    signal: AbortSignal,
  ): Promise<void> {
    try {
      takenBack = await follower.withdrawal(from, () => state ?? INITIAL, signal);
      over.abort(new Error("the release was withdrawn"));
    } catch (error) {
      // There is nothing to stop any more.
      if (!signal.aborted) throw error;
    }
  }

  function tire(target: Target, error: unknown): void {
    if (retryOf(codeOf(error), true) !== "rarely") return;
    const count = rest !== undefined && isSame(rest.target, target) ? rest.failures + 1 : 1;
    rest = { target, failures: count, until: clock.monotonic() + restMs(count, random) };
  }

  /** Reads the channel and offers the machine what it names. */
  async function look(from: Volume, signal: AbortSignal): Promise<void> {
    const { event, refusal } = await follower.ask(from, state ?? INITIAL, signal);
    const resting =
      rest !== undefined && isSame(rest.target, event.target) && clock.monotonic() < rest.until;
    const changed = !(resting && event.event === "seen") && (await feed(event, signal));
    if (pending[0]?.step === "refuse") await step(signal);
    report.looked(changed);
    if (refusal !== undefined) throw refusal;
  }

  /** @returns milliseconds until the next cycle */
  async function cycle(signal: AbortSignal): Promise<number> {
    try {
      activity = "open";
      if (state === undefined) await recover(signal);
      if (unfinished && volume !== undefined) {
        unfinished = false;
        await feed({ event: "tick", passedMs: volume.stepper.passedMs() }, signal);
      }
      await settle(signal);
      activity = "look";
      if (volume !== undefined) await look(volume, signal);
      await settle(signal);
      failures = 0;
      if (rest === undefined) report.cleared();
      // Waiting for the swap has taken the time between two looks already, and reacts sooner than a pause.
      return state?.phase === "staged" && unfinished ? 0 : follower.untilNext();
    } catch (error) {
      signal.throwIfAborted();
      failures += 1;
      follower.failed();
      const building = activity === "build";
      const pause = pauseMs(
        retryOf(codeOf(error), building),
        failures,
        settings.pollInterval,
        random,
      );
      const delayMs = Math.max(pause, repository.holdMs());
      const looking = activity === "look" || activity === "refuse";
      report.failed(error, building ? "build" : looking ? "look" : "step", delayMs);
      return delayMs;
    }
  }

  try {
    await recover(new AbortController().signal);
  } catch (error) {
    report.failed(error, "step", 0);
  }
  return {
    async run(signal) {
      // Sites that come up together after a power cut do not all ask at once; one that has nothing yet does not wait.
      if (current !== undefined && pending.length === 0)
        await clock.sleep((random() * settings.pollInterval) / 10, signal);
      for (;;) {
        const delayMs = await cycle(signal);
        await clock.sleep(delayMs, signal);
      }
    },
    installed: () => current !== undefined,
    recovered: () => true,
    status: () => report.status(state, current),
  };
}
