/** What the commands have in common: where things lie when nothing is said, and how keys are opened. */
import { resolve } from "node:path";
import { isVersion } from "#core/document.ts";
import { EdgeSyncError } from "#core/errors.ts";
import { PLATFORM_FORM, platformMeant } from "../platform.ts";
import { duration, isAppName } from "#core/values.ts";
import type { Arguments, Shell } from "../command.ts";
import { refuseNoFolder } from "../files.ts";
import { refuseKeysInside } from "../keys.ts";
import type { Keyring } from "../keys.ts";
import type { Waiting } from "../lock.ts";
import { DAY_MS } from "../metadata.ts";
import { openRepository, viewRepository } from "../repository.ts";
import type { Repository, View } from "../repository.ts";

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

/** For commands that write. */
export const WAIT = {
  wait: "how long to wait for another publisher, such as 30s or 10m; not at all when not given",
};

/** For commands that sign and write. */
export const WRITES = { ...REPOSITORY_OPTION, ...KEYS, ...WAIT };

/** @param path when it is not an option of the command */
export async function openLocked(
  args: Arguments,
  shell: Shell,
  signal: AbortSignal,
  path = pathOf(args),
): Promise<Repository> {
  return await openRepository(path, shell.now(), waitOf(args, signal));
}

export async function openToRead(args: Arguments): Promise<View> {
  return await viewRepository(pathOf(args));
}

export function pathOf(args: Arguments): string {
  return args.optional("repository") ?? REPOSITORY;
}

/**
 * The repository of a command that takes it as an argument, or as the others do.
 *
 * @throws EdgeSyncError USAGE when both are given and differ
 */
export function placeOf(args: Arguments): string {
  const [given] = args.positionals;
  const option = args.optional("repository");
  if (given !== undefined && option !== undefined && resolve(given) !== resolve(option))
    throw usage(`the repository is given as ${given} and as --repository ${option}; expected one`);
  return given ?? option ?? REPOSITORY;
}

/** A number of things: `1 file`, `2 files`. */
export function countOf(count: number, thing: string): string {
  return `${count} ${thing}${count === 1 ? "" : "s"}`;
}

export function waitOf(args: Arguments, signal: AbortSignal): Waiting | undefined {
  const input = args.optional("wait");
  return input === undefined ? undefined : { ms: durationOf("wait", input), signal };
}

const CLOCK = duration("0s", "87600h");

/** Milliseconds of a duration, in which days are allowed too: `7d`, `1d12h`, `90m`; undefined for anything else. */
export function milliseconds(input: string): number | undefined {
  const [, days = "0", rest = ""] = /^(?:(\d{1,4})d)?(.*)$/.exec(input) ?? [];
  if (input === "") return undefined;
  const clock = rest === "" ? 0 : CLOCK.parse(rest);
  return clock === undefined ? undefined : Number(days) * DAY_MS + clock;
}

/** @throws EdgeSyncError USAGE */
export function durationOf(option: string, input: string): number {
  const ms = milliseconds(input);
  if (ms === undefined)
    throw usage(
      `--${option} must be a duration such as 30s, 10m, 12h or 7d, not ${JSON.stringify(input)}`,
    );
  return ms;
}

/** @throws EdgeSyncError USAGE */
export function appOf(input: string, what = "the app"): string {
  if (!isAppName(input))
    throw usage(
      `${what} must be a lower-case name with a letter in it, not ${JSON.stringify(input)}`,
    );
  return input;
}

/** @throws EdgeSyncError USAGE */
export function versionOf(input: string, what = "the version"): string {
  if (!isVersion(input))
    throw usage(`${what} must be letters, digits and . _ + -, not ${JSON.stringify(input)}`);
  return input;
}

/** @throws EdgeSyncError USAGE */
export function platformOf(input: string, what = "--platform"): string {
  const meant = platformMeant(input);
  if (meant === input) return input;
  const said = `${what} is ${JSON.stringify(input)}`;
  throw usage(
    meant === undefined ? `${said}; expected ${PLATFORM_FORM}` : `${said}; sites call it ${meant}`,
  );
}

export async function openKeys(
  args: Arguments,
  repository: string,
  shell: Shell,
): Promise<Keyring> {
  const keyring = await shell.keyring(
    args.optional("keys") ?? KEYS_FOLDER,
    args.optional("passphrase-file"),
  );
  await refuseNoFolder(keyring.folder, "the folder of private keys");
  await refuseKeysInside(repository, keyring.folder);
  return keyring;
}

/** An option's value that is none. */
export function unfit(option: string, given: string | undefined, allowed: string): EdgeSyncError {
  return usage(`--${option} is ${JSON.stringify(given ?? "")}; expected ${allowed}`);
}

export function usage(message: string): EdgeSyncError {
  return new EdgeSyncError("USAGE", message);
}
