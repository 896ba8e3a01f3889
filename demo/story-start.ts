/** The first scenes: the pod is admitted, held back by the gate, started; its credentials rotate; and at the end it goes. */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { V1Pod } from "@kubernetes/client-node";
import { admit } from "./admission.ts";
import type { Admission } from "./admission.ts";
import type { RunningPod } from "./kubelet/kubelet.ts";
import type { PodEvent } from "./kubelet/node.ts";
import type { DemoRelease } from "./releases.ts";
import type { Screen } from "./screen.ts";
import { viewSidecar, waitFor } from "./sidecar-view.ts";
import type { SidecarView } from "./sidecar-view.ts";
import { mainOf, readExample, rotations, round, running, setChannel } from "./stage.ts";
import type { Figures, Stage } from "./stage.ts";

export async function showAdmission(
  stage: Stage,
  webhook: string,
  figures: Figures,
): Promise<Admission> {
  const { screen, tls } = stage;
  const pod = await readExample(stage);
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
    figures.gateHeldMs > 0,
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

/** The end of the pod: the program first, then the sidecar, which gives its credentials back. */
export async function showEnd(stage: Stage, pod: RunningPod): Promise<void> {
  const { screen, secrets, events } = stage;
  const from = events.length;
  const sidecar = pod.containers().find(({ name }) => name === "edgesync")?.pid;
  const accounts = secrets.broker.users.size;
  await screen.step("the pod is deleted", pod.delete());
  // Counted at once: a little later their leases would have ended anyway.
  const left = secrets.broker.users.size;
  const order = events
    .slice(from)
    .filter(({ reason }) => reason === "Killing")
    .map(({ container }) => container);
  screen.claim(
    order.join(" ") === "web edgesync",
    "SIGTERM went to the program first and to the sidecar after it",
  );
  screen.claim(
    accounts > 0 && left === 0,
    `the sidecar revoked what it held: of ${accounts} accounts ${left} are left`,
  );
  screen.claim(
    sidecar !== undefined && !existsSync(`/proc/${sidecar}`),
    `the sidecar, process ${sidecar}, has ended`,
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
