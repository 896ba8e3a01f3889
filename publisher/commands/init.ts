/** The first command. */
import { signCeremony, isComplete, ceremonyJson, describeCeremony } from "../ceremony.ts";
import type { Command } from "../command.ts";
import { beginRepository, completeRepository, rootPath } from "../init.ts";
import type { Plan } from "../init.ts";
import type { TopRole } from "../metadata.ts";
import type { PublicKey } from "../public-keys.ts";
import {
  KEY_REFERENCE,
  TYPE_OPTION,
  byRole,
  findPublic,
  refuseExisting,
  thresholdOf,
  typeOf,
  writeCeremony,
} from "./key-options.ts";
import { KEYS, REPOSITORY, openKeys } from "./shared.ts";

export const init: Command = {
  name: "init",
  summary:
    "Makes a repository to be served and, apart from it, a folder of private keys; when the root's keys are elsewhere, a first root for their holders to sign.",
  example: "edgesync init ./repository --keys ./keys",
  positionals: ["[<repository>]"],
  options: {
    ...KEYS,
    ...TYPE_OPTION,
    out: "where the first root is written when signatures are missing; ./root.1.json when not given",
  },
  lists: {
    key: `<role>=<key>: a key that exists, instead of a new one; ${KEY_REFERENCE}`,
    threshold: "<role>=<number>: how many of the role's keys have to sign; 1 when not given",
  },
  async run(args, shell) {
    const [repository = REPOSITORY] = args.positionals;
    const out = args.optional("out") ?? "root.1.json";
    const keyring = await openKeys(args, repository, shell);
    const set = await keyring.load();
    const keys: Partial<Record<TopRole, readonly PublicKey[]>> = {};
    for (const [role, references] of byRole(args, "key"))
      keys[role] = await Promise.all(references.map((item) => findPublic(set, item)));
    const thresholds: Partial<Record<TopRole, number>> = {};
    for (const [role, numbers] of byRole(args, "threshold"))
      thresholds[role] = thresholdOf("threshold", numbers.at(-1) ?? "");
    const plan: Plan = { keys, thresholds, type: typeOf(args) };
    if (keys.root !== undefined) await refuseExisting(out);
    const next = await beginRepository(repository, keyring, plan, shell.now());
    const lines = [
      `repository  ${repository}`,
      `keys        ${keyring.folder} (never served; keep root.pem offline)`,
    ];
    const json = { repository, keys: keyring.folder };
    if (next !== undefined) {
      const mine = await keyring.load();
      const unsigned = { previous: undefined, next };
      const isHere = next.signed.roles.root.keyids.some((id) =>
        mine.keys.some((key) => key.id === id),
      );
      const ceremony = isHere ? await signCeremony(unsigned, mine) : unsigned;
      if (!isComplete(ceremony)) {
        await writeCeremony(out, ceremony);
        return {
          lines: [
            `repository  ${repository}, begun`,
            `keys        ${keyring.folder} (never served)`,
            ...describeCeremony(ceremony),
            `next        root sign ${out} where the keys are, root merge, then root publish ${out}`,
          ],
          json: { ...json, file: out, ceremony: ceremonyJson(ceremony) },
        };
      }
      await completeRepository(repository, mine, ceremony.next, shell.now());
    }
    const root = rootPath(repository);
    return {
      lines: [...lines, `trust root  ${root} (give this to your sites)`],
      json: { ...json, root },
    };
  },
};
