/** One process after the other, each with its time and its memory. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

export interface Command {
  readonly program: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

export interface Usage {
  /** Wall time from spawn to exit, so with the start of the process. */
  readonly seconds: number;
  /** MiB, the highest; of the largest process when there are several. */
  readonly rss: number;
  /** MiB, the highest that was seen. */
  readonly anon: number;
}

/** Milliseconds between two looks at a process's memory. The high-water mark misses only what grows after the last look. */
const LOOK_MS = 1;
const LOOK_RARELY_MS = 50;
/** Milliseconds after which a process is no longer a short one. */
const SHORT_MS = 5_000;

/**
 * Runs the commands one after the other.
 *
 * @param watch looks at the memory, which costs a little time; without it `rss` and `anon` are 0
 * @throws Error when one fails, or is not done within `limitSeconds` altogether
 */
export async function runAll(
  commands: readonly Command[],
  watch: boolean,
  limitSeconds: number,
  signal: AbortSignal,
): Promise<Usage> {
  let total: Usage = { seconds: 0, rss: 0, anon: 0 };
  for (const command of commands) {
    const usage = await runOne(command, watch, limitSeconds - total.seconds, signal);
    total = {
      seconds: total.seconds + usage.seconds,
      rss: Math.max(total.rss, usage.rss),
      anon: Math.max(total.anon, usage.anon),
    };
  }
  return total;
}

async function runOne(
  { program, args, env }: Command,
  watch: boolean,
  limitSeconds: number,
  signal: AbortSignal,
): Promise<Usage> {
  signal.throwIfAborted();
  const begun = performance.now();
  const child = spawn(program, args, {
    stdio: ["ignore", "ignore", "pipe"],
    ...(env === undefined ? {} : { env: { ...process.env, ...env } }),
    signal,
    killSignal: "SIGKILL",
  });
  const timer = setTimeout(() => child.kill("SIGKILL"), limitSeconds * 1000);
  let complaint = "";
  child.stderr.on("data", (chunk: Buffer) => {
    complaint = (complaint + chunk.toString()).slice(-2000);
  });
  const ended = once(child, "close") as Promise<[number | null, string | null]>;
  try {
    const memory = watch ? memoryOf(child) : undefined;
    const [status, killed] = await ended;
    const seconds = (performance.now() - begun) / 1000;
    if (status !== 0) {
      const why =
        killed !== null && seconds >= limitSeconds
          ? `gave up after ${limitSeconds} s`
          : complaint.trim();
      throw new Error(`${program} ${args.join(" ")}: ${why || `status ${status ?? killed}`}`);
    }
    return { seconds, ...((await memory) ?? { rss: 0, anon: 0 }) };
  } finally {
    clearTimeout(timer);
  }
}

async function memoryOf(
  child: ChildProcess,
): Promise<{ readonly rss: number; readonly anon: number }> {
  const begun = performance.now();
  let [rss, anon] = [0, 0];
  while (child.pid !== undefined && child.exitCode === null && child.signalCode === null) {
    try {
      const status = readFileSync(`/proc/${child.pid}/status`, "latin1");
      rss = Math.max(rss, mib(status, "VmHWM"));
      anon = Math.max(anon, mib(status, "RssAnon"));
    } catch {
      // It has just ended.
    }
    await sleep(performance.now() - begun < SHORT_MS ? LOOK_MS : LOOK_RARELY_MS);
  }
  return { rss, anon };
}

function mib(status: string, field: string): number {
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(status)?.[1] ?? 0) / 1024;
}
