/** Follows one channel for the update agent: asks what it offers, remembers the last offer, and says when to ask again. */
import type { Clock } from "#core/clock.ts";
import { jitterMs, pollMs } from "#core/retry.ts";
import type { Settings } from "#core/settings.ts";
import type { UpdateState } from "#core/update-state.ts";
import type { ChannelRef } from "#core/values.ts";
import type { LookDeps } from "./channel.ts";
import type { Disk } from "../disk/durable.ts";
import { askFor, untilNextLook } from "./offer.ts";
import type { Offer } from "./offer.ts";
import type { Repository } from "../repository/repository.ts";
import { siteOf } from "./site.ts";
import type { TrustTime } from "./trust-time.ts";
import type { Report } from "../update/report.ts";

/** What there is once the payload volume is open. */
type Volume = Pick<LookDeps, "store" | "downloads">;

export interface Follower {
  /** Reads the channel, verified. @throws EdgeSyncError as `askFor` and `siteOf` */
  ask(from: Volume, state: UpdateState, signal: AbortSignal): Promise<Offer>;
  /** Asks as often as ever, whatever fails, until the channel offers nothing for the site to install. Rejects with the signal's reason. */
  withdrawal(from: Volume, state: () => UpdateState, signal: AbortSignal): Promise<Offer>;
  /** The last one; undefined before the first. */
  latest(): Offer | undefined;
  /** Whether a look is due, and more. */
  isStale(): boolean;
  /** Milliseconds until the next look when all went well; a turn in a roll-out may come sooner than the next poll. */
  untilNext(): number;
  /** Something went wrong that may have gone wrong for other sites at the same time. */
  failed(): void;
}

interface FollowerDeps {
  readonly followed: ChannelRef;
  readonly settings: Settings;
  readonly clock: Clock;
  readonly random: () => number;
  readonly disk: Disk;
  readonly repository: Repository;
  readonly time: TrustTime;
  readonly report: Report;
  readonly platform: string;
  /** Of the payload volume. */
  readonly root: string;
  /** File of the pinned root. */
  readonly trustRoot: string;
}

/** Of the poll interval, with which a look is never late by itself. */
const LATE = 1.2;

export function openFollower(deps: FollowerDeps): Follower {
  const { followed, settings, clock, random, disk, repository, time, report, platform } = deps;
  const { pollInterval } = settings;
  let site: string | undefined;
  /** With the monotonic time at which it was had. */
  let latest: (Offer & { readonly at: number }) | undefined;
  /** Monotonic milliseconds of the last look, also of one that failed. */
  let lookedAt = -Infinity;
  /** Whether other sites may look when this one does: after a start, or a failure, that came for all of them. */
  let bunched = true;

  async function ask(from: Volume, state: UpdateState, signal: AbortSignal): Promise<Offer> {
    lookedAt = clock.monotonic();
    site ??= await siteOf(settings, deps.root, disk);
    const root = deps.trustRoot;
    const look = { ...from, disk, clock, repository, time, platform, site, root };
    const offer = await askFor(followed, look, state, signal);
    latest = { ...offer, at: clock.monotonic() };
    report.offered(site, offer.wanted, offer.place);
    return offer;
  }

  return {
    ask,
    async withdrawal(from, state, signal) {
      for (;;) {
        const delayMs = jitterMs(pollInterval, random);
        await clock.sleep(Math.max(delayMs, repository.holdMs()), signal);
        try {
          const offer = await ask(from, state(), signal);
          report.looked(false);
          if (offer.event.event === "withheld") return offer;
        } catch (error) {
          signal.throwIfAborted();
          // What is wrong with the repository shows in the download itself.
          report.missed(error);
        }
      }
    },
    latest: () => latest,
    isStale: () => clock.monotonic() - lookedAt >= LATE * pollInterval,
    untilNext() {
      const delayMs = pollMs(pollInterval, bunched, random);
      bunched = false;
      if (latest === undefined) return delayMs;
      const now = latest.trusted.deps.now + clock.monotonic() - latest.at;
      return untilNextLook(delayMs, latest, { now, intervalMs: pollInterval, random });
    },
    failed() {
      bunched = true;
    },
  };
}
