/** Whose a pod is, in words that outlive the pod: another one of the same workload has the same. */
import { isKept } from "./volumes.ts";
import { payloadVolumes } from "./payload-volumes.ts";
import type { Pod } from "./pod.ts";
import type { PodOptions } from "#core/pod-options.ts";

/** The controller of the pod and its service account. A ReplicaSet's name ends with a hash of the template, which its Deployment's does not. */
export function workloadOf({ metadata, spec }: Pod): string {
  const owner = metadata?.ownerReferences?.find(({ controller }) => controller === true);
  const hash = metadata?.labels?.["pod-template-hash"];
  const name = owner?.name ?? metadata?.name ?? metadata?.generateName ?? "";
  const stable =
    hash !== undefined && name.endsWith(`-${hash}`) ? name.slice(0, -hash.length - 1) : name;
  return `${owner?.kind ?? "Pod"}/${stable},ServiceAccount/${spec?.serviceAccountName || "default"}`;
}

/** Whether the sidecar is told: also where no set is kept now, for one that was is found by it in a shared claim, and removed. */
export function toldOfWorkload(options: PodOptions): boolean {
  const volumes = payloadVolumes(options);
  return volumes.length > 0 && (isKept(options) || volumes.some(({ link }) => link !== undefined));
}
