/** Completion for shells. */
import { oneOf } from "#core/values.ts";
import { CONTROL_COMMANDS } from "#core/control.ts";
import { OFFLINE_COMMANDS, OFFLINE_OPTIONS } from "#core/inject/commands.ts";
import type { Command, Described } from "../command.ts";
import { SHELLS, completionFor } from "../completion.ts";
import { usage } from "./shared.ts";

/** What asks an agent, by the options of its synopsis: those that take a value, and those that take none. */
const CONTROLS: readonly Described[] = CONTROL_COMMANDS.map(({ name, summary, synopsis }) => {
  const found = [...synopsis.matchAll(/--([a-z]+)( <([a-z]+)>)?/g)];
  const those = (isValued: boolean): Readonly<Record<string, string>> =>
    Object.fromEntries(
      found
        .filter(([, option, value]) => option !== "json" && (value !== undefined) === isValued)
        .map(([, option = "", , value = ""]) => [option, value]),
    );
  return { name, summary, positionals: [], options: those(true), flags: those(false) };
});

/** What shows the webhook's decisions, by the table of its help: all that takes a value may be given more than once. */
const OFFLINE: readonly Described[] = OFFLINE_COMMANDS.map(({ name, summary }) => ({
  name,
  summary,
  positionals: [],
  options: {},
  lists: Object.fromEntries(
    OFFLINE_OPTIONS.flatMap(([option, help]) => {
      const [, long, value] = /--([a-z]+)( <)?/.exec(option) ?? [];
      return long === undefined || value === undefined ? [] : [[long, help]];
    }),
  ),
  ...(name === "explain" ? {} : { plain: true as const }),
}));

/** @param commands every command, this one too; asked for when it runs, since the table holds this command itself */
export function completionCommand(commands: () => readonly Command[]): Command {
  return {
    name: "completion",
    summary: "Prints a script that completes edgesync's commands and options in a shell.",
    example: "source <(edgesync completion bash)",
    examples: [
      "edgesync completion zsh > ~/.zsh/completions/_edgesync",
      "edgesync completion fish > ~/.config/fish/completions/edgesync.fish",
    ],
    positionals: [`<${SHELLS.join("|")}>`],
    options: {},
    run({ positionals: [input = ""] }) {
      const known = oneOf(...SHELLS);
      const shell = known.parse(input);
      if (shell === undefined)
        throw usage(`${JSON.stringify(input)} is not a shell; expected ${known.allowed}`);
      const script = completionFor(shell, [...commands(), ...CONTROLS, ...OFFLINE]);
      return Promise.resolve({ lines: script.trimEnd().split("\n"), json: { shell, script } });
    },
  };
}
