/** One container as one process in a process group of its own. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { createWriteStream } from "node:fs";
import { join } from "node:path";
import type { V1Container, V1EnvVar, V1Pod } from "@kubernetes/client-node";
import type { Node } from "./node.ts";
import { makeSubPaths, mapPaths } from "./volumes.ts";
import type { Volumes } from "./volumes.ts";

export interface Process {
  readonly pid: number;
  /** Resolves when the process has ended, with what ended it. */
  readonly ended: Promise<string>;
  /** SIGTERM, then SIGKILL after the grace period; resolves when the process has ended. */
  stop(graceMs: number): Promise<void>;
  /** SIGKILL to the whole group, at once. */
  kill(): void;
}

export function logFile(node: Node, container: string): string {
  return join(node.disk, `${container}.log`);
}

export async function startProcess(
  pod: V1Pod,
  container: V1Container,
  node: Node,
  volumes: Volumes,
): Promise<Process> {
  await makeSubPaths(container, volumes);
  const map = (text: string): string => mapPaths(text, container, volumes);
  const image = node.images.get(container.image ?? "");
  const env: Record<string, string> = { ...image?.env };
  for (const item of container.env ?? [])
    env[item.name] = map(expand(valueOf(item, pod, node), env));
  const [program, ...args] = [
    ...(container.command ?? image?.entryPoint ?? []),
    ...(container.args ?? []),
  ].map((text) => map(expand(text, env)));
  if (program === undefined)
    throw new Error(`${container.name} has no command, and its image no entry point`);
  const child = spawn(program, args, {
    cwd: node.disk,
    env: { PATH: "/usr/local/bin:/usr/bin:/bin", ...env },
    // A group of its own: Ctrl-C on the terminal reaches the demo only, which then stops the pod in the kubelet's order.
    detached: true,
    stdio: [container.stdin === true ? "pipe" : "ignore", "pipe", "pipe"],
  });
  const log = createWriteStream(logFile(node, container.name), { flags: "a" });
  child.stdout?.pipe(log, { end: false });
  child.stderr?.pipe(log, { end: false });
  return ownProcess(child);
}

function ownProcess(child: ChildProcess): Process {
  const ended = new Promise<string>((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("exit", (code, signal) => resolve(signal ?? `exit ${code}`));
  });
  const send = (signal: NodeJS.Signals): void => {
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    process.kill(-child.pid, signal);
  };
  return {
    pid: child.pid ?? 0,
    ended,
    async stop(graceMs) {
      send("SIGTERM");
      const timer = setTimeout(() => send("SIGKILL"), graceMs);
      await ended;
      clearTimeout(timer);
    },
    kill: () => send("SIGKILL"),
  };
}

/** `$(NAME)` stands for a variable defined before, `$$` for a dollar sign; an unknown name is left as it is (as in Kubernetes). */
function expand(text: string, env: Readonly<Record<string, string>>): string {
  return text.replaceAll(/\$(?:\$|\(([A-Za-z_.-][\w.-]*)\))/g, (found, name: string | undefined) =>
    name === undefined ? "$" : (env[name] ?? found),
  );
}

function valueOf(item: V1EnvVar, pod: V1Pod, node: Node): string {
  const field = item.valueFrom?.fieldRef?.fieldPath;
  if (field === undefined) return item.value ?? "";
  const values: Readonly<Record<string, string | undefined>> = {
    "metadata.name": pod.metadata?.name,
    "metadata.namespace": pod.metadata?.namespace,
    "metadata.uid": pod.metadata?.uid,
    "spec.nodeName": node.name,
    "spec.serviceAccountName": pod.spec?.serviceAccountName,
    "status.podIP": "127.0.0.1",
  };
  const value = values[field];
  if (value === undefined)
    throw new Error(`${item.name}: field ${field} is not one that this kubelet knows`);
  return value;
}
