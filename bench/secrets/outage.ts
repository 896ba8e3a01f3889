/** An outage of a fleet's Vault, and what comes after it. */
import type { SecretsAgent } from "../../sidecar/secrets/agent.ts";
import type { Fleet } from "./fleet.ts";
import type { Asked, Holding, Outage } from "./vault.ts";

const SECOND_MS = 1_000;
/** Milliseconds after an outage in which everything must be over. */
const AFTER_MS = 900_000;
/** Milliseconds that a lease must have left at the end of an outage, for its lapse to be without need. */
const NEEDED_MS = 60_000;

export interface Aftermath {
  /** Requests of an agent in an hour of the outage: on average, and of the one with the most. */
  readonly perHour: { readonly mean: number; readonly most: number };
  /** Requests in the busiest second of the outage, and of the quarter of an hour after it. */
  readonly busiest: { readonly during: number; readonly after: number };
  /** Requests in a second, on average until all is well. */
  readonly mean: number;
  /** Of the seconds until all is well, 99 % have no more requests than this. */
  readonly p99: number;
  /** Seconds until every agent has a token and every secret is good; NaN when it takes longer than is waited. */
  readonly freshAfter: number;
  /** Credentials that had ended when the outage was over. */
  readonly expired: number;
  /** Credentials that had a minute or more left when the outage was over, and lapsed all the same. */
  readonly lapsed: number;
}

/** @param ms how long it lasts */
export async function suffer(fleet: Fleet, kind: Outage, ms: number): Promise<Aftermath> {
  const { clock, vault, agents } = fleet;
  const begun = clock.monotonic();
  const ended = begun + ms;
  vault.take();
  await vault.fail(kind, clock.now() + ms);
  await clock.passTo(ended);
  await vault.fail(undefined);
  const during = vault.take();
  const held = vault.holdings();
  const expired = held.filter(({ endsAt }) => endsAt() <= clock.now()).length;
  const alive = held.filter(({ endsAt }) => endsAt() >= clock.now() + NEEDED_MS);
  const lapsed = new Set<Holding>();
  let freshAfter = Number.NaN;
  for (let at = ended + SECOND_MS; at <= ended + AFTER_MS; at += SECOND_MS) {
    await clock.passTo(at);
    for (const holding of alive)
      if (!holding.isReplaced && holding.endsAt() <= clock.now()) lapsed.add(holding);
    if (Number.isNaN(freshAfter) && agents.every(isWell)) freshAfter = (at - ended) / SECOND_MS;
  }
  const after = vault.take();
  const seconds = bySecond(
    after,
    ended,
    Number.isNaN(freshAfter) ? AFTER_MS / SECOND_MS : freshAfter,
  );
  const counts = Array.from(
    Map.groupBy(during, ({ agent }) => agent).values(),
    (list) => list.length,
  );
  const hours = ms / 3_600_000;
  return {
    perHour: {
      mean: during.length / agents.length / hours,
      most: Math.max(0, ...counts) / hours,
    },
    busiest: {
      during: Math.max(...bySecond(during, begun, ms / SECOND_MS)),
      after: Math.max(...bySecond(after, ended, AFTER_MS / SECOND_MS)),
    },
    mean: seconds.reduce((sum, count) => sum + count, 0) / seconds.length,
    p99: seconds.toSorted((a, b) => a - b)[Math.ceil(0.99 * seconds.length) - 1] ?? 0,
    freshAfter,
    expired,
    lapsed: lapsed.size,
  };
}

function isWell(agent: SecretsAgent): boolean {
  const { loggedIn, vaultFailingSince, code, secrets } = agent.status();
  const isGood = secrets.every((secret) => secret.state === "valid" && secret.code === undefined);
  return loggedIn && vaultFailingSince === undefined && code === undefined && isGood;
}

/** Requests by the second. @param from monotonic milliseconds */
export function bySecond(
  asked: readonly Asked[],
  from: number,
  seconds: number,
): readonly number[] {
  const counts = Array.from({ length: Math.ceil(seconds) }, () => 0);
  for (const { at } of asked) {
    const second = Math.floor((at - from) / SECOND_MS);
    if (second >= 0 && second < counts.length) counts[second] = (counts[second] ?? 0) + 1;
  }
  return counts;
}
