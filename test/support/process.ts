import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import process from "node:process";

export interface Program extends AsyncDisposable {
  readonly pid: number;
  /** What it wrote to standard output and error so far. */
  output(): string;
  /** Resolves with how the process ended by itself. */
  ended(): Promise<number | NodeJS.Signals | null>;
  /** Sends a signal and resolves with how the process ended. */
  end(signal: NodeJS.Signals): Promise<number | NodeJS.Signals | null>;
}

/** What any program may have of the environment of the tests: the way to programs, and Node's cache of what it has compiled. */
export function bareEnvironment(): Readonly<Record<string, string>> {
  const { PATH = "", NODE_COMPILE_CACHE } = process.env;
  return { PATH, ...(NODE_COMPILE_CACHE === undefined ? {} : { NODE_COMPILE_CACHE }) };
}

/** A program of ours as a process of its own, with nothing in its environment but what is given. */
export function startNode(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Program {
  return startProgram(process.execPath, args, env);
}

/** A program as a process of its own, with nothing in its environment but what is given. */
export function startProgram(
  program: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Program {
  const child: ChildProcess = spawn(program, args, {
    env: { ...bareEnvironment(), ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  // Not "exit": output may still be on its way then.
  const ended = once(child, "close");
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream?.on("data", (chunk: Buffer) => {
      output += chunk.toString();
    });
  const running = (): boolean => child.exitCode === null && child.signalCode === null;
  return {
    pid: child.pid ?? 0,
    output: () => output,
    async ended() {
      await ended;
      return child.exitCode ?? child.signalCode;
    },
    async end(signal) {
      child.kill(signal);
      await ended;
      return child.exitCode ?? child.signalCode;
    },
    async [Symbol.asyncDispose]() {
      if (!running()) return;
      child.kill("SIGKILL");
      await ended;
    },
  };
}

/** A port of the loopback interface that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0);
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string") throw new TypeError("no TCP address");
  return address.port;
}

/** Tries until it gets a value; fails with what `explain` says after `withinMs`. */
export async function eventually<T>(
  attempt: () => Promise<T | undefined> | T | undefined,
  explain: () => string,
  withinMs: number = 10_000,
): Promise<T> {
  const deadline = Date.now() + withinMs;
  for (;;) {
    const value = await attempt();
    if (value !== undefined) return value;
    if (Date.now() > deadline) throw new Error(`not within ${withinMs} ms: ${explain()}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
