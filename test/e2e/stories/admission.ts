/** Who is injected, and who is refused. */
import type { V1Pod } from "@kubernetes/client-node";
import { applicationPod, isInjected } from "../pods.ts";
import type { Annotations } from "../pods.ts";
import { application, claim, create, refusal, updates } from "../stage.ts";
import type { Stage } from "../stage.ts";

/** Dry runs, which the webhook answers like others. */
export async function showAdmission(stage: Stage): Promise<void> {
  const { api, namespaces } = stage;
  const pod = (
    namespace: string,
    annotations: Annotations,
    inject?: string,
  ): ReturnType<typeof applicationPod> =>
    applicationPod({
      ...application(stage),
      name: "asked",
      namespace,
      annotations,
      ...(inject !== undefined && { labels: { "edgesync.dev/inject": inject } }),
    });
  const admitted = async (
    namespace: string,
    annotations: Annotations,
    inject?: string,
  ): Promise<V1Pod> => await create(api, pod(namespace, annotations, inject), true);
  const asking = updates("web/stable");
  const expect = (what: string, found: V1Pod, injected: boolean): void => {
    if (isInjected(found) !== injected)
      throw new Error(`${what} is ${injected ? "not " : ""}injected`);
  };

  await claim(stage, "namespace", [], async () => {
    const { enabled, other } = namespaces;
    const found = await admitted(enabled, asking);
    expect("an annotated pod of a labelled namespace", found, true);
    expect("a pod that asks for nothing", await admitted(enabled, {}), false);
    expect("an opted-out pod", await admitted(enabled, asking, "false"), false);
    expect("an annotated pod of another namespace", await admitted(other, asking), false);
    const sidecar = found.spec?.initContainers?.find(({ name }) => name === "edgesync");
    const how = sidecar?.restartPolicy === "Always" ? "a native sidecar" : "a first container";
    return `as ${how}, in a namespace that enforces restricted Pod Security; plain, opted-out and other pods are left alone`;
  });
  await claim(stage, "label", [], async () => {
    expect("a labelled pod", await admitted(namespaces.other, asking, "true"), true);
    return "its namespace has no label";
  });
  await claim(stage, "denial", [], async () => {
    const said = await refusal(api, pod(namespaces.enabled, { ...asking, "pol-interval": "5s" }));
    if (said?.includes("edgesync.dev/pol-interval") !== true)
      throw new Error(said ?? "the pod was admitted");
    return said.slice(said.indexOf("edgesync.dev/pol"), 160 + said.indexOf("edgesync.dev/pol"));
  });
}
