/** Every command, in the order in which a newcomer needs them. */
import type { Command } from "./command.ts";
import { channelCommands } from "./commands/channel.ts";
import { completionCommand } from "./commands/completion.ts";
import { releaseCommands } from "./commands/release.ts";
import { init, repositoryCommands } from "./commands/repository.ts";

export const COMMANDS: readonly Command[] = [
  init,
  ...releaseCommands,
  ...channelCommands,
  ...repositoryCommands,
  completionCommand(() => COMMANDS),
];
