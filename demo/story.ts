/** The scenes of the demo, in order. Each shows something that edgesync promises, on the real programs, and claims only what it saw. */
import { existsSync } from "node:fs";
import { readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { V1Pod } from "@kubernetes/client-node";
import { parse } from "yaml";
import { admit } from "./admission.ts";
import type { Admission } from "./admission.ts";
import type { ContainerStatus, RunningPod } from "./kubelet/kubelet.ts";
import type { PodEvent } from "./kubelet/node.ts";
import type { Programs } from "./programs.ts";
import type { DemoRelease } from "./releases.ts";
import { humanBytes } from "./screen.ts";
import type { Screen } from "./screen.ts";
import { total, viewSidecar, waitFor } from "./sidecar-view.ts";
import type { Samples, SidecarView } from "./sidecar-view.ts";
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

/** Publishes a release without letting a channel point to it. */
export async function addRelease(
  { programs, folders }: Pick<Stage, "programs" | "folders">,
  release: DemoRelease,
): Promise<void> {
  const platform = `${process.platform}-${process.arch}`;
  const where = ["--repository", folders.repository, "--keys", folders.keys];
  const what = ["--app", APP, "--version", release.version, "--platform", platform];
  await programs.run(["release", "add", release.folder, ...what, ...where]);
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

/** The example pod, with a port of this machine in place of the pod's own. */
export async function readExample(appPort: number): Promise<V1Pod> {
  const file = new URL("../manifests/examples/demo-pod.yaml", import.meta.url);
  const pod = parse((await readFile(file, "utf8")).replaceAll("8080", String(appPort))) as V1Pod;
  // The API server has given it a UID by the time a kubelet sees it.
  Object.assign(pod.metadata ?? {}, { uid: "11111111-2222-4333-8444-555555555555" });
  return pod;
}

export async function showAdmission(
  stage: Stage,
  webhook: string,
  figures: Figures,
): Promise<Admission> {
  const { screen, tls } = stage;
  const pod = await readExample(stage.appPort);
  const typo = structuredClone(pod);
  Object.assign(typo.metadata?.annotations ?? {}, { "edgesync.dev/pol-interval": "5 minutes" });
  const denied = await admit(typo, webhook, tls.ca);
  screen.claim(!denied.allowed, `a misspelled annotation is denied: ${denied.message}`);
  const admission = await admit(pod, webhook, tls.ca);
  figures.admissionMs = round(admission.durationMs);
  screen.claim(
    admission.allowed && admission.operations > 0,
    `manifests/examples/demo-pod.yaml is admitted in ${figures.admissionMs} ms with a patch of ${admission.operations} operations`,
  );
  for (const warning of admission.warnings) screen.note(`warning: ${warning}`);
  describePatch(screen, pod, admission.pod);
  const again = await admit(admission.pod, webhook, tls.ca);
  screen.claim(
    again.allowed && again.operations === 0,
    "the patched pod, reviewed again, is left as it is",
  );
  return admission;
}

function describePatch(screen: Screen, before: V1Pod, after: V1Pod): void {
  const names = (list: readonly { name: string }[] | undefined): string[] =>
    (list ?? []).map(({ name }) => name);
  const known = new Set(names(before.spec?.volumes));
  const sidecar = after.spec?.initContainers?.find(
    ({ restartPolicy }) => restartPolicy === "Always",
  );
  const added = names(after.spec?.volumes).filter((name) => !known.has(name));
  const main = after.spec?.containers[0];
  screen.note(
    `+ native sidecar ${sidecar?.name} (init container, restartPolicy Always), ${sidecar?.env?.length} variables`,
  );
  screen.note(`+ volumes ${added.join(", ")}`);
  screen.note(
    `+ ${main?.name} mounts, read-only: ${main?.volumeMounts?.map(({ mountPath }) => mountPath).join(", ")}`,
  );
  screen.note(
    `~ liveness of ${main?.name} goes through the sidecar: ${main?.livenessProbe?.httpGet?.path}`,
  );
}

/** The gate: nothing runs before payload and credentials are in order, and each of them alone is not enough. */
export async function showGate(
  stage: Stage,
  pod: RunningPod,
  release: DemoRelease,
  figures: Figures,
): Promise<SidecarView> {
  const { screen, secrets, addresses } = stage;
  const view = viewSidecar(addresses.sidecarPort);
  const closed = async (reason: string, step: string): Promise<void> => {
    const answer = waitFor(`the gate says ${reason}`, 15_000, async () => {
      const { status, body } = await view.get("/startup");
      return status === 503 && body.includes(reason) ? body : undefined;
    });
    const body = await screen.step(step, answer);
    screen.claim(
      mainOf(pod)?.pid === undefined,
      `the main container waits: /startup says ${body.trim()}`,
    );
  };
  await closed("payload_missing", "the sidecar starts; no release in the channel, Vault sealed");
  await setChannel(stage, release.version);
  await closed(
    "secrets_missing",
    "the release is fetched, verified and unpacked; Vault still sealed",
  );
  secrets.vault.control.seal(false);
  await screen.step(
    "Vault is unsealed; the main container starts",
    withTimeout(pod.running, 30_000, "the pod runs"),
  );
  figures.gateHeldMs = round(
    momentOf(stage, "Started", "web") - momentOf(stage, "Started", "edgesync"),
  );
  await waitFor("the pod is ready", 15_000, () => Promise.resolve(pod.ready() || undefined));
  screen.claim(
    true,
    `the gate held ${(figures.gateHeldMs / 1000).toFixed(1)} s; then the pod started and became ready`,
  );
  screen.claim(
    (await running(stage, pod)) === release.version,
    `release ${release.version} answers`,
  );
  return view;
}

function momentOf(stage: Stage, reason: PodEvent["reason"], container: string): number {
  return (
    stage.events.find((event) => event.reason === reason && event.container === container)?.at ??
    Number.NaN
  );
}

function mainOf(pod: RunningPod): ContainerStatus | undefined {
  return pod.containers().find(({ name }) => name === "web");
}

/** The version that answers, when the binary that runs is also from that version's bank: a swap alone changes only the pages. */
async function running({ appPort }: Stage, pod: RunningPod): Promise<string | undefined> {
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

/** Rotation: a changed secret and an account that cannot be renewed any longer are replaced while the program runs on. */
export async function showRotation(
  stage: Stage,
  pod: RunningPod,
  view: SidecarView,
): Promise<void> {
  const { screen, secrets } = stage;
  const folder = join(pod.volumes.get("edgesync-secrets") ?? "", "set");
  const before = mainOf(pod)?.pid;
  const account = async (): Promise<{ username: string; password: string }> =>
    JSON.parse(await readFile(join(folder, "broker"), "utf8")) as {
      username: string;
      password: string;
    };
  const first = await account();
  screen.claim(
    secrets.broker.accepts(first.username, first.password),
    `Vault issued an account, and it works: ${first.username}`,
  );
  await secrets.configure("secret/data/web", { data: { greeting: "good morning" } });
  await screen.step(
    "a value is changed in Vault",
    waitFor(
      "the changed value",
      15_000,
      async () =>
        (await readFile(join(folder, "config"), "utf8")).includes("good morning") || undefined,
    ),
  );
  const second = await screen.step(
    "the account comes to the end of its lease (8 s)",
    waitFor("a new account", 30_000, async () => {
      const now = await account();
      return now.username === first.username ? undefined : now;
    }),
  );
  const works = secrets.broker.accepts(second.username, second.password);
  screen.claim(
    works,
    `the account was replaced before that, user and password together: ${second.username}`,
  );
  const samples = await view.until(
    "the rotations are counted",
    5_000,
    (now) => rotations(now) >= 2,
  );
  const same = mainOf(pod)?.pid === before;
  screen.claim(
    same,
    `${rotations(samples)} rotations, and the program runs on as process ${before}`,
  );
}

function rotations(samples: Samples): number {
  return total(samples, "edgesync_sidecar_rotations_total");
}

function runs(samples: Samples, version: string): boolean {
  return [...samples].some(
    ([key, value]) =>
      key.startsWith("edgesync_sidecar_release_info{") &&
      key.includes(`version="${version}"`) &&
      value === 1,
  );
}

/** The update: a delta is fetched, tried and committed once the program has stayed healthy. */
export async function showUpdate(
  stage: Stage,
  pod: RunningPod,
  view: SidecarView,
  release: DemoRelease,
  figures: Figures,
): Promise<void> {
  const { screen } = stage;
  const before = await view.scrape();
  await setChannel(stage, release.version);
  await screen.step(
    "the difference is fetched, a new bank built and verified, the program restarted",
    waitFor(
      `release ${release.version} answers`,
      30_000,
      async () => (await running(stage, pod)) === release.version || undefined,
    ),
  );
  const after = await screen.step(
    "on trial: the program must stay healthy for 3 s",
    view.until(
      "the commit",
      30_000,
      (now) =>
        total(now, "edgesync_sidecar_commits_total") >
        total(before, "edgesync_sidecar_commits_total"),
    ),
  );
  const grown = (name: string): number => total(after, name) - total(before, name);
  const payload = (samples: Samples): number =>
    total(samples, 'edgesync_sidecar_download_bytes_total{kind="delta"}') +
    total(samples, 'edgesync_sidecar_download_bytes_total{kind="full"}');
  figures.deltaBytes = payload(after) - payload(before);
  figures.fullBytes = figures.deltaBytes + grown("edgesync_sidecar_saved_bytes_total");
  const share = ((100 * figures.deltaBytes) / figures.fullBytes).toFixed(1);
  screen.claim(
    figures.deltaBytes > 0 && figures.deltaBytes < figures.fullBytes / 2,
    `release ${release.version} is committed: ${humanBytes(figures.deltaBytes)} fetched in place of ${humanBytes(figures.fullBytes)} compressed (${share} %)`,
  );
  screen.claim(
    mainOf(pod)?.restarts === 1,
    "one restart, through the program's own liveness probe",
  );
}

/** The broken release: its health page is gone, so the trial ends by itself with the release before it. */
export async function showRollback(
  stage: Stage,
  pod: RunningPod,
  view: SidecarView,
  broken: DemoRelease,
  good: DemoRelease,
  figures: Figures,
): Promise<void> {
  const { screen } = stage;
  await setChannel(stage, broken.version);
  await screen.step(
    "the broken release is tried",
    waitFor(
      "the broken release answers",
      30_000,
      async () => (await running(stage, pod)) === broken.version || undefined,
    ),
  );
  const after = await screen.step(
    "its health check fails",
    view.until(
      "the rollback",
      30_000,
      (now) => total(now, "edgesync_sidecar_rollbacks_total") >= 1 && runs(now, good.version),
    ),
  );
  await screen.step(
    `release ${good.version} comes back`,
    waitFor(
      `release ${good.version} answers again, ready`,
      40_000,
      async () => ((await running(stage, pod)) === good.version && pod.ready()) || undefined,
    ),
  );
  const reason = [...after.keys()].find((key) =>
    key.startsWith("edgesync_sidecar_rollbacks_total{"),
  );
  figures.rolledBackTo = (await running(stage, pod)) ?? "";
  screen.claim(
    figures.rolledBackTo === good.version,
    `rolled back by itself to ${figures.rolledBackTo} (${reason})`,
  );
  await sleep(2_500);
  const later = await view.scrape();
  screen.claim(
    runs(later, good.version) && total(later, "edgesync_sidecar_rollbacks_total") === 1,
    "two polls later: the broken release is not tried again",
  );
}

export async function showMetrics(
  stage: Stage,
  pod: RunningPod,
  view: SidecarView,
  figures: Figures,
): Promise<void> {
  const { screen } = stage;
  const samples = await view.scrape();
  figures.rotations = rotations(samples);
  figures.restarts = mainOf(pod)?.restarts ?? 0;
  const pid = pod.containers().find(({ name }) => name === "edgesync")?.pid;
  const memory = await readFile(`/proc/${pid}/status`, "utf8");
  figures.sidecarRssMiB = round(Number(/^VmRSS:\s+(\d+) kB/m.exec(memory)?.[1]) / 1024);
  for (const name of [
    "polls_total",
    "download_bytes_total",
    "commits_total",
    "rollbacks_total",
    "rotations_total",
    "ready",
  ])
    for (const [key, value] of samples)
      if (key.startsWith(`edgesync_sidecar_${name}`)) screen.note(`${key} ${value}`);
  screen.claim(
    samples.size > 20,
    `${samples.size} samples scraped; the sidecar takes ${figures.sidecarRssMiB} MiB (VmRSS)`,
  );
}

/** The end of the pod: the program first, then the sidecar, which gives its credentials back. */
export async function showEnd(stage: Stage, pod: RunningPod): Promise<void> {
  const { screen, secrets, events } = stage;
  const from = events.length;
  await screen.step("the pod is deleted", pod.delete());
  const order = events
    .slice(from)
    .filter(({ reason }) => reason === "Killing")
    .map(({ container }) => container);
  screen.claim(
    order.join(" ") === "web edgesync",
    "SIGTERM went to the program first and to the sidecar after it",
  );
  await waitFor("the account is gone", 5_000, () =>
    Promise.resolve(secrets.broker.users.size === 0 || undefined),
  );
  screen.claim(
    !existsSync("/proc/" + String(pod.containers()[0]?.pid)),
    "the sidecar revoked its credentials and ended",
  );
}

async function withTimeout<T>(work: Promise<T>, ms: number, what: string): Promise<T> {
  const late = new AbortController();
  try {
    return await Promise.race([
      work,
      sleep(ms, undefined, { signal: late.signal }).then(() => {
        throw new Error(`not within ${ms / 1000} s: ${what}`);
      }),
    ]);
  } finally {
    late.abort();
  }
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
