/** Every command, in the order in which a newcomer needs them. */
import type { Command } from "./command.ts";
import { bundleCommands } from "./commands/bundle.ts";
import { channelCommands } from "./commands/channel.ts";
import { completionCommand } from "./commands/completion.ts";
import { deltaToolCommands } from "./commands/delta-tool.ts";
import { deltaCommands } from "./commands/delta.ts";
import { init } from "./commands/init.ts";
import { keyCommands } from "./commands/keys.ts";
import { ociCommands } from "./commands/oci.ts";
import { releaseCommands } from "./commands/release.ts";
import { repositoryCommands } from "./commands/repository.ts";
import { roleCommands } from "./commands/role.ts";
import { rootCommands } from "./commands/root.ts";
import { secretCommands } from "./commands/secret.ts";
import { templateCommands } from "./commands/template.ts";
import { upkeepCommands } from "./commands/upkeep.ts";

export const COMMANDS: readonly Command[] = [
  init,
  ...releaseCommands,
  ...channelCommands,
  ...deltaCommands,
  ...deltaToolCommands,
  ...upkeepCommands,
  ...ociCommands,
  ...repositoryCommands,
  ...keyCommands,
  ...roleCommands,
  ...rootCommands,
  ...bundleCommands,
  ...secretCommands,
  ...templateCommands,
  completionCommand(() => COMMANDS),
];
