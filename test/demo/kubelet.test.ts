/** The demo's kubelet must do what a kubelet does, or the demo would show nothing. Facts: Kubernetes' documentation of sidecar containers and probes. */
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { describe, test } from "node:test";
import type { V1Container, V1Pod } from "@kubernetes/client-node";
import { runPod } from "../../demo/kubelet/kubelet.ts";
import type { Node } from "../../demo/kubelet/node.ts";
import { temporaryFolder } from "../support/temporary.ts";

/** Answers what the test sets for each path, and counts the calls. */
async function answers(): Promise<{
  readonly port: number;
  readonly status: Map<string, number>;
  readonly [Symbol.asyncDispose]: () => Promise<void>;
}> {
  const status = new Map<string, number>();
  const server = createServer((request, response) => {
    response.writeHead(status.get(request.url ?? "") ?? 200).end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    status,
    [Symbol.asyncDispose]: () => new Promise((resolve) => void server.close(() => resolve())),
  };
}

function nodeIn(folder: string, events: string[] = []): Node {
  return {
    name: "node-1",
    disk: folder,
    memory: folder,
    images: new Map([["script", { entryPoint: [process.execPath, "-e"], env: {} }]]),
    configMaps: new Map([["settings", { "greeting.txt": "hello" }]]),
    token: (audience) => Promise.resolve(`token for ${audience ?? "the API server"}`),
    backOff: { initialMs: 20, maxMs: 100 },
    onEvent: ({ reason, container }) => events.push(`${reason} ${container}`),
  };
}

/** Appends its name to a log on the shared volume at start and at SIGTERM, and runs until then. */
function diary(name: string, more: Partial<V1Container> = {}): V1Container {
  const script = `
    const log = (text) => require("node:fs").appendFileSync("/shared/log", text + "\\n");
    log("start ${name}");
    process.once("SIGTERM", () => { log("end ${name}"); process.exit(0); });
    setInterval(() => {}, 1000);`;
  return {
    name,
    image: "script",
    args: [script],
    volumeMounts: [{ name: "shared", mountPath: "/shared" }],
    ...more,
  };
}

function podOf(spec: Partial<NonNullable<V1Pod["spec"]>>): V1Pod {
  return {
    metadata: { name: "pod-1", namespace: "shop", uid: "1-2-3" },
    spec: {
      containers: [],
      volumes: [{ name: "shared", emptyDir: {} }],
      terminationGracePeriodSeconds: 5,
      ...spec,
    },
  };
}

async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (!(await holds())) {
    assert.ok(Date.now() < deadline, `${what} within ten seconds`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

describe("the demo's kubelet", () => {
  test("starts a native sidecar, then the rest once its startup probe passes, and stops it last", async () => {
    await using folder = await temporaryFolder();
    await using server = await answers();
    const log = async (): Promise<string> =>
      readFile(join(folder.path, "volumes/shared/log"), "utf8").catch(() => "");
    server.status.set("/startup", 503);
    const startupProbe = {
      httpGet: { port: server.port, path: "/startup" },
      periodSeconds: 0.02,
      failureThreshold: 1000,
    };
    const pod = await runPod(
      podOf({
        initContainers: [
          diary("sidecar", { restartPolicy: "Always", startupProbe }),
          {
            name: "init",
            image: "script",
            args: [`require("node:fs").appendFileSync("/shared/log", "init\\n")`],
            volumeMounts: [{ name: "shared", mountPath: "/shared" }],
          },
        ],
        containers: [diary("main")],
      }),
      nodeIn(folder.path),
    );
    await until("the sidecar starts", async () => (await log()) === "start sidecar\n");
    assert.equal(pod.containers()[0]?.started, false);
    server.status.set("/startup", 200);
    await pod.running;
    await until("main starts", async () => (await log()).includes("start main"));
    await pod.delete();
    assert.equal(await log(), "start sidecar\ninit\nstart main\nend main\nend sidecar\n");
  });

  test("restarts a container whose liveness probe fails, and no other", async () => {
    await using folder = await temporaryFolder();
    await using server = await answers();
    const livenessProbe = {
      httpGet: { port: server.port, path: "/live" },
      periodSeconds: 0.02,
      failureThreshold: 2,
    };
    const pod = await runPod(
      podOf({ containers: [diary("web", { livenessProbe }), diary("other")] }),
      nodeIn(folder.path),
    );
    await pod.running;
    const before = pod.containers().map(({ pid }) => pid);
    server.status.set("/live", 503);
    await until("the restart", () => (pod.containers()[0]?.restarts ?? 0) > 0);
    server.status.set("/live", 200);
    await until("the new process", () => pod.containers()[0]?.started === true);
    assert.notEqual(pod.containers()[0]?.pid, before[0]);
    assert.equal(pod.containers()[1]?.pid, before[1]);
    assert.equal(pod.containers()[1]?.restarts, 0);
    await pod.delete();
  });

  test("waits longer before each restart of a container that ends by itself", async () => {
    await using folder = await temporaryFolder();
    const events: string[] = [];
    const crash = { name: "crash", image: "script", args: ["process.exit(3)"] };
    const pod = await runPod(podOf({ containers: [crash] }), nodeIn(folder.path, events));
    await until("three restarts", () => (pod.containers()[0]?.restarts ?? 0) >= 3);
    await pod.delete();
    const secondStart = events.indexOf("Started crash", events.indexOf("Started crash") + 1);
    assert.ok(events.indexOf("BackOff crash") > secondStart, "the first restart is immediate");
    assert.ok(events.filter((event) => event === "BackOff crash").length >= 2);
  });

  test("gives a container its volumes, ConfigMaps, token and downward fields", async () => {
    await using folder = await temporaryFolder();
    const script = `require("node:fs").writeFileSync("/shared/out/seen", JSON.stringify([
      require("node:fs").readFileSync("/etc/settings/greeting.txt", "utf8"),
      require("node:fs").readFileSync("/token/t", "utf8"), process.env.POD, process.env.DIR, process.env.BOTH]));
      setInterval(() => {}, 1000)`;
    const reader: V1Container = {
      name: "reader",
      image: "script",
      args: [script],
      env: [
        { name: "POD", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } },
        { name: "DIR", value: "/shared/out" },
        { name: "BOTH", value: "$(POD) costs 5$$ and $(NOTHING)" },
      ],
      volumeMounts: [
        { name: "shared", mountPath: "/shared/out", subPath: "set" },
        { name: "settings", mountPath: "/etc/settings" },
        { name: "token", mountPath: "/token" },
      ],
    };
    const volumes = [
      { name: "shared", emptyDir: {} },
      { name: "settings", configMap: { name: "settings" } },
      {
        name: "token",
        projected: { sources: [{ serviceAccountToken: { audience: "vault", path: "t" } }] },
      },
    ];
    const pod = await runPod(podOf({ containers: [reader], volumes }), nodeIn(folder.path));
    const seen = join(folder.path, "volumes/shared/set/seen");
    await until("the container has read all", async () =>
      (await readFile(seen, "utf8").catch(() => "")).endsWith("]"),
    );
    assert.deepEqual(JSON.parse(await readFile(seen, "utf8")), [
      "hello",
      "token for vault",
      "pod-1",
      join(folder.path, "volumes/shared/set"),
      "pod-1 costs 5$ and $(NOTHING)",
    ]);
    await pod.delete();
  });

  test("reports a pod that cannot be run", async () => {
    await using folder = await temporaryFolder();
    await writeFile(join(folder.path, "keep"), "");
    const pod = await runPod(
      podOf({ containers: [{ name: "main", image: "unknown" }] }),
      nodeIn(folder.path),
    );
    await assert.rejects(pod.running, /no command/);
    await pod.delete();
  });
});
