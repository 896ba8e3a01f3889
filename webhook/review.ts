/** One review, from its JSON to its answer. Pure: what was decided is given back, and the server counts and logs it. */
import { admit, fail, readReview, refuse } from "#core/admission-review.ts";
import type { ReviewResponse } from "#core/admission-review.ts";
import { codeOf, unreachable } from "#core/errors.ts";
import type { ClusterOptions } from "#core/inject/cluster.ts";
import { inject } from "#core/inject/inject.ts";
import { diff } from "#core/json-patch.ts";
import { SKIP_REASONS } from "#core/reasons.ts";
import type { SkipReason } from "#core/reasons.ts";
import type { LogFields } from "#core/telemetry.ts";

export interface Reviewed {
  readonly response: ReviewResponse;
  readonly outcome: "injected" | "skipped" | "denied" | "failed";
  /** `ok`, a skip reason, or an error code. */
  readonly reason: string;
  readonly fields: LogFields;
}

/** @throws EdgeSyncError REVIEW_INVALID when the body is no review of a pod */
export function answerReview(body: unknown, cluster: ClusterOptions): Reviewed {
  const { uid, name, namespace, pod } = readReview(body);
  const fields: LogFields = {
    uid,
    ...(namespace === undefined ? {} : { namespace }),
    ...(name === undefined ? {} : { pod: name }),
  };
  if (pod === undefined) return skipped(uid, "not_a_creation", false, fields);
  // A pod has no name yet when a controller makes it; the prefix says whose it is.
  const generated = name ?? pod.metadata?.generateName;
  const named: LogFields = generated === undefined ? fields : { ...fields, pod: generated };
  try {
    const injection = inject(pod, cluster);
    switch (injection.kind) {
      case "skip":
        return skipped(uid, injection.reason, injection.asked, named);
      case "deny":
        return {
          response: refuse(uid, injection.code, injection.message),
          outcome: "denied",
          reason: injection.code,
          fields: { ...named, code: injection.code, detail: injection.message },
        };
      case "injected": {
        const response = admit(uid, diff(pod, injection.pod), injection.warnings);
        const { warnings } = response.response;
        return {
          response,
          outcome: "injected",
          reason: "ok",
          fields: warnings === undefined ? named : { ...named, warnings },
        };
      }
      default:
        return unreachable(injection);
    }
  } catch (err) {
    // Whatever went wrong is in the log; who creates pods learns only that it was not their fault.
    const message = "edgesync could not decide on this pod; the webhook's log says why";
    return {
      response: fail(uid, { code: 500, reason: "InternalError", message }),
      outcome: "failed",
      reason: codeOf(err),
      fields: { ...named, code: codeOf(err), err },
    };
  }
}

/** Reasons that surprise somebody who asked for injection; the others are as wanted, and a second call is nobody's business. */
const SURPRISING: readonly SkipReason[] = ["windows", "mirror_pod"];

function skipped(uid: string, reason: SkipReason, asked: boolean, fields: LogFields): Reviewed {
  const warnings =
    asked && SURPRISING.includes(reason) ? [`edgesync: not injected: ${SKIP_REASONS[reason]}`] : [];
  return { response: admit(uid, [], warnings), outcome: "skipped", reason, fields };
}
