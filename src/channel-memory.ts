/** What a site remembers of its channels, whatever else it does: sequence numbers that only grow, and what must not be tried again. */
import type { Step } from "./update-events.ts";
import type { Blocked, ChannelMemory, Target, UpdateState } from "./update-state.ts";

/** The step that an offer leads to that must not be taken: one below the sequence number that was seen. */
export function refuse({ channels }: UpdateState, target: Target): Step | undefined {
  const floor = channels[target.channel]?.sequence ?? 0;
  if (target.sequence >= floor) return undefined;
  return { step: "refuse", code: "RELEASE_ROLLBACK", target, floor };
}

/** A grown sequence number forgets what was blocked at the one before. The same knowledge is the same state. */
export function learn(
  state: UpdateState,
  target: Target,
  { begun, urgent }: Pick<ChannelMemory, "begun" | "urgent">,
): UpdateState {
  const memory = state.channels[target.channel] ?? { sequence: 0, blocked: null };
  const grown = target.sequence > memory.sequence;
  if (!grown && memory.begun === begun && memory.urgent === urgent) return state;
  const { sequence } = target;
  const blocked = grown ? null : memory.blocked;
  return remember(state, target.channel, { sequence, blocked, begun, urgent });
}

function remember(
  state: UpdateState,
  channel: string,
  { sequence, blocked, begun, urgent }: ChannelMemory,
): UpdateState {
  const memory = {
    sequence,
    blocked,
    ...(begun !== undefined && { begun }),
    ...(urgent === true && { urgent }),
  };
  return { ...state, channels: { ...state.channels, [channel]: memory } };
}

/** A newer channel state that came in meanwhile is not the one that failed. */
export function block(
  state: UpdateState,
  { channel, ...blocked }: Blocked & Pick<Target, "channel">,
): UpdateState {
  const memory = state.channels[channel] ?? { sequence: 0, blocked: null };
  if (memory.sequence > blocked.sequence) return state;
  return remember(state, channel, { ...memory, sequence: blocked.sequence, blocked });
}

/** How often in a row nothing reached the application when a release was to be tried. */
export function undelivered({ channels }: UpdateState, release: Target): number {
  const blocked = channels[release.channel]?.blocked;
  if (blocked?.reason !== "not_delivered" || blocked.version !== release.version) return 0;
  return blocked.sequence === release.sequence ? (blocked.tries ?? 1) : 0;
}

/** What is blocked may be tried again: a person wants it, or there is no reason any more. @param only the channel, without it all of them */
export function forgive(state: UpdateState, only?: string): UpdateState {
  const memories = Object.entries(state.channels);
  if (memories.every(([, { blocked }]) => blocked === null)) return state;
  const channels = memories.map(([channel, memory]) =>
    only === undefined || only === channel
      ? [channel, { ...memory, blocked: null }]
      : [channel, memory],
  );
  return { ...state, channels: Object.fromEntries(channels) };
}
