/** Commands for channels. */
import { isVersion } from "#core/document.ts";
import { channelRef } from "#core/values.ts";
import { setChannel } from "../channel.ts";
import type { Command } from "../command.ts";
import { openRepository } from "../repository.ts";
import { KEYS, REPOSITORY, REPOSITORY_OPTION, openKeys, usage } from "./shared.ts";

const channelSet: Command = {
  name: "channel set",
  summary:
    "Points a channel at a version, for every platform that has it; sites follow when they next look.",
  example: "edgesync channel set web/stable 1.4.0 --repository ./repository --keys ./keys",
  positionals: ["<app>/<channel>", "<version>"],
  options: { ...REPOSITORY_OPTION, ...KEYS },
  async run(args, shell) {
    const [name = "", version = ""] = args.positionals;
    const reference = channelRef.parse(name);
    if (reference === undefined) throw usage(`${JSON.stringify(name)} is not <app>/<channel>`);
    if (!isVersion(version)) throw usage(`${JSON.stringify(version)} is not a version`);
    const path = args.optional("repository") ?? REPOSITORY;
    const keyring = await openKeys(args, path, shell);
    await using repository = await openRepository(path, shell.now());
    const document = await setChannel(repository, keyring, { ...reference, version }, shell.now());
    return {
      lines: [
        `${name} points to ${version} (sequence ${document.sequence}) for ${document.releases.map((item) => item.platform).join(", ")}`,
      ],
      json: { ...document },
    };
  },
};

export const channelCommands: readonly Command[] = [channelSet];
