/** Commands for the roles that the repository delegates to: each app's and each channel's. */
import { roleJson } from "../ceremony.ts";
import type { Command } from "../command.ts";
import { describeKeys, requireRole } from "../role-keys.ts";
import { changeRole } from "../rotation.ts";
import { KEY_REFERENCE, findPublic, thresholdOf } from "./key-options.ts";
import {
  REPOSITORY_OPTION,
  WRITES,
  openKeys,
  openLocked,
  openToRead,
  pathOf,
  usage,
} from "./shared.ts";

const roleShow: Command = {
  name: "role show",
  summary: "Shows who signs for an app or a channel, for what, and how many of them have to.",
  example: "edgesync role show app.web --repository ./repository",
  positionals: ["[<role>]"],
  options: REPOSITORY_OPTION,
  async run(args) {
    const [name] = args.positionals;
    const state = await openToRead(args);
    const targets = state.targets.signed;
    const { keys = {}, roles = [] } = targets.delegations ?? {};
    const shown = name === undefined ? roles : [requireRole(targets, name)];
    const expiryOf = (role: string): string | null => state.roles.get(role)?.signed.expires ?? null;
    return {
      lines: shown.flatMap((role) => [
        `${role.name}: ${role.threshold} of ${role.keyids.length}: ${describeKeys(role, keys)}`,
        `  for ${role.paths.join(", ")}, expires ${expiryOf(role.name)}`,
      ]),
      json: {
        roles: shown.map((role) => ({
          name: role.name,
          ...roleJson(role, keys),
          paths: role.paths,
          expires: expiryOf(role.name),
        })),
      },
    };
  },
};

const roleChange: Command = {
  name: "role change",
  summary:
    "Changes who signs for an app or a channel, and how many of them have to. Needs the keys of targets, and enough of the role's new ones.",
  example:
    "edgesync role change channel.web.stable --add ./alice.pub --add ./bob.pub --threshold 2",
  positionals: ["<role>"],
  options: {
    ...WRITES,
    threshold: "how many of the role's keys have to sign; as it was when not given",
  },
  lists: {
    add: `one more key; ${KEY_REFERENCE}`,
    remove: "a key of the role, by its name or the first letters of its id",
  },
  async run(args, shell, signal) {
    const [name = ""] = args.positionals;
    const number = args.optional("threshold");
    const path = pathOf(args);
    const keyring = await openKeys(args, path, shell);
    const set = await keyring.load();
    const edit = {
      add: await Promise.all(args.all("add").map((item) => findPublic(set, item))),
      remove: args.all("remove"),
      threshold: number === undefined ? undefined : thresholdOf("threshold", number),
    };
    if (edit.add.length === 0 && edit.remove.length === 0 && number === undefined)
      throw usage("role change needs --add, --remove or --threshold");
    await using repository = await openLocked(args, shell, signal);
    const signed = await changeRole(repository, set, name, edit, shell.now());
    return {
      lines: [`role ${name} is changed`, `signed anew: ${signed.join(", ")}`],
      json: { role: name, signed },
    };
  },
};

export const roleCommands: readonly Command[] = [roleShow, roleChange];
