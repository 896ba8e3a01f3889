/** Agents of real code, with files in memory, at one simulated Vault. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { SIDECAR_METRICS } from "#core/metrics.ts";
import { createMetrics } from "#core/telemetry.ts";
import type { Log } from "#core/telemetry.ts";
import { openSecretsAgent } from "../../sidecar/secrets/agent.ts";
import type { SecretsAgent } from "../../sidecar/secrets/agent.ts";
import { declaredIn } from "../../test/secrets/support/declared.ts";
import { MEMORY, temporaryFolder } from "../../test/support/temporary.ts";
import { randomFrom } from "../fleet/model.ts";
import { virtualClock } from "./clock.ts";
import type { VirtualClock } from "./clock.ts";
import { simulatedVault } from "./vault.ts";
import type { SimulatedVault } from "./vault.ts";

export interface Fleet extends AsyncDisposable {
  readonly clock: VirtualClock;
  readonly vault: SimulatedVault;
  readonly agents: readonly SecretsAgent[];
}

export interface FleetOptions {
  readonly agents: number;
  /** Requests by the name of their secret. */
  readonly secrets: Readonly<Record<string, string>>;
  /** Milliseconds over which the agents start. */
  readonly startMs: number;
}

const silent: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

/** Starts agents, each at its time; resolves when the last has begun. */
export async function openFleet({ agents, secrets, startMs }: FleetOptions): Promise<Fleet> {
  await using stack = new AsyncDisposableStack();
  const { path } = stack.use(await temporaryFolder(MEMORY));
  const clock = virtualClock(Date.parse("2026-03-01T00:00:00Z"));
  const vault = simulatedVault(clock, randomFrom(1));
  const metrics = createMetrics(SIDECAR_METRICS, { Counter, Gauge, Histogram }, new Registry());
  // One for each: Node looks through all listeners of a signal for every one that comes or goes.
  const ends: AbortController[] = [];
  const running: Promise<void>[] = [];
  const run = (part: { run(signal: AbortSignal): Promise<void> }): void => {
    const end = new AbortController();
    ends.push(end);
    running.push(part.run(end.signal));
  };
  stack.defer(async () => {
    for (const end of ends) end.abort();
    await Promise.allSettled(running);
  });
  run(vault);
  const list: SecretsAgent[] = [];
  for (let index = 0; index < agents; index++) {
    await clock.passTo((startMs * index) / agents);
    const folder = join(path, String(index));
    await mkdir(join(folder, "volume"), { recursive: true });
    await writeFile(join(folder, "token"), "a service account's");
    const agent = await openSecretsAgent({
      settings: declaredIn(folder, secrets),
      clock,
      random: randomFrom(1_000 + index),
      log: silent,
      metrics,
      http: vault.http(index),
    });
    run(agent);
    list.push(agent);
  }
  const owned = stack.move();
  return { clock, vault, agents: list, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}
