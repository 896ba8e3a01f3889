/** What the followed channel offers this site now: a look at it, and what the site's place in a roll-out makes of it. */
import { manifestPath } from "#core/release.ts";
import { courseOf, lookDelayMs, nextVersion } from "#core/rollout.ts";
import type { Place } from "#core/rollout.ts";
import type { Event } from "#core/update.ts";
import { served } from "#core/update-state.ts";
import type { Target, UpdateState } from "#core/update-state.ts";
import type { ChannelRef } from "#core/values.ts";
import type { Rollout } from "#core/channel-document.ts";
import { lookAt, orderOf } from "./channel.ts";
import type { LookDeps, Trusted } from "./channel.ts";

export interface OfferDeps extends LookDeps {
  readonly site: string;
  /** `<os>-<architecture>`. */
  readonly platform: string;
}

export interface Offer {
  readonly trusted: Trusted;
  /** What the channel points to for the platform. */
  readonly wanted: string;
  /** For the update machine: what the site installs, or would install if it might. */
  readonly event: Extract<Event, { event: "seen" | "withheld" }>;
  /** Why the site must not follow the channel, beyond waiting for its turn. */
  readonly refusal: unknown;
  readonly rollout: Rollout | undefined;
  /** Of the site in the roll-out. */
  readonly place: Place | null;
}

/** @throws EdgeSyncError as `lookAt`, and RELEASE_NOT_FOUND when the channel has nothing for the platform */
export async function askFor(
  followed: ChannelRef,
  deps: OfferDeps,
  state: UpdateState,
  signal: AbortSignal,
): Promise<Offer> {
  const { trusted, document } = await lookAt(followed, deps, signal);
  const { platform } = deps;
  const { sequence, rollout } = document;
  const channel = `${followed.app}/${followed.channel}`;
  const has = served(state)?.version ?? null;
  const standing = { version: has, begun: state.channels[channel]?.begun ?? null };
  const course = courseOf(document, deps, standing, trusted.deps.now);
  const common = { trusted, rollout, wanted: course.wanted, place: course.place };
  const offer = (version: string, taken: boolean, refusal?: unknown): Offer => {
    const target: Target = { channel, sequence, version };
    const begun = course.begins ?? undefined;
    const urgent = document.urgency === "urgent" ? true : undefined;
    const event = taken
      ? ({ event: "seen", target, begun, urgent } as const)
      : ({ event: "withheld", target } as const);
    return { ...common, event, refusal };
  };
  if (course.version === null) return offer(course.wanted, false);
  const wanted = course.version;
  if (has === wanted) return offer(wanted, true);
  const orders = new Map<string, number | undefined>();
  // Also for a first installation, which has nothing to compare: the role that lists releases is then known from an address that has it.
  for (const version of has === null ? [wanted] : [has, wanted, document.minimum]) {
    if (version === undefined) continue;
    const path = manifestPath(followed.app, version, platform);
    orders.set(version, await orderOf(path, trusted, deps.repository, signal));
  }
  try {
    return offer(
      nextVersion(document, has, wanted, (version) => orders.get(version)),
      true,
    );
  } catch (refusal) {
    // Not thrown: that the sequence has grown is to be remembered all the same.
    return offer(wanted, false, refusal);
  }
}

/** Milliseconds until the next look: `delayMs`, or less where the site's turn comes sooner. @param now of the trusted time */
export function untilNextLook(
  delayMs: number,
  { rollout, place }: Pick<Offer, "rollout" | "place">,
  timing: { readonly now: number; readonly intervalMs: number; readonly random: () => number },
): number {
  if (rollout === undefined || place?.waiting !== "rollout_not_yet") return delayMs;
  return lookDelayMs(delayMs, { turn: place.turn, schedule: rollout }, timing);
}
