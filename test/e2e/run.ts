/**
 * `npm run test:e2e`: edgesync in a real cluster, as its users install and use it. One line for each claim, the last line counts them; progress goes
 * to standard error. docs/e2e.md has the variables.
 */
import { randomBytes } from "node:crypto";
import process from "node:process";
import { openApi } from "./api.ts";
import type { Api } from "./api.ts";
import { installed, openInstallation, reachableApiServer, untilReady } from "./install.ts";
import type { Overlay } from "./install.ts";
import { messageOf, openLedger } from "./ledger.ts";
import { readSettings } from "./settings.ts";
import type { Settings } from "./settings.ts";
import { openSite, podPrograms } from "./site.ts";
import type { Site } from "./site.ts";
import { claim, create, refusal, untilGone } from "./stage.ts";
import type { Stage, World } from "./stage.ts";
import { applicationPod, isInjected } from "./pods.ts";
import { showAdmission } from "./stories/admission.ts";
import { showCredentials } from "./stories/credentials.ts";
import { showJob } from "./stories/job.ts";
import { showPulls } from "./stories/lever.ts";
import { showGate, showUpdate, webPod } from "./stories/update.ts";
import { showCertificate, showOutage, showUninstall } from "./stories/webhook.ts";
import { setUpVault } from "./vault.ts";
import { openWaits } from "./wait.ts";
import type { Waits } from "./wait.ts";

type Namespaces = Stage["namespaces"];

const RESTRICTED = { "pod-security.kubernetes.io/enforce": "restricted" };

async function makeNamespaces(
  { api, run }: World,
  namespaces: Namespaces,
  programs: Readonly<Record<string, string>>,
): Promise<void> {
  const labels = { ...RESTRICTED, "edgesync-e2e": run };
  const make = async (name: string, more: Readonly<Record<string, string>>): Promise<void> => {
    const metadata = { name, labels: { ...labels, ...more } };
    await api.apply({ apiVersion: "v1", kind: "Namespace", metadata });
    const files = { namespace: name, name: "e2e-files" };
    await api.apply({ apiVersion: "v1", kind: "ConfigMap", metadata: files, data: programs });
  };
  await make(namespaces.enabled, { "edgesync.dev/injection": "enabled" });
  await make(namespaces.other, {});
  await make(namespaces.site, {});
}

/** What the pods of a namespace need to know of the site. */
async function giveTrust({ api }: World, site: Site, namespace: string): Promise<void> {
  const map = (name: string, data: object): Parameters<typeof api.apply>[0] => {
    return { apiVersion: "v1", kind: "ConfigMap", metadata: { namespace, name }, data };
  };
  await api.apply(map("e2e-ca", { "ca.crt": site.ca }));
  await api.apply(map("edgesync-trust-root", { "root.json": site.root }));
}

/** Given waits that go on after the run has been stopped. */
type Cleanup = (waits: Waits) => Promise<void>;

/** Everything from an empty cluster to an empty cluster. */
async function play(world: World, clean: (what: string, how: Cleanup) => void): Promise<void> {
  const { api, waits, settings, run, note } = world;
  const namespaces = { enabled: `${run}-shop`, other: `${run}-plain`, site: `${run}-site` };
  for (const name of Object.values(namespaces))
    clean(`namespace ${name}`, async (after) => {
      await api.remove(`/api/v1/namespaces/${name}`);
      await untilGone({ ...world, waits: after }, `/api/v1/namespaces/${name}`, 180);
    });
  note("making namespaces, and the pod of repository and Vault");
  await makeNamespaces(world, namespaces, await podPrograms());
  const site = await openSite({ api, waits, settings, run, namespace: namespaces.site, note });
  clean("the way to Vault", () => Promise.resolve(site.close()));
  for (const name of [namespaces.enabled, namespaces.other]) await giveTrust(world, site, name);
  const vault = await setUpVault(api, site, settings, run);
  clean("mounts and policy in Vault", () => vault.clean());

  const overlay: Overlay = {
    image: settings.image,
    settings: { EDGESYNC_REPOSITORY: site.repository, EDGESYNC_VAULT_ADDRESS: site.vault },
    apiServer: await reachableApiServer(api, site),
  };
  if (overlay.apiServer !== undefined)
    note(`pods do not reach the API server's Service; the webhook is given its endpoint`);
  const installation = await openInstallation(api, overlay);
  clean("edgesync", async (after) => {
    await installation.delete();
    for (const object of installation.objects)
      await untilGone({ ...world, waits: after }, await api.pathOf(object), 180);
  });
  const isInstalled = await claim(world, "install", [], async () => {
    const how = await installation.apply();
    await untilReady(api, waits, 240);
    const pod = applicationPod({
      name: "first",
      namespace: namespaces.enabled,
      image: settings.workloadImage,
      run,
      site: site.ears,
      annotations: { channel: "web/stable" },
    });
    await waits.until("the API server reaches the webhook", 60, async (seen) => {
      const why = await refusal(api, pod);
      seen(why ?? "");
      return (why === undefined && isInjected(await create(api, pod, true))) || undefined;
    });
    const where = overlay.apiServer === undefined ? "" : ", at the API server's endpoint";
    return `${installation.objects.length} objects by ${how}${where}`;
  });
  if (!isInstalled) return;

  const stage: Stage = { ...world, site, vault, installation, namespaces };
  await showAdmission(stage);
  if (await showGate(stage))
    await Promise.all([
      showUpdate(stage),
      showPulls(stage),
      showCredentials(stage),
      showJob(stage),
      showCertificate(stage),
    ]);
  await showOutage(stage);
  await showUninstall(stage, webPod(stage));
}

/** @throws Error when the cluster is not to be had, or not for this */
async function reachCluster(signal: AbortSignal): Promise<Api> {
  const api = openApi(signal);
  const there = await installed(api).catch((cause: unknown) => {
    throw new Error(`the API server at ${api.server} does not answer as it should`, { cause });
  });
  if (there !== undefined)
    throw new Error(`edgesync is in this cluster already (${there}); take a cluster without it`);
  return api;
}

async function main(settings: Settings): Promise<number> {
  const stop = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const)
    process.on(name, () => {
      if (stop.signal.aborted) process.exit(1);
      stop.abort(new Error(`${name} has stopped it`));
    });
  const begin = performance.now();
  const note = (text: string): void => {
    const at = ((performance.now() - begin) / 1_000).toFixed(0).padStart(4);
    process.stderr.write(`${at} s  ${text}\n`);
  };
  // Whatever goes wrong unheard, nothing must be left in the cluster.
  process.on("unhandledRejection", (error) => {
    note(messageOf(error));
    stop.abort(error);
  });
  // Of requests: what is taken away is taken away after the end too.
  const api = await reachCluster(new AbortController().signal);
  const waits = openWaits(settings.timeFactor, stop.signal);
  const ledger = openLedger({ print, monotonic: () => performance.now() });
  const run = `e2e-${randomBytes(3).toString("hex")}`;
  const world: World = { api, waits, settings, ledger, run, note };
  const cleanups: { readonly what: string; readonly how: Cleanup }[] = [];
  let why = "what comes before it failed";
  try {
    note(`run ${run}`);
    await play(world, (what, how) => cleanups.push({ what, how }));
  } catch (error) {
    why = messageOf(error);
    note(error instanceof Error ? (error.stack ?? why) : why);
  }
  if (settings.keep) note(`left as it is: ${cleanups.map(({ what }) => what).join(", ")}`);
  else {
    const after = openWaits(settings.timeFactor, new AbortController().signal);
    for (const { what, how } of cleanups.toReversed()) {
      note(`taking away ${what}`);
      await how(after).catch((error: unknown) => note(`not taken away: ${messageOf(error)}`));
    }
  }
  return ledger.finish(why).failed === 0 ? 0 : 1;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

function refuse(...problems: readonly string[]): number {
  for (const problem of problems) process.stderr.write(`${problem}\n`);
  process.stderr.write("nothing was tried; docs/e2e.md says how to run it\n");
  print("0 passed, 0 failed");
  return 1;
}

const settings = readSettings(process.env);
process.exitCode =
  "problems" in settings
    ? refuse(...settings.problems)
    : await main(settings).catch((error: unknown) => refuse(messageOf(error)));
