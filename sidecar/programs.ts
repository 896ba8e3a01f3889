/**
 * Programs that a daemon runs: hooks, and the command of on-update. Named by a configuration that only root may write, and never by a
 * payload; a pod's sidecar runs none.
 */
import { spawn } from "node:child_process";
import { lstat, realpath } from "node:fs/promises";
import { dirname } from "node:path";
import type { HookReply } from "#core/hook.ts";

export interface Programs {
  /**
   * Runs a program with its arguments, without a shell. One that is not root's alone is not run: the reply says so. Rejects with the signal's
   * reason and with nothing else; the program is then ended, as it is when its time is over.
   *
   * @param argv the program by an absolute path, or by a name that is looked for in the system's own folders
   */
  run(
    argv: readonly string[],
    environment: Readonly<Record<string, string>>,
    timeoutMs: number,
    signal: AbortSignal,
  ): Promise<HookReply>;
}

const PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** Bytes of its output that are kept. */
const OUTPUT_LIMIT = 4 * 1024;

/** @param owner uid that programs and their folders must belong to; root's, but for tests that are not root */
export function openPrograms(owner: number = 0): Programs {
  return {
    async run([program = "", ...args], environment, timeoutMs, signal) {
      signal.throwIfAborted();
      const problem = program.startsWith("/") ? await strangersAt(program, owner) : undefined;
      if (problem !== undefined) return { kind: "exit", status: null, text: problem };
      const reply = await runOnce(program, args, { PATH, ...environment }, timeoutMs, signal);
      signal.throwIfAborted();
      return reply;
    },
  };
}

/** Why a file is not to be trusted: somebody else could have put it there. */
export async function strangersAt(program: string, owner: number): Promise<string | undefined> {
  try {
    let path = await realpath(program);
    if (!(await lstat(path)).isFile()) return `${program} is not a file`;
    for (;;) {
      const { uid, mode } = await lstat(path);
      if (uid !== 0 && uid !== owner) return `${path} does not belong to root`;
      // In a sticky folder only the owner of a file can replace it.
      if ((mode & 0o022) !== 0 && (mode & 0o1000) === 0) return `${path} can be written by others`;
      if (path === dirname(path)) return undefined;
      path = dirname(path);
    }
  } catch (error) {
    return error instanceof Error ? error.message : `${program} cannot be looked at`;
  }
}

function runOnce(
  program: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<HookReply> {
  return new Promise((resolve) => {
    const child = spawn(program, args, {
      env,
      cwd: "/",
      stdio: ["ignore", "pipe", "pipe"],
      signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
      killSignal: "SIGKILL",
    });
    let text = "";
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (chunk: Buffer) => {
        if (text.length < OUTPUT_LIMIT) text += chunk.toString();
      });
    child.once("error", (error) => {
      // Too late is silence, as it is for a call; a program that cannot be run is a mistake that somebody must see.
      const late = error.name === "AbortError";
      resolve(late ? { kind: "silent" } : { kind: "exit", status: null, text: error.message });
    });
    child.once("exit", (status) => {
      // What is left in the pipe is read first; a grandchild that holds it open is not waited for.
      setImmediate(() => {
        resolve({ kind: "exit", status, text: text.slice(0, OUTPUT_LIMIT) });
        child.stdout.destroy();
        child.stderr.destroy();
      });
    });
  });
}
