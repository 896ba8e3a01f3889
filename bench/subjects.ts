/** The programs that are compared, each as one bundled file that is run with the image's flags. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { get } from "node:http";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { bundle, bundleOne } from "../scripts/bundle.ts";
import { readImage } from "../scripts/image.ts";
import { freePort } from "../test/support/process.ts";
import type { Cgroup } from "./cgroup.ts";

export interface Measurement {
  readonly subject: string;
  readonly metric: string;
  readonly value: number;
  readonly unit: string;
  /** What `ratio` is against; null for a peer itself. */
  readonly peer: string | null;
  readonly ratio: number | null;
}

export type SubjectName = "sidecar" | "libraries" | "bare";

export interface Subject {
  readonly name: SubjectName;
  /** Arguments of Node. */
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

export interface Running extends AsyncDisposable {
  readonly pid: number;
  /** Milliseconds from spawn to the first 200. */
  readonly startMs: number;
  /** Asks one of its routes and resolves with the body; throws unless it answers 200. */
  get(path: string): Promise<string>;
}

/** Peers first. */
export async function buildSubjects(folder: string): Promise<readonly Subject[]> {
  await bundle(folder);
  const { entryPoint, env } = await readImage(folder);
  const [, ...args] = entryPoint;
  // The peers run with the image's flags and environment too, so that only what is loaded differs.
  const flags = args.slice(0, -1);
  const peers: Subject[] = [];
  for (const name of ["bare", "libraries"] as const) {
    const path = join(folder, `bench-${name}.mjs`);
    await bundleOne(`bench/programs/${name}.ts`, path);
    peers.push({ name, args: [...flags, path], env });
  }
  return [...peers, { name: "sidecar", args: [...args, "agent"], env }];
}

/** Milliseconds; a machine that needs longer has another problem. */
const START_LIMIT_MS = 30_000;

export async function start(
  subject: Subject,
  env: Readonly<Record<string, string>> = {},
  cgroup?: Cgroup,
): Promise<Running> {
  const port = await freePort();
  const [program = process.execPath, ...args] = [
    ...(cgroup?.command ?? []),
    process.execPath,
    ...subject.args,
  ];
  const begun = performance.now();
  const child = spawn(program, args, {
    env: { ...subject.env, EDGESYNC_PORT: String(port), ...env },
    // What they log is not what is measured, and a pipe that nobody reads would stop them.
    stdio: "ignore",
  });
  const ended = once(child, "exit");
  const stop = async (): Promise<void> => {
    child.kill("SIGKILL");
    await ended;
  };
  const ask = (path: string): Promise<string> => fetchText(port, path);
  for (;;) {
    try {
      await ask("/live");
      break;
    } catch (error) {
      // Not listening yet.
      if (child.exitCode !== null || performance.now() - begun > START_LIMIT_MS) {
        await stop();
        throw new Error(`${subject.name} does not come up`, { cause: error });
      }
      await sleep(1);
    }
  }
  return {
    pid: child.pid ?? 0,
    startMs: performance.now() - begun,
    get: ask,
    [Symbol.asyncDispose]: stop,
  };
}

function fetchText(port: number, path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const outgoing = get({ host: "127.0.0.1", port, path, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.once("error", reject);
      response.once("end", () => {
        if (response.statusCode === 200) resolve(Buffer.concat(chunks).toString());
        else reject(new Error(`${path}: ${response.statusCode}`));
      });
    });
    outgoing.once("error", reject);
  });
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? upper)) / 2;
}

export function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}
