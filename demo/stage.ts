/** What the scenes of the demo share: what stands around them, the figures that they fill in, and how they look at the pod. */
import { readFile, readlink } from "node:fs/promises";
import type { V1Pod } from "@kubernetes/client-node";
import { parse } from "yaml";
import type { ContainerStatus, RunningPod } from "./kubelet/kubelet.ts";
import type { PodEvent } from "./kubelet/node.ts";
import type { Programs } from "./programs.ts";
import type { DemoRelease } from "./releases.ts";
import type { Screen } from "./screen.ts";
import { total } from "./sidecar-view.ts";
import type { Samples } from "./sidecar-view.ts";
import type { Addresses, SecretsSide, Tls } from "./site.ts";

const APP = "web";
const CHANNEL = "web/stable";

/** The figures of the last line; each is measured in this run. */
export interface Figures {
  fullBytes: number;
  deltaBytes: number;
  gateHeldMs: number;
  rotations: number;
  rolledBackTo: string;
  admissionMs: number;
  restarts: number;
  sidecarRssMiB: number;
}

export interface Stage {
  readonly screen: Screen;
  readonly programs: Programs;
  readonly folders: { readonly repository: string; readonly keys: string };
  readonly tls: Tls;
  readonly secrets: SecretsSide;
  readonly addresses: Addresses;
  readonly appPort: number;
  readonly events: readonly (PodEvent & { readonly at: number })[];
}

/** What `release add --json` says. */
export interface Published {
  /** Bytes of a first installation: every file whole, compressed. */
  readonly fullBytes: number;
  /** Bytes of an update from each of the releases before. */
  readonly updates: readonly { readonly from: string; readonly bytes: number }[];
}

/** Publishes a release without letting a channel point to it. */
export async function addRelease(
  { programs, folders }: Pick<Stage, "programs" | "folders">,
  release: DemoRelease,
): Promise<Published> {
  const platform = `${process.platform}-${process.arch}`;
  const where = ["--repository", folders.repository, "--keys", folders.keys];
  const what = ["--app", APP, "--version", release.version, "--platform", platform];
  const said = await programs.run(["release", "add", release.folder, ...what, ...where, "--json"]);
  return JSON.parse(said) as Published;
}

export async function setChannel(
  { screen, programs, folders }: Stage,
  version: string,
): Promise<void> {
  const where = ["--repository", folders.repository, "--keys", folders.keys];
  await screen.step(
    `edgesync channel set ${CHANNEL} ${version}`,
    programs.run(["channel", "set", CHANNEL, version, ...where]),
  );
}

/**
 * The example pod as it stands on this machine, whose kubelet gives pods no network of their own: with ports of the machine in place
 * of the pod's, and in the network of the node.
 */
export async function readExample({ appPort, addresses }: Stage): Promise<V1Pod> {
  const file = new URL("../manifests/examples/demo-pod.yaml", import.meta.url);
  const pod = parse((await readFile(file, "utf8")).replaceAll("8080", String(appPort))) as V1Pod;
  // The API server has given it a UID by the time a kubelet sees it.
  Object.assign(pod.metadata ?? {}, { uid: "11111111-2222-4333-8444-555555555555" });
  Object.assign(pod.spec ?? {}, { hostNetwork: true });
  Object.assign(pod.metadata?.annotations ?? {}, {
    "edgesync.dev/sidecar-port": String(addresses.sidecarPort),
    "edgesync.dev/control-port": String(addresses.controlPort),
  });
  return pod;
}

export function mainOf(pod: RunningPod): ContainerStatus | undefined {
  return pod.containers().find(({ name }) => name === "web");
}

/** The version that answers, when the binary that runs is also from that version's bank: a swap alone changes only the pages. */
export async function running({ appPort }: Stage, pod: RunningPod): Promise<string | undefined> {
  try {
    const response = await fetch(`http://127.0.0.1:${appPort}/version.txt`, {
      signal: AbortSignal.timeout(2_000),
    });
    const version = (await response.text()).trim();
    const binary = await readlink(`/proc/${mainOf(pod)?.pid}/exe`);
    return response.ok && binary.includes(`/banks/${version}-`) ? version : undefined;
  } catch {
    // Between two processes nobody listens.
    return undefined;
  }
}

export function rotations(samples: Samples): number {
  return total(samples, "edgesync_sidecar_rotations_total");
}

/** To one digit after the point. */
export function round(value: number): number {
  return Math.round(value * 10) / 10;
}
