/** A Job whose pod has a sidecar. */
import type { V1Job, V1Pod } from "@kubernetes/client-node";
import { containerOf, jobOf } from "../pods.ts";
import { application, claim, updates } from "../stage.ts";
import type { Stage } from "../stage.ts";
import { Hopeless } from "../wait.ts";

export async function showJob(stage: Stage): Promise<void> {
  const { api, waits, namespaces } = stage;
  const namespace = namespaces.other;
  await claim(stage, "job", [], async () => {
    const job = jobOf({
      ...application(stage),
      name: "once",
      namespace,
      // A pod that is not restarted has no lever.
      annotations: { ...updates("web/stable"), "on-update": "none" },
      labels: { "edgesync.dev/inject": "true" },
    });
    const jobs = `/apis/batch/v1/namespaces/${namespace}/jobs`;
    await api.json(jobs, { method: "POST", body: job });
    await waits.until("the Job is complete", 240, async (seen) => {
      const { status } = await api.json<V1Job>(`${jobs}/once`);
      const conditions = (status?.conditions ?? []).filter((one) => one.status === "True");
      seen(conditions.map(({ type, message }) => `${type} ${message ?? ""}`).join("; "));
      const failed = conditions.find(({ type }) => type === "Failed");
      if (failed !== undefined) throw new Hopeless(`the Job has failed: ${failed.message}`);
      return conditions.some(({ type }) => type === "Complete") || undefined;
    });
    const { items } = await api.json<{ items: readonly V1Pod[] }>(
      `/api/v1/namespaces/${namespace}/pods?labelSelector=job-name%3Donce`,
    );
    const [pod] = items;
    if (pod === undefined || items.length > 1) throw new Error(`it had ${items.length} pods`);
    const sidecar = containerOf(pod, "edgesync");
    if (sidecar.running) throw new Error("the sidecar still runs");
    return `one pod, ${pod.status?.phase}; the sidecar has ended (${sidecar.reason})`;
  });
}
