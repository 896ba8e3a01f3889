/** Commands without a process of their own: a tenth of the time, and their errors as values. */
import assert from "node:assert/strict";
import { parseArguments } from "../../publisher/command.ts";
import type { Result } from "../../publisher/command.ts";
import { COMMANDS } from "../../publisher/commands.ts";
import { openKeyring } from "../../publisher/keys.ts";
import { silent } from "../../publisher/work.ts";
import { never } from "./world.ts";

export interface ShellOptions {
  readonly now?: number;
  readonly passphrase?: string;
  /** Keys of the environment. */
  readonly environment?: Readonly<Record<string, string>>;
}

/** @param line words of the command and its arguments, all paths absolute */
export async function run(
  line: readonly string[],
  { now = Date.now(), passphrase, environment = {} }: ShellOptions = {},
): Promise<Result> {
  const command = COMMANDS.find(({ name }) =>
    name.split(" ").every((word, index) => line[index] === word),
  );
  assert.ok(command, line.join(" "));
  const parsed = parseArguments(command, line.slice(command.name.split(" ").length));
  const shell = {
    now: () => now,
    keyring: (folder: string) =>
      Promise.resolve(openKeyring(folder, passphrase, { environment, signal: never })),
    environment,
    progress: silent,
    announce: () => undefined,
  };
  const result = await command.run(parsed.arguments, shell, never);
  assert.ok(result);
  return result;
}
