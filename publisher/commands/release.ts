/** Commands for the releases of an app. */
import { isPlatform, isVersion } from "#core/document.ts";
import { integer, isAppName } from "#core/values.ts";
import type { Arguments, Command } from "../command.ts";
import { addRelease } from "../release.ts";
import { openRepository } from "../repository.ts";
import { KEYS, REPOSITORY, REPOSITORY_OPTION, openKeys, usage } from "./shared.ts";

const releaseAdd: Command = {
  name: "release add",
  summary:
    "Publishes a folder as a version of an app for a platform, with deltas from earlier releases.",
  example:
    "edgesync release add ./build --repository ./repository --keys ./keys --app web --version 1.4.0 --platform linux-arm64",
  positionals: ["<folder>"],
  options: {
    ...REPOSITORY_OPTION,
    ...KEYS,
    app: "name of the app",
    version: "version; never published twice with another content",
    platform: "<os>-<arch> as Node names them, such as linux-arm64",
    deltas: "from how many of the previous releases to make deltas; 3 when not given",
  },
  async run(args, shell, signal) {
    const [folder = ""] = args.positionals;
    const wanted = { folder, ...releaseName(args), deltas: deltasOf(args.optional("deltas")) };
    const path = args.optional("repository") ?? REPOSITORY;
    const keyring = await openKeys(args, path, shell);
    await using repository = await openRepository(path, shell.now());
    const added = await addRelease(
      repository,
      keyring,
      wanted,
      shell.now(),
      shell.progress,
      signal,
    );
    const { app, version, platform, tree, entries } = added.release;
    return {
      lines: [
        `${added.isNew ? "published" : "unchanged"}  ${app} ${version} ${platform}, ${entries.length} entries, tree ${tree.slice(0, 12)}`,
        ...(added.isNew ? [`full       ${added.fullBytes} bytes`] : []),
        ...added.updates.map(({ from, bytes }) => `from ${from}  ${bytes} bytes`),
      ],
      json: {
        app,
        version,
        platform,
        tree,
        isNew: added.isNew,
        entries: entries.length,
        fullBytes: added.fullBytes,
        updates: added.updates,
      },
    };
  },
};

function releaseName(args: Arguments): { app: string; version: string; platform: string } {
  const app = args.required("app");
  const version = args.required("version");
  const platform = args.required("platform");
  if (!isAppName(app))
    throw usage(`--app must be a lower-case name with a letter in it, not ${JSON.stringify(app)}`);
  if (!isVersion(version))
    throw usage(`--version must be letters, digits and . _ + -, not ${JSON.stringify(version)}`);
  if (!isPlatform(platform))
    throw usage(
      `--platform must be <os>-<arch>, such as linux-arm64, not ${JSON.stringify(platform)}`,
    );
  return { app, version, platform };
}

function deltasOf(input: string | undefined): number {
  const allowed = integer(0, 20);
  const value = input === undefined ? 3 : allowed.parse(input);
  if (value === undefined) throw usage(`--deltas must be ${allowed.allowed}`);
  return value;
}

export const releaseCommands: readonly Command[] = [releaseAdd];
