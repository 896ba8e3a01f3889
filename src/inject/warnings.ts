/** What is said of a pod that is injected all the same. */
import { ANNOTATIONS, PREFIX } from "#core/annotations.ts";
import type { Section } from "#core/annotations.ts";
import { keyFor } from "#core/payloads.ts";
import { hold } from "#core/permission.ts";
import { needsVault, payloadsOf } from "#core/pod-options.ts";
import type { Payload, PodOptions } from "#core/pod-options.ts";
import type { Mode } from "./mode.ts";
import { given } from "./pod.ts";
import type { Container, PodSpec } from "./pod.ts";
import { has, keyOf } from "./requirements.ts";
import type { Annotations } from "./requirements.ts";
import { limitsStorage } from "./resources.ts";
import { runsOn } from "./targets.ts";
import type { Targets } from "./targets.ts";

/**
 * Things that work, and that somebody may want to know.
 *
 * @param annotations as the pod states them: whoever states defaults for many does not mean each of them
 */
export function warnings(
  annotations: Annotations,
  options: PodOptions,
  spec: PodSpec,
  targets: Targets,
  { mode, now }: { readonly mode: Mode; readonly now: number | undefined },
): readonly string[] {
  const payloads = payloadsOf(options);
  const found = payloads.flatMap((payload) => [
    ...payloadWarnings(annotations, payload, spec, targets.payloads.get(payload.name) ?? []),
    ...timeWarnings(annotations, payload, now),
  ]);
  if (mode === "once")
    found.push(
      "the sidecar ends before the main container starts, because the containers of this pod end by themselves and not every kubelet knows native sidecars: there are no updates, and credentials are not renewed",
    );
  if (spec.hostNetwork === true)
    found.push(
      `spec.hostNetwork is true: ${PREFIX}sidecar-port can be asked from the node's network, and what uses the node's loopback interface can hold updates`,
    );
  if (payloads.length === 0) found.push(...idle(annotations, "Updates", "channel"));
  if (options.secrets.length > 0 && options.offlineSecrets !== "never")
    found.push(
      `${PREFIX}offline-secrets keeps the secrets sealed on the payload volume, with a key from a Kubernetes Secret: that protects a volume that is taken alone, and not a node that is stolen with its keys`,
    );
  if (
    options.secrets.length > 0 &&
    options.offlineSecrets === "never" &&
    has(annotations, "offline-key")
  )
    found.push(`${PREFIX}offline-key has no effect without ${PREFIX}offline-secrets`);
  if (options.secrets.length > 0 && options.onRotate.kind === "signal")
    found.push(costOfSignals(`${PREFIX}on-rotate`));
  if (options.secrets.length === 0) found.push(...idle(annotations, "Secrets", "secret.<name>"));
  else if (!needsVault(options))
    for (const key of Object.keys(ANNOTATIONS))
      if (key.startsWith("vault-") && has(annotations, key))
        found.push(`${PREFIX}${key} has no effect: no secret of the pod is asked of Vault`);
  return found;
}

function costOfSignals(key: string): string {
  return `${key} is signal: with a common process namespace and user, the sidecar can see and signal every process of the pod, and the application can reach the sidecar's memory, files and token; http:<port>/<path> needs none of that`;
}

/** Annotations of a section that the pod does not use. */
function idle(annotations: Annotations, section: Section, needed: string): readonly string[] {
  return Object.entries(ANNOTATIONS)
    .filter(([key, row]) => row.section === section && has(annotations, key))
    .map(([key]) => `${PREFIX}${key} has no effect without ${PREFIX}${needed}`);
}

function payloadWarnings(
  annotations: Annotations,
  payload: Payload,
  spec: PodSpec,
  having: Targets["payload"],
): readonly string[] {
  const { payloadStorage, payloadSize, payloadSeed, health, onUpdate, swapSpread } =
    payload.options;
  const found: string[] = [];
  const own = (key: string): string => PREFIX + keyFor(key, payload.name);
  if (payloadStorage.kind === "ephemeral") {
    if (payloadSeed === undefined)
      found.push(
        `${own("payload-storage")} is ephemeral: each new pod downloads the whole payload; claim/<name> keeps it, and payload-seed brings it along`,
      );
    if (payloadSize === undefined && limitsStorage(spec.containers ?? []))
      found.push(
        `${own("payload-size")} is not set, and the pod's ephemeral-storage limits count the payload: a release that they have no room for is not fetched`,
      );
  } else if (swapSpread > 0)
    found.push(
      `${keyOf(annotations, "swap-spread", payload)} has no effect: pods that share claim ${payloadStorage.claim} take turns by themselves`,
    );
  if (onUpdate.kind === "signal")
    found.push(costOfSignals(keyOf(annotations, "on-update", payload)));
  if (health.kind === "probe" && !having.filter(runsOn).some(hasProbe))
    found.push(
      `${keyOf(annotations, "health", payload)} is probe, but no container with the payload has an http, tcp or grpc probe: a trial can only watch starts`,
    );
  return found;
}

/** A hold that has ended already is a mistake in the year, or a left-over. */
function timeWarnings(
  annotations: Annotations,
  payload: Payload,
  now: number | undefined,
): readonly string[] {
  const { hold: until } = payload.options;
  return typeof until === "number" && now !== undefined && until <= now
    ? [
        `${keyOf(annotations, "hold", payload)} is ${hold.format(until)}, which is past: nothing is held`,
      ]
    : [];
}

function hasProbe({ container }: { readonly container: Container }): boolean {
  return [container.startupProbe, container.livenessProbe, container.readinessProbe].some(
    (probe) => given(probe?.httpGet) || given(probe?.tcpSocket) || given(probe?.grpc),
  );
}
