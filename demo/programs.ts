/** edgesync's own programs as processes, run from the bundles that the image holds. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { createWriteStream } from "node:fs";
import { createInterface } from "node:readline";
import type { Image } from "../scripts/image.ts";

export interface Programs extends AsyncDisposable {
  /** Runs a command to its end and returns what it printed; a failure rejects with what it said. */
  run(args: readonly string[]): Promise<string>;
  /** Starts a server; resolves with the first match of `ready` in a line that it prints. */
  serve(
    args: readonly string[],
    env: Readonly<Record<string, string>>,
    ready: RegExp,
  ): Promise<RegExpExecArray>;
  /** SIGKILL to all that still runs, at once. */
  kill(): void;
}

/** @param log file for what the servers print */
export function openPrograms(image: Image, log: string): Programs {
  const servers = new Set<ChildProcess>();
  const output = createWriteStream(log, { flags: "a" });
  const start = (args: readonly string[], env: Readonly<Record<string, string>>): ChildProcess => {
    const [program = "", ...first] = image.entryPoint;
    return spawn(program, [...first, ...args], {
      env: { PATH: process.env["PATH"], ...image.env, ...env },
      // Of its own group, so that Ctrl-C reaches only the demo, which then ends everything in order.
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
    });
  };
  return {
    async run(args) {
      const child = start(args, {});
      const texts = { out: "", err: "" };
      child.stdout?.setEncoding("utf8").on("data", (text: string) => (texts.out += text));
      child.stderr?.setEncoding("utf8").on("data", (text: string) => (texts.err += text));
      servers.add(child);
      const code = await new Promise((resolve, reject) => {
        child.once("error", reject);
        child.once("close", resolve);
      });
      servers.delete(child);
      if (code !== 0)
        throw new Error(
          `edgesync ${args.join(" ")} ended with ${String(code)}: ${texts.err.trim()}`,
        );
      return texts.out;
    },
    serve(args, env, ready) {
      const child = start(args, env);
      servers.add(child);
      child.stderr?.pipe(output, { end: false });
      return new Promise((resolve, reject) => {
        child.once("error", reject);
        child.once("exit", (code) => {
          servers.delete(child);
          reject(new Error(`edgesync ${args.join(" ")} ended with ${code}; it wrote ${log}`));
        });
        if (child.stdout === null) return;
        createInterface(child.stdout).on("line", (line) => {
          output.write(`${line}\n`);
          const match = ready.exec(line);
          if (match !== null) resolve(match);
        });
      });
    },
    kill() {
      for (const child of servers) if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
      servers.clear();
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(
        [...servers].map(async (child) => {
          const ended = new Promise((resolve) => child.once("exit", resolve));
          child.kill("SIGTERM");
          await ended;
        }),
      );
      output.end();
    },
  };
}
