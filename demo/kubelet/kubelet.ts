/**
 * Runs one admitted pod as processes, in the kubelet's order: init containers one after the other, a native sidecar being
 * "started" once its startup probe passes; then the main containers; probes, restarts with back-off, readiness; at the end SIGTERM
 * to the main containers first and to the sidecars, in reverse order, after them. What a container runtime adds (images, mount and
 * network namespaces, cgroups) is not there, which is why this needs neither root nor a cluster.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { V1Container, V1Pod, V1Probe } from "@kubernetes/client-node";
import { startProcess } from "./container.ts";
import type { Process } from "./container.ts";
import type { Node } from "./node.ts";
import { turns } from "./prober.ts";
import { makeVolumes } from "./volumes.ts";
import type { Volumes } from "./volumes.ts";

export interface ContainerStatus {
  readonly name: string;
  readonly pid: number | undefined;
  readonly started: boolean;
  readonly ready: boolean;
  readonly restarts: number;
}

export interface RunningPod {
  readonly volumes: Volumes;
  containers(): readonly ContainerStatus[];
  ready(): boolean;
  /** Resolves when every container has started; rejects when the pod cannot be run. */
  readonly running: Promise<void>;
  /** Deletes the pod: SIGTERM in the kubelet's order within the pod's grace period. */
  delete(): Promise<void>;
  /** SIGKILL to everything, at once: for the end of the demo only. */
  kill(): void;
}

interface Unit {
  readonly container: V1Container;
  process: Process | undefined;
  started: boolean;
  ready: boolean;
  restarts: number;
}

export async function runPod(pod: V1Pod, node: Node): Promise<RunningPod> {
  const volumes = await makeVolumes(pod, node);
  const stop = new AbortController();
  const unit = (container: V1Container): Unit => ({
    container,
    process: undefined,
    started: false,
    ready: false,
    restarts: 0,
  });
  const inits = (pod.spec?.initContainers ?? []).map(unit);
  const mains = (pod.spec?.containers ?? []).map(unit);
  const sidecars = inits.filter(({ container }) => container.restartPolicy === "Always");
  const graceMs = (pod.spec?.terminationGracePeriodSeconds ?? 30) * 1000;
  const loops: Promise<void>[] = [];
  const run = (one: Unit): Promise<void> => {
    const started = Promise.withResolvers<void>();
    const loop = keepRunning(
      one,
      { pod, node, volumes, graceMs, onStarted: started.resolve },
      stop.signal,
    );
    // A container that cannot even be started makes the pod fail, before and after its first start.
    loop.catch(started.reject);
    loops.push(loop);
    return started.promise;
  };

  const running = (async () => {
    for (const one of inits) {
      if (sidecars.includes(one)) await Promise.race([run(one), aborted(stop.signal)]);
      else await runToEnd(one, { pod, node, volumes }, stop.signal);
      stop.signal.throwIfAborted();
    }
    await Promise.race([Promise.all(mains.map(run)), aborted(stop.signal)]);
  })();
  // Whoever asked for the pod awaits `running`; a deletion before that must not become an unhandled rejection.
  running.catch(() => {});

  return {
    volumes,
    running,
    containers: () => [...sidecars, ...mains].map(statusOf),
    ready: () => [...sidecars, ...mains].every((one) => one.ready),
    async delete() {
      stop.abort(new Error("the pod is being deleted"));
      const deadline = Date.now() + graceMs;
      await Promise.all(mains.map((one) => end(one, node, graceMs)));
      for (const one of sidecars.toReversed())
        await end(one, node, Math.max(2_000, deadline - Date.now()));
      await Promise.allSettled([running, ...loops]);
    },
    kill() {
      stop.abort(new Error("the demo ends"));
      for (const one of [...inits, ...mains]) one.process?.kill();
    },
  };
}

interface Context {
  readonly pod: V1Pod;
  readonly node: Node;
  readonly volumes: Volumes;
}

function statusOf({ container, process, started, ready, restarts }: Unit): ContainerStatus {
  return { name: container.name, pid: process?.pid, started, ready, restarts };
}

async function aborted(signal: AbortSignal): Promise<never> {
  await new Promise((resolve) => {
    if (signal.aborted) resolve(undefined);
    else signal.addEventListener("abort", resolve, { once: true });
  });
  throw signal.reason as Error;
}

async function end(unit: Unit, node: Node, graceMs: number): Promise<void> {
  if (unit.process === undefined) return;
  node.onEvent({
    reason: "Killing",
    container: unit.container.name,
    message: "stopping container",
  });
  await unit.process.stop(graceMs);
}

async function runToEnd(unit: Unit, context: Context, signal: AbortSignal): Promise<void> {
  const backOff = makeBackOff(context.node);
  for (;;) {
    unit.process = await startProcess(context.pod, unit.container, context.node, context.volumes);
    const how = await unit.process.ended;
    signal.throwIfAborted();
    if (how === "exit 0") return;
    await sleep(backOff.next(), undefined, { signal });
  }
}

/** Starts the container again whenever it ends or its probes say so, until the pod is deleted. */
async function keepRunning(
  unit: Unit,
  context: Context & { readonly graceMs: number; readonly onStarted: () => void },
  signal: AbortSignal,
): Promise<void> {
  const { node } = context;
  const { name } = unit.container;
  const backOff = makeBackOff(node);
  for (;;) {
    unit.process = await startProcess(context.pod, unit.container, node, context.volumes);
    node.onEvent({ reason: "Started", container: name, message: `process ${unit.process.pid}` });
    const watching = new AbortController();
    const probes = watch(unit, unit.process, context, AbortSignal.any([watching.signal, signal]));
    const how = await unit.process.ended;
    watching.abort(new Error("the container ended"));
    await probes;
    unit.started = false;
    setReady(unit, false, node);
    if (signal.aborted) return;
    node.onEvent({ reason: "Exited", container: name, message: how });
    const delayMs = backOff.next();
    if (delayMs > 0)
      node.onEvent({ reason: "BackOff", container: name, message: `restart in ${delayMs} ms` });
    await sleep(delayMs, undefined, { signal }).catch(() => {});
    if (signal.aborted) return;
    unit.restarts += 1;
  }
}

/** The first restart is immediate, as the kubelet's is; the pauses after it double. Ten quiet minutes begin it anew. */
function makeBackOff(node: Node): { next(): number } {
  let pauseMs = 0;
  let last = 0;
  return {
    next() {
      if (Date.now() - last > 600_000) pauseMs = 0;
      last = Date.now();
      const now = pauseMs;
      pauseMs = Math.min(node.backOff.maxMs, pauseMs === 0 ? node.backOff.initialMs : pauseMs * 2);
      return now;
    },
  };
}

async function watch(
  unit: Unit,
  process: Process,
  context: Context & { readonly graceMs: number; readonly onStarted: () => void },
  signal: AbortSignal,
): Promise<void> {
  const { startupProbe, livenessProbe, readinessProbe } = unit.container;
  const killOn = async (probe: V1Probe, kind: string): Promise<void> => {
    context.node.onEvent({
      reason: "Unhealthy",
      container: unit.container.name,
      message: `${kind} probe failed`,
    });
    await process.stop((probe.terminationGracePeriodSeconds ?? context.graceMs / 1000) * 1000);
  };
  try {
    if (startupProbe !== undefined)
      for await (const passed of turns(startupProbe, unit.container, undefined, signal)) {
        if (passed) break;
        return await killOn(startupProbe, "startup");
      }
    if (signal.aborted) return;
    unit.started = true;
    context.onStarted();
    if (readinessProbe === undefined) setReady(unit, true, context.node);
    await Promise.all([
      readinessProbe && follow(unit, readinessProbe, context.node, signal),
      livenessProbe && guard(unit, livenessProbe, killOn, signal),
    ]);
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

async function follow(unit: Unit, probe: V1Probe, node: Node, signal: AbortSignal): Promise<void> {
  for await (const passed of turns(probe, unit.container, undefined, signal))
    setReady(unit, passed, node);
}

async function guard(
  unit: Unit,
  probe: V1Probe,
  kill: (probe: V1Probe, kind: string) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  for await (const passed of turns(probe, unit.container, true, signal)) {
    if (!passed) return kill(probe, "liveness");
  }
}

function setReady(unit: Unit, ready: boolean, node: Node): void {
  if (unit.ready === ready) return;
  unit.ready = ready;
  node.onEvent({
    reason: ready ? "Ready" : "NotReady",
    container: unit.container.name,
    message: "",
  });
}
