/** What each kind of exchange costs, measured: one site of real code, look by look, against the real server. */
import { setTimeout as sleep } from "node:timers/promises";
import { join } from "node:path";
import type { Clock } from "#core/clock.ts";
import type { Rollout } from "#core/channel-document.ts";
import { isoSeconds } from "../../publisher/metadata.ts";
import type { Cost, Costs } from "./model.ts";
import { openBenchSite, until } from "./site.ts";
import type { BenchSite } from "./site.ts";
import { FROM, NEW } from "./wire.ts";
import type { Wire } from "./wire.ts";

const POLL_MS = 900_000;

/** Stands still before each look, until it is told to go on; shorter waits are over at once. */
interface SteppedClock extends Clock {
  /** Whether nothing happens any more before the next look. */
  idle(): boolean;
  step(): void;
}

function steppedClock(): SteppedClock {
  const start = Date.now();
  let passed = 0;
  let waiting: { readonly ms: number; readonly wake: () => void }[] = [];
  return {
    now: () => start + passed,
    monotonic: () => passed,
    async sleep(ms, signal) {
      signal.throwIfAborted();
      if (ms < POLL_MS / 2) {
        passed += ms;
        await sleep(0, undefined, { signal });
        return;
      }
      await new Promise<void>((resolve, reject) => {
        const abort = (): void => {
          waiting = waiting.filter((item) => item !== entry);
          reject(signal.reason as Error);
        };
        const entry = {
          ms,
          wake() {
            signal.removeEventListener("abort", abort);
            resolve();
          },
        };
        signal.addEventListener("abort", abort, { once: true });
        waiting.push(entry);
      });
    },
    idle: () => waiting.length > 0,
    step() {
      const [first, ...rest] = waiting;
      if (first === undefined) return;
      waiting = rest;
      passed += first.ms;
      first.wake();
    },
  };
}

export async function measureExchanges(wire: Wire): Promise<Costs> {
  const clock = steppedClock();
  await using site = await openBenchSite({
    wire,
    clock,
    payload: join(wire.world.folder, "measured"),
    site: "measured",
    pollMs: POLL_MS,
    random: () => 0.5,
  });
  await rest(site, clock);
  const look = async (): Promise<Cost> => {
    // Between two looks lies more time than a connection is kept for.
    site.hangUp();
    const before = takenBy(site, wire);
    clock.step();
    await rest(site, clock);
    site.hangUp();
    await settled(wire);
    const after = takenBy(site, wire);
    return {
      requests: after.requests - before.requests,
      connections: after.connections - before.connections,
      bytes: after.bytes - before.bytes,
    };
  };
  // The first one after an installation fetches the channel document anew.
  await look();
  const idle = await look();
  await wire.world.renew();
  const renewed = await look();
  const rollout: Rollout = {
    start: isoSeconds(clock.now() + 2.5 * POLL_MS),
    duration: 0,
    percent: 100,
    paused: false,
    salt: "2",
    from: FROM,
  };
  await wire.announce(rollout);
  const news = await look();
  let install = await look();
  for (let turn = 0; turn < 5 && site.agent.status().release?.version !== NEW; turn++)
    install = await look();
  const afterwards = await look();
  return { idle, renewed, news, install, afterwards };
}

function takenBy(site: BenchSite, wire: Wire): Cost {
  return { requests: site.requests(), connections: wire.connections(), bytes: wire.bytes() };
}

async function rest(site: BenchSite, clock: SteppedClock): Promise<void> {
  await until("the end of a look", () => clock.idle() && site.agent.status().phase === "committed");
}

/** Waits until the last bytes of closing connections have passed. */
async function settled(wire: Wire): Promise<void> {
  let before = -1;
  for (let turn = 0; turn < 100 && wire.bytes() !== before; turn++) {
    before = wire.bytes();
    await sleep(20);
  }
}
