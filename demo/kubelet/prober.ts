/** The kubelet's side of a probe: its periods and thresholds. Exec and grpc are left out; no pod of the demo has them. */
import { request } from "node:http";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { V1Container, V1Probe } from "@kubernetes/client-node";

/**
 * Probes until the result turns, once for each turn: `true` after successThreshold successes in a row, `false` after
 * failureThreshold failures in a row. `first` is the state before the first answer.
 */
export async function* turns(
  probe: V1Probe,
  container: V1Container,
  first: boolean | undefined,
  signal: AbortSignal,
): AsyncGenerator<boolean> {
  const { initialDelaySeconds = 0, periodSeconds = 10, timeoutSeconds = 1 } = probe;
  const { successThreshold = 1, failureThreshold = 3 } = probe;
  let state = first;
  let streak = 0;
  let last: boolean | undefined;
  await sleep(initialDelaySeconds * 1000, undefined, { signal });
  for (;;) {
    const passed = await attempt(probe, container, timeoutSeconds * 1000);
    if (signal.aborted) return;
    streak = passed === last ? streak + 1 : 1;
    last = passed;
    if (passed !== state && streak >= (passed ? successThreshold : failureThreshold)) {
      state = passed;
      yield passed;
    }
    await sleep(periodSeconds * 1000, undefined, { signal });
  }
}

function attempt(probe: V1Probe, container: V1Container, timeoutMs: number): Promise<boolean> {
  if (probe.httpGet !== undefined)
    return httpGet(portOf(probe.httpGet.port, container), probe.httpGet.path ?? "/", timeoutMs);
  if (probe.tcpSocket !== undefined)
    return tcpSocket(portOf(probe.tcpSocket.port, container), timeoutMs);
  throw new Error(`${container.name} has a probe that this kubelet does not know`);
}

/** A name is looked up in the container's own ports only, as the kubelet does. */
function portOf(port: number | string, container: V1Container): number {
  if (typeof port === "number") return port;
  const named = container.ports?.find((item) => item.name === port)?.containerPort;
  if (named === undefined) throw new Error(`${container.name} has no port named ${port}`);
  return named;
}

function httpGet(port: number, path: string, timeoutMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    const call = request(
      {
        host: "127.0.0.1",
        port,
        path,
        agent: false,
        signal: AbortSignal.timeout(timeoutMs),
        headers: { "User-Agent": "kube-probe/1.36" },
      },
      (response) => {
        const { statusCode = 0 } = response;
        response.resume();
        response.once("error", () => resolve(false));
        response.once("end", () => resolve(statusCode >= 200 && statusCode < 400));
      },
    );
    call.once("error", () => resolve(false));
    call.end();
  });
}

function tcpSocket(port: number, timeoutMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: "127.0.0.1", port, timeout: timeoutMs });
    const end = (passed: boolean): void => {
      socket.destroy();
      resolve(passed);
    };
    socket.once("connect", () => end(true));
    socket.once("timeout", () => end(false));
    socket.once("error", () => end(false));
  });
}
