/** One review, from its JSON to its answer. Pure: what was decided is given back, and the server counts and logs it. */
import { admit, admitted, again, fail, readReview, refuse } from "#core/admission-review.ts";
import type { ReviewResponse } from "#core/admission-review.ts";
import { codeOf, unreachable } from "#core/errors.ts";
import type { Memory } from "#core/inject/alike.ts";
import type { ClusterOptions } from "#core/inject/cluster.ts";
import { inject } from "#core/inject/inject.ts";
import type { Mode } from "#core/inject/mode.ts";
import { diff } from "#core/json-patch.ts";
import { patchText } from "#core/json-text.ts";
import { PLAIN_FACTS } from "#core/inject/facts.ts";
import type { Facts } from "#core/inject/facts.ts";
import type { Pod } from "#core/inject/pod.ts";
import { SKIP_REASONS, SURPRISING_SKIPS } from "#core/reasons.ts";
import type { SkipReason } from "#core/reasons.ts";
import type { LogFields } from "#core/telemetry.ts";
import type { OwnerEvent } from "./events.ts";

export interface Reviewed {
  readonly response: ReviewResponse;
  readonly outcome: "injected" | "skipped" | "denied" | "failed";
  /** `ok`, a skip reason, or an error code. */
  readonly reason: string;
  readonly fields: LogFields;
  /** For the pod's owner, to be sent when the answer has been; never of a dry run. */
  readonly event?: OwnerEvent;
}

/** What is known of the cluster for a pod of a namespace, and of a node where the pod states one. */
export type FactsOf = (namespace: string | undefined, nodeName: string | undefined) => Facts;

/** An injection that is the same for all pods that are alike. */
export interface Injected {
  readonly response: ReviewResponse;
  readonly mode: Mode;
}

export interface Remembering {
  /** Of decisions with the same operator's options. */
  readonly memory: Memory<Injected>;
  /** Of the review's JSON. */
  readonly bytes: number;
}

/** @throws EdgeSyncError REVIEW_INVALID when the body is no review of a pod */
export function answerReview(
  body: unknown,
  cluster: ClusterOptions,
  factsOf: FactsOf = () => PLAIN_FACTS,
  remembering?: Remembering,
): Reviewed {
  const { uid, name, namespace, dryRun, pod } = readReview(body);
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
    const facts = factsOf(namespace, pod.spec?.nodeName);
    const tell = (told: Told): { readonly event?: OwnerEvent } =>
      dryRun ? {} : eventOf(namespace, pod, told);
    const known = remembering?.memory.recall(pod, facts);
    if (known !== undefined)
      return injected({ ...known, response: again(uid, known.response) }, named, tell);
    const injection = inject(pod, cluster, facts);
    switch (injection.kind) {
      case "skip":
        return {
          ...skipped(uid, injection.reason, injection.asked, named),
          ...(injection.asked && SURPRISING_SKIPS.includes(injection.reason)
            ? tell(["InjectionSkipped", injection.reason, SKIP_REASONS[injection.reason]])
            : {}),
        };
      case "deny":
        return {
          response: refuse(uid, injection.code, injection.message),
          outcome: "denied",
          reason: injection.code,
          fields: { ...named, code: injection.code, detail: injection.message },
          ...tell(["InjectionDenied", injection.code, injection.message]),
        };
      case "injected": {
        const text = patchText(diff(pod, injection.pod));
        const response = admitted(uid, text, injection.warnings);
        const result = { response, mode: injection.mode };
        if (remembering !== undefined && injection.lasting)
          remembering.memory.keep(pod, facts, result, remembering.bytes, text);
        return injected(result, named, tell);
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

function injected(
  { response, mode }: Injected,
  named: LogFields,
  tell: (told: Told) => { readonly event?: OwnerEvent },
): Reviewed {
  const { warnings } = response.response;
  return {
    response,
    outcome: "injected",
    reason: "ok",
    fields: warnings === undefined ? named : { ...named, warnings },
    ...(warnings === undefined ? {} : tell(["InjectionWarned", mode, warnings.join("; ")])),
  };
}

type Told = readonly [reason: OwnerEvent["reason"], word: string, text: string];

/** Nothing for a pod that nobody owns: who has made it gets the answer. */
function eventOf(
  namespace: string | undefined,
  pod: Pod,
  [reason, word, text]: Told,
): { readonly event?: OwnerEvent } {
  const owner = pod.metadata?.ownerReferences?.find(({ controller }) => controller === true);
  if (owner === undefined || namespace === undefined) return {};
  return { event: { namespace, owner, type: "Warning", reason, message: `${word}: ${text}` } };
}

function skipped(uid: string, reason: SkipReason, asked: boolean, fields: LogFields): Reviewed {
  const warnings =
    asked && SURPRISING_SKIPS.includes(reason)
      ? [`edgesync: not injected: ${SKIP_REASONS[reason]}`]
      : [];
  return { response: admit(uid, [], warnings), outcome: "skipped", reason, fields };
}
