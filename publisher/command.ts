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
  /** Variables of the process; they may hold credentials. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly progress: Progress;
  /** Says something at once; for commands that go on after it. */
  announce(result: Result): void;
}

/** What a command has to say: lines for people, or the same as one JSON object. */
export interface Result {
  readonly lines: readonly string[];
  readonly json: Readonly<Record<string, unknown>>;
  /** Printed as they are, in place of the lines. */
  readonly bytes?: Uint8Array;
  /** Exit status when not 0. */
  readonly exit?: number;
}

export interface Arguments {
  readonly positionals: readonly string[];
  /** @throws EdgeSyncError USAGE when it was not given */
  required(option: string): string;
  optional(option: string): string | undefined;
  /** Every value of an option that may be given more than once, in order. */
  all(option: string): readonly string[];
  /** Whether an option that takes no value was given. */
  flag(option: string): boolean;
}

export interface Command {
  /** Words that choose it, such as `release add`. */
  readonly name: string;
  /** One sentence. */
  readonly summary: string;
  readonly example: string;
  /** Further examples. */
  readonly examples?: readonly string[];
  /** What a person should know before using it, in a few sentences. */
  readonly notes?: string;
  /** What is given in order, such as `<folder>`; in brackets what may be left out, at the end; with dots the last one, of which there may be many. */
  readonly positionals: readonly string[];
  /** Options that take a value, each with its sentence. */
  readonly options: Readonly<Record<string, string>>;
  /** Options that take a value and may be given more than once, each with its sentence. */
  readonly lists?: Readonly<Record<string, string>>;
  /** Options that take no value, each with its sentence. */
  readonly flags?: Readonly<Record<string, string>>;
  run(args: Arguments, shell: Shell, signal: AbortSignal): Promise<Result | undefined>;
}

/** A command as far as it is told of. */
export type Described = Pick<
  Command,
  "name" | "summary" | "positionals" | "options" | "lists" | "flags"
> & {
  /** One of another program, which prints no JSON. */
  readonly plain?: true;
};

export interface Parsed {
  readonly arguments: Arguments;
  readonly json: boolean;
  readonly help: boolean;
}

/** @throws EdgeSyncError USAGE */
export function parseArguments(command: Command, args: readonly string[]): Parsed {
  const values = new Map<string, readonly string[]>();
  const given = new Set<string>();
  let flags: { readonly json?: boolean; readonly help?: boolean };
  let positionals: readonly string[];
  try {
    const all = { ...command.options, ...command.lists };
    const options = Object.fromEntries(
      Object.keys(all).map((name) => [
        name,
        { type: "string" as const, multiple: true, ...(name === "output" && { short: "o" }) },
      ]),
    );
    const switches = Object.fromEntries(
      Object.keys(command.flags ?? {}).map((name) => [name, { type: "boolean" as const }]),
    );
    const json = { type: "boolean" as const };
    const help = { type: "boolean" as const, short: "h" };
    const parsed = parseArgs({
      args: [...args],
      options: { ...options, ...switches, json, help },
      allowPositionals: true,
    });
    for (const [name, value] of Object.entries(parsed.values))
      if (Array.isArray(value)) values.set(name, value.map(String));
      else if (value) given.add(name);
    flags = { json: parsed.values.json === true, help: parsed.values.help === true };
    ({ positionals } = parsed);
  } catch (cause) {
    const problem = cause instanceof Error ? cause.message : "the options cannot be read";
    throw new EdgeSyncError("USAGE", `${command.name}: ${problem.replace(/\.$/, "")}`, { cause });
  }
  for (const name of Object.keys(command.options))
    if ((values.get(name) ?? []).length > 1)
      throw new EdgeSyncError("USAGE", `${command.name} takes --${name} once`);
  // An unset variable of a script: as a path, an empty text would mean the working folder.
  if (positionals.includes(""))
    throw new EdgeSyncError(
      "USAGE",
      `${command.name}: an argument is empty; expected ${command.positionals.join(" ")}`,
    );
  for (const [name, given] of values)
    if (given.includes(""))
      throw new EdgeSyncError("USAGE", `${command.name}: --${name} is empty; expected a value`);
  const { json = false, help = false } = flags;
  const least = command.positionals.filter((place) => !place.startsWith("[")).length;
  const isOpen = command.positionals.at(-1)?.endsWith("…") === true;
  const most = isOpen ? Number.POSITIVE_INFINITY : command.positionals.length;
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
        const value = values.get(option)?.[0];
        if (value === undefined)
          throw new EdgeSyncError("USAGE", `${command.name} needs --${option}`);
        return value;
      },
      optional: (option) => values.get(option)?.[0],
      all: (option) => values.get(option) ?? [],
      flag: (option) => given.has(option),
    },
  };
}

export interface OptionRow {
  readonly name: string;
  readonly help: string;
  readonly takesValue: boolean;
  readonly repeated: boolean;
}

/** What a command takes besides its positionals; every command takes `--help`, and `--json` where it is not plain. */
export function optionRows({
  options,
  lists = {},
  flags = {},
  plain,
}: Described): readonly OptionRow[] {
  const rows = (
    table: Readonly<Record<string, string>>,
    takesValue: boolean,
    repeated: boolean,
  ): readonly OptionRow[] =>
    Object.entries(table).map(([name, help]) => ({ name, help, takesValue, repeated }));
  const common = {
    ...(plain === true ? {} : { json: "print the result as one JSON object" }),
    help: "print this and do nothing",
  };
  return [
    ...rows(options, true, false),
    ...rows(lists, true, true),
    ...rows(flags, false, false),
    ...rows(common, false, false),
  ];
}

/** How a command is called, without its options. */
export function synopsisOf({ name, positionals }: Command): string {
  return ["edgesync", name, ...positionals].join(" ");
}

/** @param width columns at which help is wrapped */
export function helpOf(command: Command, width = 100): string {
  const rows = optionRows(command).map((row) => ({
    left: `--${row.name}${row.takesValue ? " …" : ""}`,
    right: row.repeated ? `${row.help}; may be given more than once` : row.help,
  }));
  const column = Math.max(...rows.map(({ left }) => left.length));
  const { summary, notes, example, examples = [] } = command;
  return [
    `${synopsisOf(command)} [options]`,
    "",
    wrap(summary, width, ""),
    "",
    ...(notes === undefined ? [] : [wrap(notes, width, ""), ""]),
    ...rows.map(
      ({ left, right }) =>
        `  ${left.padEnd(column)}  ${wrap(right, width - column - 4, " ".repeat(column + 4))}`,
    ),
    "",
    examples.length === 0 ? "Example:" : "Examples:",
    ...[example, ...examples].map((line) => `  ${line}`),
    "",
  ].join("\n");
}

function wrap(text: string, width: number, indent: string): string {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, line].join(`\n${indent}`);
}
