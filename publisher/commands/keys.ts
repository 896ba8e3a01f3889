/** Commands for private keys. */
import { join } from "node:path";
import type { Command, Result } from "../command.ts";
import { listKeys } from "../key-list.ts";
import type { ListedKey } from "../key-list.ts";
import { rotateKey } from "../rotation.ts";
import { KEY_REFERENCE, TYPE_OPTION, findPublic, typeOf } from "./key-options.ts";
import {
  KEYS,
  REPOSITORY,
  REPOSITORY_OPTION,
  WRITES,
  openKeys,
  openLocked,
  pathOf,
  usage,
} from "./shared.ts";

const NAME = /^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$/;

const keyCreate: Command = {
  name: "key create",
  summary: "Makes a private key, and beside it a file of its public part to give away.",
  example: "edgesync key create alice --keys ./alice",
  positionals: ["<name>"],
  options: { ...KEYS, ...TYPE_OPTION },
  async run(args, shell) {
    const [name = ""] = args.positionals;
    if (!NAME.test(name))
      throw usage(`${JSON.stringify(name)} is not a name of letters, digits and . _ @ + -`);
    const type = typeOf(args);
    const keyring = await openKeys(args, REPOSITORY, shell);
    const { id, where } = await keyring.create(name, type);
    const open = join(keyring.folder, `${name}.pub`);
    return {
      lines: [`private  ${where}`, `public   ${open}`, `key id   ${id}`],
      json: { name, id, type, private: where, public: open },
    };
  },
};

const keyList: Command = {
  name: "key list",
  summary:
    "Lists who signs for what: each role's keys, where they are found, and until when what they have signed holds.",
  example: "edgesync key list --repository ./repository --keys ./keys",
  positionals: [],
  options: { ...REPOSITORY_OPTION, ...KEYS },
  async run(args, shell) {
    const path = pathOf(args);
    const keyring = await openKeys(args, path, shell);
    const { keys, closed } = await listKeys(path, await keyring.load());
    return {
      lines: [...table(keys), ...closed.map(({ problem }) => problem.message)],
      json: {
        keys,
        closed: closed.map(({ name, where, problem }) => ({
          name,
          where,
          problem: problem.message,
        })),
      },
    };
  },
};

function table(keys: readonly ListedKey[]): readonly string[] {
  const rows = [
    ["ROLE", "KEY", "NAME", "TYPE", "SIGNED UNTIL", "WHERE"],
    ...keys.map(({ role, id, name, type, expires, where }) => [
      role ?? "(none)",
      id.slice(0, 12),
      name ?? "",
      type,
      expires ?? "",
      where ?? "not here",
    ]),
  ];
  const widths = rows[0]?.map((_, column) =>
    Math.max(...rows.map((row) => row[column]?.length ?? 0)),
  );
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths?.[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
}

const keyRotate: Command = {
  name: "key rotate",
  summary:
    "Gives a role a new key in place of an old one, and signs anew what the old one had signed. Needs the keys of the delegator: root's, or for an app or a channel those of targets.",
  example: "edgesync key rotate timestamp --repository ./repository --keys ./keys",
  positionals: ["<role>"],
  options: {
    ...WRITES,
    ...TYPE_OPTION,
    replace:
      "the key that goes, by its name or the first letters of its id; needed when there are several",
    with: `the key that comes, instead of a new one; ${KEY_REFERENCE}`,
  },
  async run(args, shell, signal): Promise<Result> {
    const [role = ""] = args.positionals;
    const path = pathOf(args);
    const keyring = await openKeys(args, path, shell);
    const reference = args.optional("with");
    const given =
      reference === undefined ? undefined : await findPublic(await keyring.load(), reference);
    await using repository = await openLocked(args, shell, signal);
    const rotation = { role, replace: args.optional("replace"), key: given, type: typeOf(args) };
    const { key, signed } = await rotateKey(repository, keyring, rotation, shell.now());
    return {
      lines: [
        `role ${role} has the new key ${key.name} (${key.id.slice(0, 12)})`,
        signed.length > 0
          ? `signed anew: ${signed.join(", ")}`
          : "an earlier run had done it, and died before it could say so",
        "no site needs the old key any more: delete it, or keep it out of reach",
      ],
      json: { role, key: { id: key.id, name: key.name, type: key.key.keytype }, signed },
    };
  },
};

export const keyCommands: readonly Command[] = [keyCreate, keyList, keyRotate];
