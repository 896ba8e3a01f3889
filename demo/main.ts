/**
 * `npm run demo`: the main job of edgesync, end to end, on real input, with no cluster, no root and no network. The last line is one
 * JSON object with figures of this run. Exit status 0 only if every claim held; Ctrl-C leaves nothing behind.
 */
import { access, mkdtemp, readFile, rm } from "node:fs/promises";
import { rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bundle } from "../scripts/bundle.ts";
import { readImage } from "../scripts/image.ts";
import { runPod } from "./kubelet/kubelet.ts";
import type { PodEvent } from "./kubelet/node.ts";
import { openPrograms } from "./programs.ts";
import { makeReleases } from "./releases.ts";
import { openScreen } from "./screen.ts";
import type { Screen } from "./screen.ts";
import {
  ACCOUNT,
  freePort,
  IMAGE,
  makeTls,
  openSecretsSide,
  serveRepository,
  startWebhook,
} from "./site.ts";
import { addRelease } from "./stage.ts";
import type { Figures, Stage } from "./stage.ts";
import { showAdmission, showEnd, showGate, showRotation } from "./story-start.ts";
import { showMetrics, showRollback, showUpdate } from "./story-update.ts";

const MEMORY = "/dev/shm";

async function play(
  screen: Screen,
  disk: string,
  memory: string,
  onKill: (kill: () => void) => void,
): Promise<Figures> {
  await using resources = new AsyncDisposableStack();
  const figures: Figures = {
    fullBytes: 0,
    deltaBytes: 0,
    gateHeldMs: 0,
    rotations: 0,
    rolledBackTo: "",
    admissionMs: 0,
    restarts: 0,
    sidecarRssMiB: 0,
  };
  const folders = { repository: join(disk, "repository"), keys: join(disk, "keys") };

  screen.section("A publisher signs releases of a program (esbuild, as its makers published it)");
  const dist = join(disk, "dist");
  await screen.step("the image's bundles are built", bundle(dist));
  const image = await readImage(dist);
  const programs = resources.use(openPrograms(image, join(disk, "programs.log")));
  onKill(() => programs.kill());
  const [first, second, broken] = await makeReleases(join(disk, "releases"));
  await screen.step(
    "edgesync init",
    programs.run(["init", folders.repository, "--keys", folders.keys]),
  );
  await screen.step(
    `edgesync release add --app web --version ${first.version}`,
    addRelease({ programs, folders }, first),
  );

  screen.section("A pod is admitted");
  const tls = await makeTls(join(disk, "tls"));
  const secrets = await openSecretsSide(tls, resources);
  secrets.vault.control.seal(true);
  const addresses = {
    repository: await serveRepository(folders.repository, tls, programs),
    vault: secrets.vault.url,
    sidecarPort: await freePort(),
    controlPort: await freePort(),
  };
  const events: (PodEvent & { at: number })[] = [];
  const stage: Stage = {
    screen,
    programs,
    folders,
    tls,
    secrets,
    addresses,
    appPort: await freePort(),
    events,
  };
  const webhook = await screen.step(
    "the repository server and the webhook start",
    startWebhook(addresses, tls, programs),
  );
  const admission = await showAdmission(stage, webhook, figures);

  screen.section("The kubelet starts it, and the gate holds the main container back");
  const pod = await runPod(admission.pod, {
    name: "site-1",
    disk,
    memory,
    images: new Map([[IMAGE, image]]),
    configMaps: new Map([
      ["edgesync-ca", { "ca.crt": tls.ca }],
      [
        "edgesync-trust-root",
        {
          "root.json": await readFile(join(folders.repository, "metadata", "1.root.json"), "utf8"),
        },
      ],
    ]),
    token: (audience, lifetimeSeconds) =>
      secrets.cluster.token(ACCOUNT, {
        ...(audience !== undefined && { audience }),
        lifetimeSeconds,
      }),
    // The kubelet's own are 10 s and 300 s; shorter here, so that a restart after a rollback fits into a minute.
    backOff: { initialMs: 1_000, maxMs: 5_000 },
    onEvent: (event) => events.push({ ...event, at: performance.now() }),
  });
  onKill(() => pod.kill());
  resources.defer(() => pod.delete());
  const view = await showGate(stage, pod, first, figures);

  screen.section("Credentials rotate while it runs, and the next release is published");
  const published = addRelease(stage, second);
  // Awaited below; a failure until then must not end the process unheard.
  published.catch(() => {});
  await showRotation(stage, pod, view);
  const offer = await screen.step(
    `edgesync release add --version ${second.version}, begun with the rotation`,
    published,
  );

  screen.section("It arrives as a delta");
  await showUpdate(stage, pod, view, { release: second, offer }, figures);

  screen.section("A release that is broken");
  await screen.step(`edgesync release add --version ${broken.version}`, addRelease(stage, broken));
  await showRollback(stage, pod, view, broken, second, figures);

  screen.section("What Prometheus sees");
  await showMetrics(stage, pod, view, figures);

  screen.section("The end of the pod");
  await showEnd(stage, pod);
  return figures;
}

async function main(): Promise<number> {
  const screen = openScreen(process.stdout);
  const disk = await mkdtemp(join(tmpdir(), "edgesync-demo-"));
  const memory = await access(MEMORY).then(() => mkdtemp(join(MEMORY, "edgesync-demo-")));
  const kills: (() => void)[] = [];
  const wipe = (): void => {
    for (const kill of kills) kill();
    for (const folder of [disk, memory]) rmSync(folder, { recursive: true, force: true });
  };
  for (const [signal, status] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const)
    process.once(signal, () => {
      wipe();
      process.stdout.write("\nstopped; nothing is left behind\n");
      process.exit(status);
    });
  // A rejection that nobody awaits comes here too; what runs in groups of its own would outlive this process.
  process.once("uncaughtException", (error) => {
    wipe();
    process.stdout.write(`\nthe demo failed: ${error.stack ?? String(error)}\n`);
    process.exit(1);
  });
  try {
    const begin = performance.now();
    const figures = await play(screen, disk, memory, (kill) => kills.push(kill));
    screen.note(`${((performance.now() - begin) / 1000).toFixed(0)} s in all`);
    if (screen.broken.length > 0)
      process.stdout.write(`\n${screen.broken.length} claims did not hold\n`);
    process.stdout.write(`\n${JSON.stringify(figures)}\n`);
    return screen.broken.length > 0 ? 1 : 0;
  } catch (error) {
    process.stdout.write(
      `\nthe demo failed: ${error instanceof Error ? error.stack : String(error)}\n`,
    );
    for (const log of ["edgesync.log", "web.log", "programs.log"]) {
      const text = await readFile(join(disk, log), "utf8").catch(() => "");
      if (text !== "")
        process.stdout.write(`\n${log}, its end:\n${text.split("\n").slice(-30).join("\n")}\n`);
    }
    return 1;
  } finally {
    await rm(disk, { recursive: true, force: true });
    await rm(memory, { recursive: true, force: true });
  }
}

process.exitCode = await main();
