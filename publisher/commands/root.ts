/** Commands for the root: what sites trust, changed only with the signatures of those who hold its keys. */
import {
  ceremonyJson,
  describeCeremony,
  describePublished,
  mergeCeremony,
  publishedJson,
  refuseIncomplete,
  signCeremony,
} from "../ceremony.ts";
import type { Ceremony } from "../ceremony.ts";
import type { Arguments, Command, Result } from "../command.ts";
import { completeRepository, isBegun } from "../init.ts";
import type { Keyring } from "../keys.ts";
import { TOP_ROLES, isTopRole, nextRoot, readRoot } from "../metadata.ts";
import type { Root, TopRole } from "../metadata.ts";
import { editRoot } from "../role-keys.ts";
import type { RoleEdit } from "../role-keys.ts";
import { isSameRoot, keyForRotation, publishRoot, replacedKey } from "../rotation.ts";
import { loadRoot } from "../state.ts";
import {
  KEY_REFERENCE,
  TYPE_OPTION,
  byRole,
  findPublic,
  readCeremony,
  readGiven,
  refuseExisting,
  thresholdOf,
  typeOf,
  writeCeremony,
} from "./key-options.ts";
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

function shown(file: string, ceremony: Ceremony): Result {
  return {
    lines: describeCeremony(ceremony),
    json: { file, ...ceremonyJson(ceremony) },
  };
}

const rootShow: Command = {
  name: "root show",
  summary:
    "Shows the root of a repository, or a file of root prepare: versions, thresholds, who has signed and who is missing.",
  example: "edgesync root show root.2.json",
  positionals: ["[<file>]"],
  options: REPOSITORY_OPTION,
  async run(args) {
    const [file] = args.positionals;
    if (file === undefined) {
      const root = await loadRoot(pathOf(args));
      return { lines: describePublished(root), json: publishedJson(root) };
    }
    const bytes = await readGiven(file);
    if (isMetadata(bytes)) {
      const root = readRoot(bytes);
      return { lines: describePublished(root), json: { file, ...publishedJson(root) } };
    }
    return shown(file, await readCeremony(file));
  },
};

function isMetadata(bytes: Buffer): boolean {
  try {
    const json: unknown = JSON.parse(bytes.toString());
    return typeof json === "object" && json !== null && "signed" in json;
  } catch {
    // Whoever reads it as something else says what is wrong.
    return false;
  }
}

const rootPrepare: Command = {
  name: "root prepare",
  summary:
    "Writes the next root, unsigned, to a file that is carried to those who sign it. Without options only its expiry is new.",
  example: "edgesync root prepare root.2.json --remove root=carol --add root=./dave.pub",
  positionals: ["[<file>]"],
  options: { ...REPOSITORY_OPTION, ...KEYS, ...TYPE_OPTION },
  lists: {
    add: `<role>=<key>: one more key of a role; ${KEY_REFERENCE}`,
    remove: "<role>=<key>: a key of a role, by its name or the first letters of its id",
    rotate: "a role with one key, which a new one replaces; it is made in the keys folder",
    threshold: "<role>=<number>: how many of the role's keys have to sign",
  },
  async run(args, shell) {
    const path = pathOf(args);
    const previous = await loadRoot(path);
    const before = previous.signed;
    const [file = `root.${before.version + 1}.json`] = args.positionals;
    await refuseExisting(file);
    const edits = await editsOf(args, before, await openKeys(args, path, shell));
    const next = nextRoot(before, editRoot(before, edits), shell.now());
    const ceremony: Ceremony = { previous, next: { signed: next, signatures: [] } };
    await writeCeremony(file, ceremony);
    return shown(file, ceremony);
  },
};

async function editsOf(
  args: Arguments,
  before: Root,
  keyring: Keyring,
): Promise<ReadonlyMap<TopRole, RoleEdit>> {
  const edits = new Map<TopRole, RoleEdit>();
  const edit = (role: TopRole, more: Partial<RoleEdit>): void => {
    const { add, remove, threshold } = edits.get(role) ?? NO_EDIT;
    edits.set(role, {
      add: [...add, ...(more.add ?? [])],
      remove: [...remove, ...(more.remove ?? [])],
      threshold: more.threshold ?? threshold,
    });
  };
  const set = await keyring.load();
  for (const [role, references] of byRole(args, "add"))
    edit(role, { add: await Promise.all(references.map((item) => findPublic(set, item))) });
  for (const [role, remove] of byRole(args, "remove")) edit(role, { remove });
  for (const [role, numbers] of byRole(args, "threshold"))
    edit(role, { threshold: thresholdOf("threshold", numbers.at(-1) ?? "") });
  // Last: a key is made only when everything else is in order.
  for (const role of args.all("rotate")) {
    if (!isTopRole(role))
      throw usage(`--rotate must be one of ${TOP_ROLES.join(", ")}, not ${JSON.stringify(role)}`);
    const old = replacedKey(role, before.roles[role], before.keys, undefined);
    const key = await keyForRotation(keyring, role, before.version + 1, typeOf(args));
    edit(role, { add: [key], remove: [old] });
  }
  return edits;
}

const NO_EDIT: RoleEdit = { add: [], remove: [], threshold: undefined };

const rootSign: Command = {
  name: "root sign",
  summary:
    "Signs a file of root prepare with the keys that are here. It needs neither the repository nor a network.",
  example: "edgesync root sign root.2.json --keys ./alice",
  positionals: ["<file>"],
  options: { ...KEYS, out: "where the signed copy is written; the file itself when not given" },
  async run(args, shell) {
    const [file = ""] = args.positionals;
    const keyring = await openKeys(args, REPOSITORY, shell);
    const signed = await signCeremony(await readCeremony(file), await keyring.load());
    const out = args.optional("out") ?? file;
    await writeCeremony(out, signed);
    return shown(out, signed);
  },
};

const rootMerge: Command = {
  name: "root merge",
  summary: "Takes the signatures from copies of a file of root prepare, in any order.",
  example: "edgesync root merge root.2.json ./from-alice/root.2.json",
  positionals: ["<file>", "<copy>", "[<copy>]", "[<copy>]", "[<copy>]"],
  options: {},
  async run(args) {
    const [file = "", ...copies] = args.positionals;
    let ceremony = await readCeremony(file);
    for (const copy of copies) ceremony = mergeCeremony(ceremony, await readCeremony(copy));
    await writeCeremony(file, ceremony);
    return shown(file, ceremony);
  },
};

const rootPublish: Command = {
  name: "root publish",
  summary:
    "Publishes a root that has its signatures, and signs anew what its new keys have to sign. Sites follow by themselves.",
  example: "edgesync root publish root.2.json --repository ./repository --keys ./keys",
  positionals: ["<file>"],
  options: WRITES,
  async run(args, shell, signal) {
    const [file = ""] = args.positionals;
    const ceremony = await readCeremony(file);
    refuseIncomplete(ceremony);
    const path = pathOf(args);
    const keyring = await openKeys(args, path, shell);
    const { version } = ceremony.next.signed;
    const said = (signed: readonly string[]): Result => ({
      lines: [
        `published   root ${version}`,
        ...(signed.length > 0 ? [`signed anew ${signed.join(", ")}`] : []),
      ],
      json: { version, signed },
    });
    if (ceremony.previous === undefined && (await isBegun(path))) {
      await completeRepository(path, await keyring.load(), ceremony.next, shell.now());
      return said(["targets", "snapshot", "timestamp"]);
    }
    await using repository = await openLocked(args, shell, signal);
    // Also when somebody who died has published it, which opening the repository has completed.
    if (isSameRoot(repository.root.signed, ceremony.next.signed)) return said([]);
    if (
      ceremony.previous === undefined ||
      !isSameRoot(repository.root.signed, ceremony.previous.signed)
    )
      throw usage(
        `${file} does not follow root ${repository.root.signed.version} of ${path}; prepare it again`,
      );
    const set = await keyring.load();
    return said(await publishRoot(repository, set, ceremony.next, shell.now()));
  },
};

export const rootCommands: readonly Command[] = [
  rootShow,
  rootPrepare,
  rootSign,
  rootMerge,
  rootPublish,
];
