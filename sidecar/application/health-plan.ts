/** How the health of a release on trial is looked at: as annotation `health` says, or by the containers' own probes. */
import { unreachable } from "#core/errors.ts";
import type { HealthCheck } from "#core/health-check.ts";
import type { ProbeHandler } from "#core/probe.ts";
import type { Settings } from "#core/settings.ts";

/** For a check that the annotation states: not the pod's own probe, so it has no period or threshold of its own. */
const CHECK_TIMEOUT_MS = 3_000;
const CHECK_FAILURE_THRESHOLD = 3;
const CHECK_PERIOD_MS = { least: 1_000, most: 10_000 };

export interface HealthPlan {
  readonly checks: readonly {
    readonly handler: ProbeHandler | Extract<HealthCheck, { kind: "command" }>;
    readonly timeoutMs: number;
  }[];
  readonly periodMs: number;
  readonly failureThreshold: number;
}

/** With `probe`, each container's readiness probe, or else its liveness or startup probe: the first says most about serving. */
export function healthPlan({
  app,
  health,
  trialDuration,
}: Pick<Settings, "app" | "health" | "trialDuration">): HealthPlan {
  // Several looks in a trial, however short it is.
  const { least, most } = CHECK_PERIOD_MS;
  const periodMs = Math.min(most, Math.max(least, trialDuration / 5));
  const stated = (handler: HealthPlan["checks"][number]["handler"]): HealthPlan => ({
    checks: [{ handler, timeoutMs: CHECK_TIMEOUT_MS }],
    periodMs,
    failureThreshold: CHECK_FAILURE_THRESHOLD,
  });
  switch (health.kind) {
    case "http":
      return stated({ ...health, scheme: "http", headers: [] });
    case "tcp":
    case "grpc":
    case "command":
      return stated(health);
    case "none":
      return { checks: [], periodMs, failureThreshold: CHECK_FAILURE_THRESHOLD };
    case "probe": {
      const probes = app.flatMap(
        ({ readiness, liveness, startup }) => readiness ?? liveness ?? startup ?? [],
      );
      if (probes.length === 0)
        return { checks: [], periodMs, failureThreshold: CHECK_FAILURE_THRESHOLD };
      return {
        checks: probes,
        periodMs: Math.max(least, Math.min(...probes.map((probe) => probe.periodMs))),
        failureThreshold: Math.max(...probes.map((probe) => probe.failureThreshold)),
      };
    }
    default:
      return unreachable(health);
  }
}
