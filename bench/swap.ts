import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdir } from "node:fs/promises";
import { get } from "node:http";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { freePort } from "../test/support/process.ts";
import { temporaryFolder } from "../test/support/temporary.ts";
import { openStage } from "./site.ts";
import type { Stage } from "./site.ts";
import { buildSubjects, median, round, start } from "./subjects.ts";
import type { Measurement, Running, Subject } from "./subjects.ts";

const ROUNDS = 9;
/** Milliseconds between two probes, as of a kubelet in a hurry; and between two requests of a client. */
const PROBE_MS = 100;
const CLIENT_MS = 1;
const PATIENCE_MS = 60_000;
const PROGRAM = join(import.meta.dirname, "programs", "app.ts");

/**
 * For how long an application is away when a release is swapped, and when the kubelet restarts it for no reason at all: what the second
 * does not have is the swap's. The kubelet here is a loop of probes that kills and starts a real process.
 */
export async function* swap(): AsyncGenerator<Measurement> {
  await using folder = await temporaryFolder();
  await using stage = await openStage();
  const subjects = await buildSubjects(folder.path);
  const sidecar = subjects.find(({ name }) => name === "sidecar");
  if (sidecar === undefined) throw new Error("no bundle of the sidecar");
  const plain: number[] = [];
  const swapped: number[] = [];
  for (let turn = 0; turn <= ROUNDS; turn++) {
    const gaps = await aRound(sidecar, stage, turn);
    // The first brings files into the page cache.
    if (turn === 0) continue;
    plain.push(gaps.plain);
    swapped.push(gaps.swapped);
  }
  const row = { metric: "downtime", unit: "ms" };
  const floor = median(plain);
  const value = median(swapped);
  yield { ...row, subject: "restart", value: round(floor), peer: null, ratio: null };
  yield {
    ...row,
    subject: "swap",
    value: round(value),
    peer: "restart",
    ratio: round(value / floor),
  };
  yield { ...row, subject: "swap-alone", value: round(value - floor), peer: null, ratio: null };
}

async function aRound(
  subject: Subject,
  stage: Stage,
  turn: number,
): Promise<{ readonly plain: number; readonly swapped: number }> {
  await using folder = await temporaryFolder();
  const payload = join(folder.path, "payload");
  await mkdir(payload);
  const [before, after] = [`1.${turn}.0`, `1.${turn}.1`];
  await stage.world.publish(before, { version: before });
  const port = await freePort();
  const handler = { kind: "http", scheme: "http", port, path: "/", headers: [] };
  const probe = { initialDelayMs: 0, periodMs: 1_000, timeoutMs: 1_000, successThreshold: 1 };
  const app = [
    {
      container: "app",
      startupWindow: { periodMs: PROBE_MS, failureThreshold: 600 },
      liveness: { ...probe, handler, failureThreshold: 3 },
    },
  ];
  const env = stage.environment(payload, {
    EDGESYNC_APP: JSON.stringify(app),
    EDGESYNC_POLL_INTERVAL: "1s",
    EDGESYNC_TRIAL_DURATION: "1s",
  });
  await using sidecar = await start(subject, env);
  await until(() => answers(sidecar, "/startup"));
  await using kubelet = openKubelet(sidecar, port, payload);
  await until(async () => (await ask(port)) === before);
  const plain = await downtime(port, () => kubelet.restart(), before);
  await sleep(500);
  const swapped = await downtime(port, () => stage.world.publish(after, { version: after }), after);
  return { plain, swapped };
}

interface Kubelet extends AsyncDisposable {
  restart(): void;
}

/** Starts the application, probes it through the sidecar, and restarts it when its liveness probe fails. */
function openKubelet(sidecar: Running, port: number, payload: string): Kubelet {
  const stop = new AbortController();
  let wanted = false;
  const run = (): ChildProcess =>
    spawn(
      process.execPath,
      ["--disable-warning=ExperimentalWarning", PROGRAM, `${port}`, payload],
      {
        stdio: "ignore",
      },
    );
  const end = async (child: ChildProcess): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    child.kill("SIGTERM");
    await ended;
  };
  async function loop(): Promise<void> {
    let child = run();
    let started = false;
    while (!stop.signal.aborted) {
      const passed = await answers(sidecar, started ? "/app/app/live" : "/app/app/startup");
      if (!started) started = passed;
      else if (!passed || wanted) {
        wanted = false;
        await end(child);
        child = run();
        started = false;
      }
      await sleep(PROBE_MS);
    }
    await end(child);
  }
  const running = loop();
  return {
    restart() {
      wanted = true;
    },
    async [Symbol.asyncDispose]() {
      stop.abort();
      await running;
    },
  };
}

/** Milliseconds without an answer, around what makes the application go and come back with a version. */
async function downtime(
  port: number,
  act: () => Promise<void> | void,
  version: string,
): Promise<number> {
  let lastGood = performance.now();
  let gone = false;
  const begun = performance.now();
  const acting = act();
  for (;;) {
    const answer = await ask(port);
    const now = performance.now();
    if (answer === undefined) gone = true;
    else if (gone && answer === version) {
      await acting;
      return now - lastGood;
    } else lastGood = now;
    if (now - begun > PATIENCE_MS)
      throw new Error(`the application does not come back as ${version}`);
    await sleep(CLIENT_MS);
  }
}

function ask(port: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const request = get({ host: "127.0.0.1", port, agent: false, timeout: 1_000 }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => (text += chunk));
      response.once("end", () => resolve(text));
      response.once("error", () => resolve(undefined));
    });
    request.once("error", () => resolve(undefined));
  });
}

async function answers(sidecar: Running, path: string): Promise<boolean> {
  try {
    await sidecar.get(path);
    return true;
  } catch {
    // 503: not yet, or no longer.
    return false;
  }
}

async function until(is: () => Promise<boolean>): Promise<void> {
  for (let attempt = 0; attempt < 1_000; attempt++) {
    if (await is()) return;
    await sleep(20);
  }
  throw new Error("it did not come about");
}
