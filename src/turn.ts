/**
 * The turn of a pod: its payloads share one application and one lever, so only one of them is swapped and tried at a time. First come,
 * first served, and never for ever: who does not ask any more loses its place, and who holds the turn for too long loses the turn.
 */
export interface Turns {
  /** Payloads that have not said yet whether a swap of theirs was under way when the sidecar ended. */
  readonly unknown: readonly string[];
  /** Monotonic milliseconds, here and below. */
  readonly openedAt: number;
  /** More than one only where one was under way that nobody knew of. */
  readonly holders: readonly { readonly name: string; readonly since: number }[];
  readonly queue: readonly { readonly name: string; readonly askedAt: number }[];
  /** Longer than any trial with its rollback. */
  readonly limitMs: number;
}

/** A payload whose volume cannot be read holds the others up for so long, and not for ever. */
export const UNKNOWN_MS = 60_000;

/** Who has not asked for so long is doing something else. */
export const STALE_MS = 10_000;

export function initialTurns(names: readonly string[], at: number, limitMs: number): Turns {
  return { unknown: names, openedAt: at, holders: [], queue: [], limitMs };
}

/**
 * What a payload's journal says, when it has been read and whenever it has changed. A swap that it speaks of has the turn, whoever has
 * asked meanwhile; without one the payload gives the turn back.
 */
export function follow(turns: Turns, name: string, swapping: boolean, at: number): Turns {
  const unknown = turns.unknown.filter((other) => other !== name);
  const holds = turns.holders.some((holder) => holder.name === name);
  if (!swapping)
    return { ...turns, unknown, holders: turns.holders.filter((holder) => holder.name !== name) };
  const holders = holds ? turns.holders : [...turns.holders, { name, since: at }];
  return { ...turns, unknown, holders };
}

/** @returns whether the payload has the turn now */
export function ask(before: Turns, name: string, at: number): readonly [Turns, boolean] {
  const holders = before.holders.filter(({ since }) => at - since < before.limitMs);
  if (holders.some((holder) => holder.name === name)) return [{ ...before, holders }, true];
  const waiting = before.queue.filter((one) => one.name === name || at - one.askedAt <= STALE_MS);
  const queue = waiting.some((one) => one.name === name)
    ? waiting.map((one) => (one.name === name ? { name, askedAt: at } : one))
    : [...waiting, { name, askedAt: at }];
  const known = before.unknown.length === 0 || at - before.openedAt >= UNKNOWN_MS;
  if (!known || holders.length > 0 || queue[0]?.name !== name)
    return [{ ...before, holders, queue }, false];
  return [{ ...before, holders: [{ name, since: at }], queue: queue.slice(1) }, true];
}
