/** Completion for shells. */
import { oneOf } from "#core/values.ts";
import type { Command } from "../command.ts";
import { SHELLS, completionFor } from "../completion.ts";
import { usage } from "./shared.ts";

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
      const script = completionFor(shell, commands());
      return Promise.resolve({ lines: script.trimEnd().split("\n"), json: { shell, script } });
    },
  };
}
