/** Eight releases, 15 s apart, to one pod: how soon the kubelet restarts the application for each, its growing back-off included. */
import { applicationPod, containerOf } from "../pods.ts";
import { application, claim, create, sidecarMetrics, untilPodReady, updates } from "../stage.ts";
import type { Stage } from "../stage.ts";

const PULLS = 8;
const APART_MS = 15_000;
/** Seconds: the kubelet waits up to five minutes between two starts, and a trial that it holds up comes before the last release. */
const LONGEST = 900;

const versionOf = (index: number): string => `1.0.${index}`;

export async function showPulls(stage: Stage): Promise<void> {
  const { api, waits, site, namespaces, note } = stage;
  const at = { namespace: namespaces.other, name: "pulls" };
  await claim(stage, "pulls", [at], async () => {
    for (let index = 0; index <= PULLS; index++)
      await site.publish("pulls", { version: versionOf(index), healthy: true, bytes: 1_024 });
    await site.edgesync("channel", "set", "pulls/stable", versionOf(0));
    const annotations = {
      ...updates("pulls/stable"),
      "poll-interval": "1s",
      "restart-window": "6s",
      "restart-spacing": "0s",
      "trial-duration": "1s",
      // As long as the kubelet may make it wait, and then some.
      "trial-timeout": "20m",
    };
    const labels = { "edgesync.dev/inject": "true" };
    await create(api, applicationPod({ ...application(stage), ...at, annotations, labels }));
    await untilPodReady(stage, at, 180);

    const pulls: number[] = [];
    for (let index = 1; index <= PULLS; index++) {
      const begin = performance.now();
      pulls.push((await site.edgesync("channel", "set", "pulls/stable", versionOf(index))).at);
      note(`pull ${index} of ${PULLS}`);
      if (index < PULLS) await waits.pause(Math.max(0, begin + APART_MS - performance.now()));
    }
    const starts = await waits.until("the last release has started", LONGEST, async (seen) => {
      const all = (await site.state()).starts.filter(({ pod }) => pod === at.name);
      seen(`started: ${all.map(({ version }) => version).join(" ")}`);
      return all.at(-1)?.version === versionOf(PULLS) ? all : undefined;
    });
    await waits.until("the last release is committed", 180, async () => {
      const metrics = await sidecarMetrics(stage, at);
      const rolledBack = metrics("edgesync_sidecar_rollbacks_total");
      if (rolledBack > 0) throw new Error(`${rolledBack} rollbacks`);
      const release = metrics("edgesync_sidecar_release_info", `"${versionOf(PULLS)}"`);
      return (
        (release === 1 && metrics("edgesync_sidecar_update_phase", 'phase="committed"') === 1) ||
        undefined
      );
    });
    const pod = await untilPodReady(stage, at, 60);
    const [main, sidecar] = [containerOf(pod, "main"), containerOf(pod, "edgesync")];
    if (sidecar.restarts > 0)
      throw new Error(`the sidecar has restarted ${sidecar.restarts} times`);
    return `delays: ${delays(pulls, starts).join(", ")}; restarts: main ${main.restarts}, sidecar 0`;
  });
}

/** Seconds from each pull to the start of its release, or of a later one that has overtaken it. */
export function delays(
  pulls: readonly number[],
  starts: readonly { readonly version: string; readonly at: number }[],
): readonly string[] {
  return pulls.map((pulled, index) => {
    const own = index + 1;
    const start = starts.find(({ version }) => Number(version.split(".")[2]) >= own);
    if (start === undefined) return "none";
    const overtaken = start.version === versionOf(own) ? "" : ` (with ${start.version})`;
    return `${((start.at - pulled) / 1_000).toFixed(1)} s${overtaken}`;
  });
}
