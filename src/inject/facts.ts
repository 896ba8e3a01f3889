/** What is known of a cluster and a namespace at the moment of a decision: it changes while the webhook runs, unlike its settings. */
import type { Defaults } from "./defaults.ts";

export interface Facts {
  /** Whether the kubelets that may run the pod know native sidecars. */
  readonly nativeSidecars: boolean;
  /** The namespace's, then the cluster's. */
  readonly defaults: readonly Defaults[];
  /** Milliseconds since the epoch, for what is said of times; undefined where nothing is to be said. */
  readonly now: number | undefined;
}

/** A cluster of today without defaults. */
export const PLAIN_FACTS: Facts = { nativeSidecars: true, defaults: [], now: undefined };

/** The first minor version of Kubernetes 1 whose kubelets run native sidecars (KEP-753, beta). */
const FIRST_MINOR = 29;

/**
 * Patch versions in which the kubelet, once restarted, never starts the containers of a pod again that has a native sidecar with a
 * startup probe (kubernetes/kubernetes#136910, mended in 1.35 by #137885): by minor version, the first that is sound.
 */
const FIRST_SOUND_PATCH: Readonly<Record<number, number>> = { 35: 4 };

/** Whether the kubelet of a version such as `v1.34.2+k3s1` can be trusted with a native sidecar. One that cannot be read is not. */
export function runsNativeSidecars(kubeletVersion: string): boolean {
  const match = /^v?(\d{1,3})\.(\d{1,4})\.(\d{1,4})(-[0-9A-Za-z.-]+)?/.exec(kubeletVersion);
  if (match === null) return false;
  const [major, minor, patch] = [Number(match[1]), Number(match[2]), Number(match[3])];
  // Distributions write theirs behind a hyphen too (v1.30.4-gke.1); only alpha, beta and rc come before the release.
  const early = /^-(alpha|beta|rc)\b/.test(match[4] ?? "");
  const sound = FIRST_SOUND_PATCH[minor] ?? 0;
  if (major !== 1) return major > 1;
  return minor >= FIRST_MINOR && (patch > sound || (patch === sound && !(early && sound > 0)));
}
