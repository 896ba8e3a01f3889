/** Has releases built, stops that when the channel takes one back, and leaves alone for a while what fails again and again. */
import type { Clock } from "#core/clock.ts";
import { EdgeSyncError, codeOf } from "#core/errors.ts";
import type { Plan } from "#core/plan.ts";
import { restMs, retryOf } from "#core/retry.ts";
import type { Settings } from "#core/settings.ts";
import { INITIAL, isSame } from "#core/update-state.ts";
import type { Bank, Target } from "#core/update-state.ts";
import type { Follower } from "../channel/follower.ts";
import { install } from "../payload/install.ts";
import type { Offer } from "../channel/offer.ts";
import type { Permits } from "./permits.ts";
import type { Seed } from "../payload/seed.ts";
import { limitsOf } from "../payload/space.ts";
import type { UpdateMachine } from "./machine.ts";
import type { Report } from "./report.ts";

export interface Builder {
  /** @throws EdgeSyncError as `install`; whatever it throws is of no account when {@link Builder.stopped} says so */
  readonly build: (target: Target, from: Bank | null, signal: AbortSignal) => Promise<Bank>;
  /** Whether the last build was stopped by us, so that nothing has failed. */
  stopped(): boolean;
  /** The offer that took back what was being fetched, once. */
  takenBack(): Offer | undefined;
  /** Counts a failure of a release: to try it again costs its bytes again. */
  tire(target: Target, error: unknown): void;
  /** Whether a release is to be left alone now. */
  rests(target: Target): boolean;
  /** Whether there is one to be left alone. */
  tired(): boolean;
  /** Forgets failures. */
  forgive(): void;
}

export interface BuilderDeps {
  readonly settings: Settings;
  readonly clock: Clock;
  readonly random: () => number;
  readonly app: string;
  readonly platform: string;
  /** Files of another volume that need not be fetched. */
  readonly seed: Seed | undefined;
  readonly follower: Follower;
  readonly report: Report;
  readonly permits: Pick<Permits, "lapse">;
  readonly machine: () => UpdateMachine;
}

interface Rest {
  readonly target: Target;
  readonly failures: number;
  /** Monotonic milliseconds. */
  readonly until: number;
}

export function openBuilder(deps: BuilderDeps): Builder {
  const { settings, clock, random, app, platform, follower, report } = deps;
  let rest: Rest | undefined;
  let takenBack: Offer | undefined;
  let stopped = false;

  /** Until the release is withdrawn, which may be days after it began. Ends with `signal`. */
  async function withdrawal(over: AbortController, signal: AbortSignal): Promise<void> {
    const machine = deps.machine();
    const volume = machine.volume();
    if (volume === undefined) return;
    try {
      takenBack = await follower.withdrawal(volume, () => machine.state() ?? INITIAL, signal);
      stopped = true;
      over.abort(new Error("the release was withdrawn"));
    } catch (error) {
      // There is nothing to stop any more.
      if (!signal.aborted) throw error;
    }
  }

  /** Until it may not be fetched any further, for now. Ends with `signal`. */
  async function lapse(over: AbortController, signal: AbortSignal): Promise<void> {
    try {
      await deps.permits.lapse(signal);
      stopped = true;
      over.abort(new Error("the release may not be fetched now"));
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  return {
    async build(target, from, signal) {
      const trusted = follower.latest()?.trusted;
      const volume = deps.machine().volume();
      if (trusted === undefined || volume === undefined)
        throw new EdgeSyncError("INTERNAL", "a release is built before the channel was looked at");
      stopped = false;
      const over = new AbortController();
      const bounded = AbortSignal.any([signal, over.signal]);
      const watched = Promise.all([withdrawal(over, bounded), lapse(over, bounded)]);
      try {
        const bank = await install(
          target,
          from,
          {
            ...volume,
            app,
            platform,
            trusted: trusted.set,
            trust: trusted.deps,
            fallback: settings.fullFallback,
            limits: limitsOf(settings),
            seed: deps.seed,
            planned: (plan: Plan, base: string | null) =>
              report.planned(plan, target.version, base),
          },
          bounded,
        );
        rest = undefined;
        return bank;
      } finally {
        over.abort(new Error("the release is not fetched any more"));
        await watched;
      }
    },
    stopped: () => stopped,
    takenBack() {
      const offer = takenBack;
      takenBack = undefined;
      return offer;
    },
    tire(target, error) {
      if (retryOf(codeOf(error), true) !== "rarely") return;
      const failures = rest !== undefined && isSame(rest.target, target) ? rest.failures + 1 : 1;
      rest = { target, failures, until: clock.monotonic() + restMs(failures, random) };
    },
    rests: (target) =>
      rest !== undefined && isSame(rest.target, target) && clock.monotonic() < rest.until,
    tired: () => rest !== undefined,
    forgive() {
      rest = undefined;
    },
  };
}
