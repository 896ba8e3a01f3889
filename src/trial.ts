/** What is seen of a release on trial, and what follows from it. */
import type { Policy } from "./policy.ts";
import type { RollbackReason } from "./reasons.ts";
import type { Event } from "./update-events.ts";
import type { Trial, Watch } from "./update-state.ts";

/** What has been seen, with one more look at the application. */
export function watched(
  trial: Trial,
  event: Extract<Event, { event: "health" }>,
  policy: Policy,
): Trial {
  const { passedMs, starts, verdict, failure } = event;
  const before = trial.watch;
  const settledMs =
    starts > 0 ? 0 : before.settlingMs === null ? null : before.settlingMs + passedMs;
  const counts = settledMs === null || settledMs >= policy.graceMs;
  const watch: Watch = {
    ...before,
    spentMs: before.spentMs + passedMs,
    healthyMs:
      verdict !== "healthy" || starts > 0
        ? null
        : before.healthyMs === null
          ? 0
          : before.healthyMs + passedMs,
    failures:
      verdict === "healthy" ? 0 : before.failures + (verdict === "unhealthy" && counts ? 1 : 0),
    settlingMs: verdict === "healthy" ? null : settledMs,
    ...(failure !== undefined && { failure }),
  };
  return { ...trial, starts: trial.starts + starts, watch };
}

/** The verdict, if there is one yet. */
export function verdictOn(
  { starts, watch }: Trial,
  policy: Policy,
): "healthy" | RollbackReason | undefined {
  if (starts > policy.trialStarts) return "too_many_starts";
  if (watch.failures >= policy.healthFailureThreshold) return "health_failed";
  if (watch.healthyMs !== null && watch.healthyMs >= policy.trialDurationMs) return "healthy";
  return watch.spentMs >= policy.trialTimeoutMs ? "trial_timeout" : undefined;
}

/**
 * Why a release is taken back that was not seen to start. What can have reached the application may be the cause that it never answered;
 * after a restart of the sidecar nobody knows.
 */
export function lateReason(
  { stage, resumed }: Trial,
  { unreached }: Extract<Event, { event: "tick" }>,
): RollbackReason {
  const isLocal = stage === "restarting" && resumed === 0 && unreached === true;
  return isLocal ? "not_delivered" : "trial_timeout";
}
