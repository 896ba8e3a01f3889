/** One look at the health of the application, as the health plan says. */
import { resultOfReply } from "#core/hook.ts";
import { checkTarget } from "#core/health-check.ts";
import type { Verdict } from "#core/update-events.ts";
import type { HealthPlan } from "./health-plan.ts";
import { examine } from "./probe.ts";
import type { Programs } from "./programs.ts";

export interface Checked {
  readonly verdict: Verdict;
  readonly target: string;
  /** What came of it, for people. */
  readonly result: string;
}

/** Rejects with the signal's reason and with nothing else. A command that cannot be run says nothing of the release. */
export async function checkOnce(
  { handler, timeoutMs }: HealthPlan["checks"][number],
  programs: Programs | undefined,
  signal: AbortSignal,
): Promise<Checked> {
  const target = checkTarget(handler);
  if (handler.kind !== "command") {
    const { result, detail } = await examine(handler, timeoutMs, signal);
    return { verdict: result === "passed" ? "healthy" : "unhealthy", target, result: detail };
  }
  const reply = await programs?.run(handler.argv, {}, timeoutMs, signal);
  if (reply === undefined || reply.kind === "broken")
    return { verdict: "unknown", target, result: reply?.text ?? "a command is for a daemon only" };
  const isWell = reply.kind === "exit" && reply.status === 0;
  // What a command prints is no answer to anybody.
  const result = resultOfReply({ ...reply, text: reply.kind === "silent" ? reply.text : "" });
  return { verdict: isWell ? "healthy" : "unhealthy", target, result };
}
