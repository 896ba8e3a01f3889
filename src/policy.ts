/** How a release is tried, from the pod's annotations and probes. */
import type { AppProbes } from "./probe.ts";
import type { Settings } from "./settings.ts";

export interface Policy {
  readonly trialDurationMs: number;
  readonly trialTimeoutMs: number;
  readonly trialStarts: number;
  /** Failed checks in a row that end a trial. */
  readonly healthFailureThreshold: number;
  /** For this long after a start, failed checks do not count yet: a program may take its time to come up. */
  readonly graceMs: number;
  /** False with `health: none`: every check then counts as healthy. */
  readonly judged: boolean;
  /** Whether the main container is restarted for a release, so that nothing uses the old bank after a commit. */
  readonly restarts: boolean;
}

/** @param healthFailureThreshold of the check that the workload carries out */
export function policyOf(
  settings: Pick<
    Settings,
    "app" | "health" | "onUpdate" | "trialDuration" | "trialTimeout" | "trialStarts"
  >,
  healthFailureThreshold: number,
): Policy {
  const { app, health, trialDuration } = settings;
  // A container without any probe counts as healthy for Kubernetes too; its starts still say something.
  const unprobed = health.kind === "probe" && !app.some((probes) => hasProbe(probes));
  return {
    trialDurationMs: trialDuration,
    trialTimeoutMs: settings.trialTimeout,
    trialStarts: settings.trialStarts,
    healthFailureThreshold,
    // It may take as long to become healthy as it must then stay so, and longer where its probes allow for it.
    graceMs: Math.max(trialDuration, ...app.map(startAllowanceMs)),
    judged: health.kind !== "none" && !unprobed,
    restarts: settings.onUpdate.kind === "restart",
  };
}

function hasProbe({ startup, liveness, readiness }: AppProbes): boolean {
  return startup !== undefined || liveness !== undefined || readiness !== undefined;
}

/** Milliseconds that Kubernetes gives a container to start. */
function startAllowanceMs({ startup, liveness, readiness }: AppProbes): number {
  if (startup !== undefined)
    return startup.initialDelayMs + startup.periodMs * startup.failureThreshold;
  return Math.max(liveness?.initialDelayMs ?? 0, readiness?.initialDelayMs ?? 0);
}
