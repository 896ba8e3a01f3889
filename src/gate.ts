/** The two gates: whether the main container may start, and whether the pod is ready. */
import type { GateReason } from "./reasons.ts";
import type { Settings } from "./settings.ts";

export interface GateFacts {
  /** What the start waits for, and milliseconds for which expired credentials keep the pod ready. */
  readonly settings: Pick<Settings, "gate" | "readyGrace">;
  /** Absent when the pod follows no channel. */
  readonly payload: { readonly recovered: boolean; readonly installed: boolean } | undefined;
  /** Absent when the pod declares no secret. `expiredSince` in milliseconds since the epoch. */
  readonly secrets:
    { readonly published: boolean; readonly expiredSince: number | undefined } | undefined;
  /** Milliseconds since the epoch. */
  readonly now: number;
}

export interface Gates {
  readonly start: GateReason;
  readonly ready: GateReason;
}

export function gates({ settings, payload, secrets, now }: GateFacts): Gates {
  const start = startReason(settings, payload, secrets);
  if (start !== "ok") return { start, ready: start };
  const expiredSince = secrets?.expiredSince;
  const expired = expiredSince !== undefined && now - expiredSince >= settings.readyGrace;
  return { start, ready: expired ? "secrets_expired" : "ok" };
}

function startReason(
  { gate }: GateFacts["settings"],
  payload: GateFacts["payload"],
  secrets: GateFacts["secrets"],
): GateReason {
  // Whatever the gate waits for: recovery may still move `current`, and a program that has been started from it must not see that.
  if (payload?.recovered === false) return "starting";
  if (gate.includes("payload") && payload?.installed === false) return "payload_missing";
  if (gate.includes("secrets") && secrets?.published === false) return "secrets_missing";
  return "ok";
}
