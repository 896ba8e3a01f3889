/** Another agent with the same secrets at the same Vault: Vault's own, or OpenBao's, where the environment names its program. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { MEMORY, temporaryFolder } from "../../test/support/temporary.ts";
import { figuresOf } from "../site.ts";
import { LIMIT_MS, REFRESH, SETTLE_MS, STEADY_MS, openPodWorld } from "./pod.ts";
import type { PodFigures } from "./pod.ts";

/** @param program of `vault` or `bao` */
export async function measurePeer(program: string, count: number): Promise<PodFigures> {
  await using world = await openPodWorld(count);
  await using folder = await temporaryFolder(MEMORY);
  const at = (name: string): string => join(folder.path, name);
  await mkdir(at("set"));
  await writeFile(at("ca.crt"), world.ca ?? "");
  await writeFile(at("token"), await world.cluster.token(world.account, {}));
  const templates = Object.entries(world.requests).map(([name, request]) =>
    template(join(at("set"), name), request),
  );
  const config = {
    vault: { address: world.url, ca_cert: at("ca.crt") },
    auto_auth: {
      method: [
        {
          type: "kubernetes",
          mount_path: `auth/${world.names.kubernetes}`,
          config: { role: "web", token_path: at("token") },
        },
      ],
    },
    template_config: { static_secret_render_interval: REFRESH },
    template: templates,
  };
  await writeFile(at("agent.json"), JSON.stringify(config));
  const asked = (): number => world.embedded?.control.requests.length ?? 0;
  const before = asked();
  const begun = performance.now();
  const child = spawn(program, ["agent", `-config=${at("agent.json")}`], { stdio: "ignore" });
  const ended = once(child, "exit");
  try {
    while ((await readdir(at("set"))).length < count) {
      if (child.exitCode !== null || performance.now() - begun > LIMIT_MS)
        throw new Error(`${program} does not render ${count} secrets`);
      await sleep(5);
    }
    const publishedMs = performance.now() - begun;
    const requests = asked() - before;
    const pid = child.pid ?? 0;
    const { cpu: startCpu } = await figuresOf(pid);
    await sleep(SETTLE_MS);
    const from = { ...(await figuresOf(pid)), asked: asked() };
    await sleep(STEADY_MS);
    const to = { ...(await figuresOf(pid)), asked: asked() };
    const { rss, rssPeak, rssAnon } = to;
    const steadyCpu = ((to.cpu - from.cpu) * 1_000_000) / STEADY_MS;
    return {
      publishedMs,
      requests,
      rss,
      rssPeak,
      rssAnon,
      startCpu: startCpu * 1_000,
      steadyCpu,
      steadyRequests: ((to.asked - from.asked) * 1_000) / STEADY_MS,
    };
  } finally {
    child.kill("SIGKILL");
    await ended;
  }
}

function template(
  destination: string,
  request: string,
): { readonly destination: string; readonly contents: string } {
  const call = request
    .split(" ")
    .map((word) => JSON.stringify(word))
    .join(" ");
  return { destination, contents: `{{ with secret ${call} }}{{ .Data | toJSON }}{{ end }}` };
}
