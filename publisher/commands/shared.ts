/** What the commands have in common: where things lie when nothing is said, and how keys are opened. */
import { EdgeSyncError } from "#core/errors.ts";
import type { Arguments, Shell } from "../command.ts";
import { refuseKeysInside } from "../keys.ts";
import type { Keyring } from "../keys.ts";

/** Side by side in the working folder, so that a first try needs no options. */
export const REPOSITORY = "repository";
export const KEYS_FOLDER = "keys";

export const KEYS = {
  keys: `folder of private keys, outside the repository; ./${KEYS_FOLDER} when not given`,
  "passphrase-file":
    "file whose first line is the passphrase of the keys (else EDGESYNC_PASSPHRASE)",
};

/** The option that names a repository. */
export const REPOSITORY_OPTION = {
  repository: `folder that init made; ./${REPOSITORY} when not given`,
};

export async function openKeys(
  args: Arguments,
  repository: string,
  shell: Shell,
): Promise<Keyring> {
  const keyring = await shell.keyring(
    args.optional("keys") ?? KEYS_FOLDER,
    args.optional("passphrase-file"),
  );
  await refuseKeysInside(repository, keyring.folder);
  return keyring;
}

export function usage(message: string): EdgeSyncError {
  return new EdgeSyncError("USAGE", message);
}
