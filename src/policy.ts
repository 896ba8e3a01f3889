/** How a release is tried, from the pod's annotations and probes. */
import type { HookName, NoticeHook } from "./hook.ts";
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
  /** Whether a check of the workload says anything: not with `health: none`, nor without any probe. */
  readonly judged: boolean;
  /** Whether the main container is restarted for a release, so that nothing uses the old bank after a commit. */
  readonly restarts: boolean;
  /** What the application wants to be told of. */
  readonly notices: readonly NoticeHook[];
}

/**
 * @param healthFailureThreshold of the check that the workload carries out
 * @param hasHook whether the application has one
 */
export function policyOf(
  settings: Pick<
    Settings,
    "app" | "health" | "onUpdate" | "trialDuration" | "trialTimeout" | "trialStarts"
  >,
  healthFailureThreshold: number,
  hasHook: (hook: HookName) => boolean,
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
    notices: (["post-commit", "post-rollback"] as const).filter(hasHook),
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
