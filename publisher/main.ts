/** The publisher's commands as a process: environment, terminal, signals, exit status. */
import { readFile } from "node:fs/promises";
import process from "node:process";
import { CONTROL_COMMANDS } from "#core/control.ts";
import { OFFLINE_COMMANDS } from "#core/inject/commands.ts";
import { ERRORS, EdgeSyncError, codeOf } from "#core/errors.ts";
import { nearName } from "#core/near-name.ts";
import { deltaToolCommands } from "./commands/delta-tool.ts";
import { helpOf, parseArguments } from "./command.ts";
import type { Command, Result, Shell } from "./command.ts";
import { diskError, errnoOf } from "./files.ts";
import { poolSize, progressLine, progressLines } from "./work.ts";
import description from "../package.json" with { type: "json" };

/** @returns the exit status */
export async function main(args: readonly string[]): Promise<number> {
  // Read when the first work is given to the pool. Four threads, as Node has them, would leave processors idle.
  process.env["UV_THREADPOOL_SIZE"] ??= String(poolSize());
  const stop = new AbortController();
  let stoppedBy: "SIGINT" | "SIGTERM" | undefined;
  for (const name of ["SIGINT", "SIGTERM"] as const)
    process.once(name, () => {
      stoppedBy = name;
      stop.abort(new Error(name));
    });
  // Whoever reads the output may have read enough, as `head` does; that is no failure.
  process.stdout.on("error", (error) => {
    if (errnoOf(error) !== "EPIPE") throw error;
  });
  let json = false;
  const announce = (result: Result): number =>
    print(
      json
        ? `${JSON.stringify(result.json)}\n`
        : (result.bytes ?? result.lines.map((line) => `${line}\n`).join("")),
    );
  const shell = openShell(announce, stop.signal);
  try {
    const first = args[0];
    if (first === "--version") return print(`${description.version}\n`);
    if (first === undefined || first === "--help" || first === "-h" || first === "help")
      return print(overview((await import("./commands.ts")).COMMANDS));
    const commands = await commandsFor(args);
    const group = commands.filter((command) => command.name.startsWith(`${first} `));
    if (group.length > 0 && (args[1] === "--help" || args[1] === "-h"))
      return print(group.map(helpOf).join("\n"));
    const { command, rest } = findCommand(args, commands);
    const parsed = parseArguments(command, rest);
    if (parsed.help) return print(helpOf(command));
    ({ json } = parsed);
    const result = await command.run(parsed.arguments, shell, stop.signal);
    if (result === undefined) return 0;
    announce(result);
    return result.exit ?? 0;
  } catch (error) {
    shell.progress.end();
    if (stoppedBy !== undefined && error === stop.signal.reason) {
      process.stderr.write("edgesync: stopped; the repository is as it was\n");
      return stoppedBy === "SIGINT" ? 130 : 143;
    }
    return report(error);
  }
}

function print(text: string | Uint8Array): number {
  process.stdout.write(text);
  return 0;
}

function report(thrown: unknown): number {
  const path = thrown instanceof Error && "path" in thrown ? String(thrown.path) : "a file";
  const error = diskError(thrown, path);
  const code = codeOf(error);
  const message = error instanceof Error ? error.message : String(error);
  const { remedy, exit } = ERRORS[code];
  // Why a file cannot be read, or a port not be had, is half of the way out.
  const errno = error instanceof Error ? errnoOf(error.cause) : undefined;
  const why = errno === undefined || message.includes(errno) ? "" : ` (${errno})`;
  process.stderr.write(`edgesync: ${code}: ${message.replaceAll(/\s+/g, " ")}${why}. ${remedy}\n`);
  return exit;
}

function openShell(announce: (result: Result) => void, signal: AbortSignal): Shell {
  return {
    now: () => Date.now(),
    async keyring(folder, passphraseFile) {
      const { VARIABLE_PREFIX, openKeyring } = await import("./keys.ts");
      const given =
        passphraseFile === undefined
          ? process.env["EDGESYNC_PASSPHRASE"]
          : await readPassphrase(passphraseFile);
      // As with the file: an empty one is a mistake, and keys in the clear would be its silent price.
      if (given === "")
        throw new EdgeSyncError(
          "KEY_INVALID",
          "EDGESYNC_PASSPHRASE is empty; expected a passphrase, or no such variable",
        );
      const environment: Record<string, string> = {};
      // Commands that sign elsewhere get everything but the secrets of others.
      const commandEnvironment: Record<string, string | undefined> = {};
      for (const [name, value] of Object.entries(process.env))
        if (name.startsWith(VARIABLE_PREFIX)) environment[name] = value ?? "";
        else if (name !== "EDGESYNC_PASSPHRASE") commandEnvironment[name] = value;
      const tell = (text: string): void => void process.stderr.write(text);
      return openKeyring(folder, given, { environment, commandEnvironment, tell, signal });
    },
    environment: process.env,
    progress: process.stderr.isTTY
      ? progressLine(
          (text) => process.stderr.write(text),
          () => performance.now(),
        )
      : progressLines(
          (text) => process.stderr.write(text),
          () => performance.now(),
        ),
    announce,
  };
}

/** @throws EdgeSyncError KEY_INVALID also when there is none in it: keys must not be written in the clear by mistake */
async function readPassphrase(path: string): Promise<string> {
  const text = await readFile(path, "utf8").catch((cause: unknown) => {
    throw new EdgeSyncError("KEY_INVALID", `the passphrase file ${path} cannot be read`, { cause });
  });
  const [passphrase = ""] = text.split(/\r?\n/, 1);
  if (passphrase === "")
    throw new EdgeSyncError(
      "KEY_INVALID",
      `the first line of the passphrase file ${path} is empty`,
    );
  return passphrase;
}

/** All commands, or only those for deltas as a tool, which run on small machines too: the others are a second of their time to load. */
async function commandsFor(args: readonly string[]): Promise<readonly Command[]> {
  const named = deltaToolCommands.some(({ name }) => name === args.slice(0, 2).join(" "));
  return named ? deltaToolCommands : (await import("./commands.ts")).COMMANDS;
}

/** @throws EdgeSyncError USAGE */
function findCommand(
  args: readonly string[],
  commands: readonly Command[],
): { command: Command; rest: readonly string[] } {
  for (const command of commands) {
    const words = command.name.split(" ");
    if (words.every((word, index) => args[index] === word))
      return { command, rest: args.slice(words.length) };
  }
  const group = commands.filter((command) => command.name.startsWith(`${args[0]} `));
  if (group.length > 0) {
    const names = group.map((command) => command.name).join(", ");
    const given = args[1] === undefined ? "needs another word" : `has no ${args[1]}`;
    throw new EdgeSyncError("USAGE", `${args[0]} ${given}; expected ${names}`);
  }
  const others = ["agent", "webhook", "inject", "explain", "status", "update"];
  const all = [...commands, ...CONTROL_COMMANDS].map(({ name }) => name);
  const given = args.slice(0, 2).join(" ");
  const near = nearName(given, all) ?? nearName(args[0] ?? "", [...all, ...others]);
  const expected =
    near === undefined
      ? `expected ${commands.map(({ name }) => name).join(", ")}, ${others.join(", ")}`
      : `perhaps ${near} is meant`;
  throw new EdgeSyncError("USAGE", `${JSON.stringify(given)} is not a command; ${expected}`);
}

function overview(commands: readonly Command[]): string {
  const width = Math.max(...commands.map((command) => command.name.length));
  return [
    "edgesync <command> [options]",
    "",
    description.description,
    "",
    ...commands.map((command) => `  ${command.name.padEnd(width)}  ${command.summary}`),
    `  ${"agent".padEnd(width)}  Runs the sidecar; settings come from the environment.`,
    ...CONTROL_COMMANDS.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`),
    ...OFFLINE_COMMANDS.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`),
    `  ${"webhook".padEnd(width)}  Runs the admission webhook; settings come from the environment.`,
    "",
    "edgesync <command> --help shows what a command takes; edgesync --version shows the version.",
    "",
  ].join("\n");
}
