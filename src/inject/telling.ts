/** What must be so in the pod for the application to be told of new files: a sentence for each thing that is wrong. */
import { PREFIX } from "#core/annotations.ts";
import { formatDuration } from "#core/values.ts";
import { DEFAULT_ID } from "./names.ts";
import { fieldOf } from "./pod.ts";
import type { Container, Place, PodSpec } from "./pod.ts";
import { restartMs } from "./probes.ts";
import { hasSecrets, keyOf } from "./requirements.ts";
import type { Annotations, ReadOptions, ReadPayload } from "./requirements.ts";

/** What must be so in the pod for the restart lever to do what it says. */
export function leverProblems(
  annotations: Annotations,
  payload: ReadPayload,
  spec: PodSpec,
  having: readonly { readonly container: Container }[],
): readonly string[] {
  if (payload.options.onUpdate?.kind !== "restart") return [];
  return restartProblems(keyOf(annotations, "on-update", payload), "a new release", spec, having);
}

/** As for a new release, for new secrets. */
export function rotateProblems(
  annotations: Annotations,
  options: ReadOptions,
  spec: PodSpec,
  having: readonly Place[],
): readonly string[] {
  const { onRotate } = options;
  if (!hasSecrets(annotations) || onRotate === undefined) return [];
  const key = `${PREFIX}on-rotate`;
  if (onRotate.kind === "restart") return restartProblems(key, "new secrets", spec, having);
  return onRotate.kind === "signal" ? signalled(key, options, spec, having) : [];
}

function restartProblems(
  key: string,
  reason: string,
  spec: PodSpec,
  having: readonly { readonly container: Container }[],
): readonly string[] {
  const problems: string[] = [];
  const look = (field: string, policy: string | undefined): void => {
    if (policy === "Never" || policy === "OnFailure")
      problems.push(
        `${field} is ${policy}, so a container that is stopped for ${reason} would not start again; set ${key}: none`,
      );
  };
  look("spec.restartPolicy", spec.restartPolicy);
  for (const { container } of having)
    look(`restartPolicy of container ${container.name}`, container.restartPolicy);
  return problems;
}

/**
 * What must be so in the pod for a signal to reach the application: Linux lets a process without capabilities signal those of its own user
 * only, and see only those of its own process namespace (kill(2), pid_namespaces(7)).
 */
export function signalProblems(
  annotations: Annotations,
  payload: ReadPayload,
  spec: PodSpec,
  having: readonly Place[],
): readonly string[] {
  const { options } = payload;
  if (options.onUpdate?.kind !== "signal") return [];
  return signalled(keyOf(annotations, "on-update", payload), options, spec, having);
}

function signalled(
  key: string,
  { runAs }: ReadOptions,
  spec: PodSpec,
  having: readonly Place[],
): readonly string[] {
  const uid = runAs === undefined ? DEFAULT_ID : (runAs.uid ?? spec.securityContext?.runAsUser);
  const instead = `; or use ${key}: http:<port>/<path>`;
  const problems = having.flatMap((place) => {
    const field = `${fieldOf(place)}.securityContext.runAsUser`;
    const own = place.container.securityContext?.runAsUser ?? spec.securityContext?.runAsUser;
    if (own === uid) return [];
    if (own === undefined && runAs?.uid === undefined && runAs !== undefined) return [];
    if (own === undefined)
      return [
        `${field} is not set: a signal reaches only processes of the sidecar's user, so state it, and ${PREFIX}run-as as the same${instead}`,
      ];
    if (own === 0)
      return [
        `${field} is 0: the sidecar does not run as root and cannot signal its processes${instead}`,
      ];
    return [
      `${field} is ${own} and the sidecar's user is ${uid ?? "the platform's to say"}: a signal reaches only processes of the sidecar's user, so set ${PREFIX}run-as to ${own}${instead}`,
    ];
  });
  if (spec.shareProcessNamespace !== true)
    problems.unshift(
      `spec.shareProcessNamespace is not true: the sidecar cannot see the application's processes without it${instead}`,
    );
  return problems;
}

/**
 * A trial must outlast the restart that it begins with: a shorter one would roll back every release.
 *
 * @param fresh the containers with the lever whose probes are still their own
 */
export function trialProblems(
  annotations: Annotations,
  payload: ReadPayload,
  fresh: readonly { readonly container: Container }[],
): readonly string[] {
  const { onUpdate, trialDuration, trialTimeout, restartWindow } = payload.options;
  if (onUpdate?.kind !== "restart") return [];
  if (trialDuration === undefined || trialTimeout === undefined || restartWindow === undefined)
    return [];
  // Said already.
  if (trialTimeout <= trialDuration) return [];
  const [timeout, duration] = ["trial-timeout", "trial-duration"].map((key) =>
    keyOf(annotations, key, payload),
  );
  return fresh.flatMap(({ container }) => {
    const ms = restartMs(container, restartWindow);
    return trialTimeout <= ms + trialDuration
      ? [
          `${timeout} is ${formatDuration(trialTimeout)}; it must be longer than ${formatDuration(ms + trialDuration)}: a restart of container ${container.name} takes up to ${formatDuration(ms)} (${PREFIX}restart-window, or its livenessProbe), and ${duration} comes after it`,
        ]
      : [];
  });
}
