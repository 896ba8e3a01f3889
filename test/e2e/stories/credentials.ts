/** A pod with credentials and no payload: its sidecar is killed, and credentials come to their end. */
import { applicationPod, containerOf } from "../pods.ts";
import {
  application,
  askApp,
  claim,
  create,
  pathOf,
  sidecarMetrics,
  untilPod,
  untilPodReady,
} from "../stage.ts";
import type { Stage } from "../stage.ts";
import type { V1Pod } from "@kubernetes/client-node";

type Identities = Readonly<Record<string, string>>;

const NATIVE = "edgesync";

export async function showCredentials(stage: Stage): Promise<void> {
  const { api, waits, vault, namespaces } = stage;
  const at = { namespace: namespaces.other, name: "vaulted" };
  const identities = (): Promise<Identities> => askApp<Identities>(stage, at, "/secrets");
  const startOf = async (): Promise<{ pid: number; startedAt: number }> => askApp(stage, at, "/");

  await claim(stage, "killed", [at], async () => {
    const annotations = {
      ...vault.login,
      "secret.account": vault.account,
      "secret.brief": vault.brief,
      "secret.config": vault.config,
      "secrets-refresh-interval": "2s",
      // The user of the application, which could not kill it otherwise.
      "run-as": "10001:10001",
    };
    const labels = { "edgesync.dev/inject": "true" };
    const bare = { bare: true, shareProcesses: true };
    const of = { ...application(stage), ...at, annotations, labels, ...bare };
    await create(api, applicationPod(of));
    await untilPodReady(stage, at, 180);
    const before = await identities();
    if ((before["account"] ?? "") === "") throw new Error("there is no credential");
    const start = await startOf();
    const killed = await askApp<{ killed: number }>(stage, at, "/kill-sidecar");
    const begin = performance.now();
    if (killed.killed !== 1) throw new Error(`${killed.killed} processes were killed`);
    await untilPod(stage, at, "its sidecar is up again", 180, (pod) => {
      const { restarts, running, started } = containerOf(pod, NATIVE);
      return restarts === 1 && running && started;
    });
    const pod = await untilPodReady(stage, at, 120);
    const seconds = ((performance.now() - begin) / 1_000).toFixed(1);
    const after = await identities();
    if (after["account"] !== before["account"])
      throw new Error(`the credential was ${before["account"]} and is ${after["account"]}`);
    const same = await startOf();
    if (containerOf(pod, "main").restarts > 0 || same.startedAt !== start.startedAt)
      throw new Error("the application has restarted");
    const logins = (await sidecarMetrics(stage, at))("edgesync_sidecar_vault_logins_total");
    if (logins > 0) throw new Error(`the new sidecar has logged in ${logins} times`);
    return `${vault.kind}, ${vault.engine}; ready again after ${seconds} s with …${after["account"]?.slice(-12)}, no new login, the application untouched`;
  });

  await claim(stage, "rotation", [at], async () => {
    const begin = performance.now();
    const before = await identities();
    const start = await startOf();
    await vault.changeConfig("good morning");
    await waits.until("the changed value", 120, async () => {
      return (await identities())["config"] === "good morning" || undefined;
    });
    const changed = ((performance.now() - begin) / 1_000).toFixed(1);
    await waits.until("a new credential in place of one that ends", 240, async () => {
      const { brief } = await identities();
      return (brief !== undefined && brief !== "" && brief !== before["brief"]) || undefined;
    });
    const pod = await api.json<V1Pod>(pathOf(at));
    const same = await startOf();
    if (containerOf(pod, "main").restarts > 0 || same.startedAt !== start.startedAt)
      throw new Error("the application has restarted");
    if ((await identities())["account"] !== before["account"])
      throw new Error("the other credential has changed with it");
    return `a changed value after ${changed} s, a new credential after ${((performance.now() - begin) / 1_000).toFixed(1)} s; the other one and the application stay`;
  });
}
