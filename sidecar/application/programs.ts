/**
 * Programs that a daemon runs: hooks, and the commands of on-update and health. Named by a configuration that nobody but root and its own
 * user may write, and never of a payload nor named by one; a pod's sidecar runs none.
 */
import { spawn } from "node:child_process";
import { access, constants } from "node:fs/promises";
import type { ChildProcessByStdio } from "node:child_process";
import type { Readable } from "node:stream";
import type { HookReply } from "#core/hook.ts";
import { trustedPath } from "../disk/trusted-path.ts";
import type { TrustedPath } from "../disk/trusted-path.ts";

export interface Programs {
  /** Why a program cannot be run, as far as that can be told beforehand; undefined when it can. */
  problem(program: string): Promise<string | undefined>;
  /**
   * Runs a program with its arguments, without a shell. One that others than root and the daemon's user could have put there is not run: the reply says so. Rejects with the signal's
   * reason and with nothing else; the program is then ended with all that it has started, as it is when its time is over.
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

export interface ProgramsDeps {
  /** Uid that programs and the folders on the way to them may belong to, besides root's: the daemon's. */
  readonly owner: number;
  /** Folders whose contents come from elsewhere: nothing that lies in them is run, nor what a link in them names. */
  readonly never: readonly string[];
  /** Sends SIGKILL to a process, or by a negative number to a group of them; see kill(2). */
  readonly kill: (pid: number) => void;
}

export function openPrograms({ owner, never, kill }: ProgramsDeps): Programs {
  const usable = async (program: string): Promise<TrustedPath> => {
    const found = await findProgram(program, owner, never);
    if ("problem" in found) return found;
    try {
      await access(found.path, constants.X_OK);
      return found;
    } catch {
      return { problem: `${program} may not be executed` };
    }
  };
  return {
    async problem(program) {
      const found = await usable(program);
      return "problem" in found ? found.problem : undefined;
    },
    async run([program = "", ...args], environment, timeoutMs, signal) {
      signal.throwIfAborted();
      const found = await usable(program);
      signal.throwIfAborted();
      if ("problem" in found) return { kind: "broken", text: found.problem };
      const options = {
        // Several programs in one file tell by it which of them is meant.
        argv0: program,
        env: { PATH, ...environment },
        cwd: "/",
        stdio: ["ignore", "pipe", "pipe"] as ["ignore", "pipe", "pipe"],
        // A group of its own, so that what it has started can be ended with it.
        detached: true,
      };
      const over = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
      const reply = await runOnce(() => spawn(found.path, args, options), kill, over);
      signal.throwIfAborted();
      return reply;
    },
  };
}

/** What is run is what was looked at: its path without links. */
async function findProgram(
  program: string,
  owner: number,
  never: readonly string[],
): Promise<TrustedPath> {
  if (program.startsWith("/")) return await trustedPath(program, owner, never);
  for (const folder of PATH.split(":")) {
    const found = await trustedPath(`${folder}/${program}`, owner, never);
    if ("path" in found || found.absent !== true) return found;
  }
  return { problem: `${program} is in none of ${PATH}` };
}

function runOnce(
  start: () => ChildProcessByStdio<null, Readable, Readable>,
  kill: (pid: number) => void,
  over: AbortSignal,
): Promise<HookReply> {
  return new Promise((resolve) => {
    const child = start();
    let text = "";
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (chunk: Buffer) => {
        if (text.length < OUTPUT_LIMIT) text += chunk.toString();
      });
    const finish = (reply: HookReply): void => {
      over.removeEventListener("abort", end);
      child.stdout.destroy();
      child.stderr.destroy();
      resolve(reply);
    };
    const end = (): void => {
      try {
        if (child.pid !== undefined) kill(-child.pid);
      } catch {
        // All of it has ended in this moment.
      }
      // Too late is silence, as it is for a call; a program that cannot be run is a mistake that somebody must see.
      finish({ kind: "silent", text: "timeout", reached: true });
    };
    over.addEventListener("abort", end, { once: true });
    child.once("error", (error) => finish({ kind: "broken", text: error.message }));
    child.once("exit", (status) => {
      // By now its number may be another's.
      over.removeEventListener("abort", end);
      // What is left in the pipe is read first; a grandchild that holds it open is not waited for.
      setImmediate(() => finish({ kind: "exit", status, text: text.slice(0, OUTPUT_LIMIT) }));
    });
    if (over.aborted) end();
  });
}
