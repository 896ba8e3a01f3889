/**
 * A secrets agent as a process that can kill itself before or after any of its steps: an operation on its volume, or a request. Argument: a
 * file with the settings. When all is published and nothing has happened for a while, it writes the steps that it took, and ends.
 */
import { readFileSync } from "node:fs";
import { createRequire, syncBuiltinESMExports } from "node:module";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { fromEnv } from "#core/settings.ts";
import { SIDECAR_METRICS } from "#core/metrics.ts";
import { createMetrics } from "#core/telemetry.ts";
import { openHttp } from "../../../sidecar/network/http.ts";
import { realClock } from "../../support/real-clock.ts";
import { recordedLog, until } from "../../vault/sidecar.ts";
import { stepOfPath, stepOfRequest } from "./steps.ts";
import type { Task } from "./steps.ts";

const { env, ca, volume, kill, expected } = JSON.parse(
  readFileSync(process.argv[2] ?? "", "utf8"),
) as Task;

const steps: string[] = [];

function die(name: string, isLate: boolean): void {
  const nth = steps.filter((step) => step === name).length;
  if (kill?.step !== name || kill.nth !== nth || kill.isLate !== isLate) return;
  process.kill(process.pid, "SIGKILL");
}

async function step<T>(name: string, work: () => Promise<T>): Promise<T> {
  steps.push(name);
  die(name, false);
  const result = await work();
  die(name, true);
  return result;
}

type Operation = (...given: readonly unknown[]) => Promise<unknown>;
const fs = createRequire(import.meta.url)("node:fs/promises") as Record<string, Operation>;
for (const name of ["chmod", "mkdir", "open", "rename", "rm", "symlink", "writeFile"]) {
  const before = fs[name];
  if (before === undefined) throw new Error(`no ${name}`);
  fs[name] = async (...given) => {
    const path = String(given[name === "rename" || name === "symlink" ? 1 : 0]);
    if (!path.startsWith(`${volume}/`)) return await before(...given);
    return await step(`${name} ${stepOfPath(path.slice(volume.length + 1))}`, () =>
      before(...given),
    );
  };
}
syncBuiltinESMExports();

// Only now, so that it finds the operations as they are by now.
const { openSecretsAgent } = await import("../../../sidecar/secrets/agent.ts");
const http = openHttp({
  ...(ca === undefined ? {} : { ca }),
  idleTimeoutMs: 5_000,
  unavailable: "VAULT_UNAVAILABLE",
});
const agent = await openSecretsAgent({
  settings: fromEnv(env),
  clock: realClock,
  random: Math.random,
  log: recordedLog(),
  metrics: createMetrics(SIDECAR_METRICS, { Counter, Gauge, Histogram }, new Registry()),
  http: {
    ...http,
    request: (request, signal) =>
      step(stepOfRequest(request.url), () => http.request(request, signal)),
  },
});
void agent.run(new AbortController().signal);
const shown = (): string | undefined => {
  try {
    return readFileSync(`${volume}/set/value`, "utf8");
  } catch {
    return undefined;
  }
};
await until(() => agent.published() && shown() === expected, "published");
for (let before = -1; before !== steps.length;) {
  before = steps.length;
  await realClock.sleep(250, new AbortController().signal);
}
process.stdout.write(JSON.stringify(steps));
process.exit(0);
