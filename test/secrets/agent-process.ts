/** A secrets agent as a process of its own, which tests can kill. Argument: a file with the settings; it never revokes. */
import { readFileSync } from "node:fs";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { fromEnv } from "#core/settings.ts";
import { SIDECAR_METRICS } from "#core/metrics.ts";
import { createMetrics } from "#core/telemetry.ts";
import { openHttp } from "../../sidecar/network/http.ts";
import { openSecretsAgent } from "../../sidecar/secrets/agent.ts";
import { realClock } from "../support/real-clock.ts";
import { recordedLog, until } from "../vault/sidecar.ts";

const { env, ca } = JSON.parse(readFileSync(process.argv[2] ?? "", "utf8")) as {
  env: Record<string, string>;
  ca?: string;
};
const log = recordedLog();
const agent = await openSecretsAgent({
  settings: fromEnv(env),
  clock: realClock,
  random: Math.random,
  log,
  metrics: createMetrics(SIDECAR_METRICS, { Counter, Gauge, Histogram }, new Registry()),
  http: openHttp({
    ...(ca === undefined ? {} : { ca }),
    idleTimeoutMs: 5_000,
    unavailable: "VAULT_UNAVAILABLE",
  }),
});
void agent.run(new AbortController().signal);
await until(() => agent.published(), "published");
process.stdout.write("published\n");
