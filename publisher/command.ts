/** The command line as data: what each command takes, and how its arguments are read. */
import { parseArgs } from "node:util";
import { EdgeSyncError } from "#core/errors.ts";
import type { Keyring } from "./keys.ts";
import type { Progress } from "./work.ts";

/** What commands know of the process that they run in. */
export interface Shell {
  /** Milliseconds since the epoch. */
  now(): number;
  /** Opens the keys folder, with the passphrase that was given by option or environment. */
  keyring(folder: string, passphraseFile: string | undefined): Promise<Keyring>;
  readonly progress: Progress;
  /** Says something at once; for commands that go on after it. */
  announce(result: Result): void;
}

/** What a command has to say: lines for people, or the same as one JSON object. */
export interface Result {
  readonly lines: readonly string[];
  readonly json: Readonly<Record<string, unknown>>;
  /** Exit status when not 0. */
  readonly exit?: number;
}

export interface Arguments {
  readonly positionals: readonly string[];
  /** @throws EdgeSyncError USAGE when it was not given */
  required(option: string): string;
  optional(option: string): string | undefined;
}

export interface Command {
  /** Words that choose it, such as `release add`. */
  readonly name: string;
  /** One sentence. */
  readonly summary: string;
  readonly example: string;
  /** What is given in order, such as `<folder>`; in brackets what may be left out, at the end. */
  readonly positionals: readonly string[];
  /** Options that take a value, each with its sentence. */
  readonly options: Readonly<Record<string, string>>;
  run(args: Arguments, shell: Shell, signal: AbortSignal): Promise<Result | undefined>;
}

export interface Parsed {
  readonly arguments: Arguments;
  readonly json: boolean;
  readonly help: boolean;
}

/** @throws EdgeSyncError USAGE */
export function parseArguments(command: Command, args: readonly string[]): Parsed {
  const values = new Map<string, string>();
  let flags: { readonly json?: boolean; readonly help?: boolean };
  let positionals: readonly string[];
  try {
    const options = Object.fromEntries(
      Object.keys(command.options).map((name) => [
        name,
        { type: "string" as const, ...(name === "output" && { short: "o" }) },
      ]),
    );
    const json = { type: "boolean" as const };
    const help = { type: "boolean" as const, short: "h" };
    const parsed = parseArgs({
      args: [...args],
      options: { ...options, json, help },
      allowPositionals: true,
    });
    for (const [name, value] of Object.entries(parsed.values))
      if (typeof value === "string") values.set(name, value);
    flags = { json: parsed.values.json === true, help: parsed.values.help === true };
    ({ positionals } = parsed);
  } catch (cause) {
    const problem = cause instanceof Error ? cause.message : "the options cannot be read";
    throw new EdgeSyncError("USAGE", `${command.name}: ${problem}`, { cause });
  }
  const { json = false, help = false } = flags;
  const least = command.positionals.filter((place) => !place.startsWith("[")).length;
  const most = command.positionals.length;
  if (!help && (positionals.length < least || positionals.length > most)) {
    const wanted = command.positionals.join(" ");
    throw new EdgeSyncError(
      "USAGE",
      `${command.name} takes ${wanted}, given were ${positionals.length}`,
    );
  }
  return {
    json,
    help,
    arguments: {
      positionals,
      required(option) {
        const value = values.get(option);
        if (value === undefined)
          throw new EdgeSyncError("USAGE", `${command.name} needs --${option}`);
        return value;
      },
      optional: (option) => values.get(option),
    },
  };
}

export function helpOf(command: Command): string {
  const places = command.positionals.map((place) => ` ${place}`).join("");
  const rows = Object.entries({ ...command.options, json: "print the result as one JSON object" });
  const width = Math.max(...rows.map(([name]) => name.length));
  return [
    `edgesync ${command.name}${places} [options]`,
    "",
    command.summary,
    "",
    ...rows.map(([name, help]) => `  --${name.padEnd(width)}  ${help}`),
    "",
    "Example:",
    `  ${command.example}`,
    "",
  ].join("\n");
}
