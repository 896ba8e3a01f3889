/** Counts the results of a probe as the kubelet does: a verdict changes only after as many equal results in a row as its threshold says. */
import type { Probe } from "./probe.ts";

export interface Verdict {
  readonly passing: boolean;
  /** The last result and how often it came in a row; 0 before the first. */
  readonly last: boolean;
  readonly run: number;
}

/** Like the kubelet: liveness is taken to be good until it has failed, startup and readiness to be bad until they have passed. */
export function initialVerdict(passing: boolean): Verdict {
  return { passing, last: passing, run: 0 };
}

/** The verdict after one more result. */
export function observe(
  verdict: Verdict,
  result: boolean,
  { successThreshold, failureThreshold }: Pick<Probe, "successThreshold" | "failureThreshold">,
): Verdict {
  const run = verdict.run > 0 && verdict.last === result ? verdict.run + 1 : 1;
  const reached = run >= (result ? successThreshold : failureThreshold);
  return { passing: reached ? result : verdict.passing, last: result, run };
}
