/** What each command does with its arguments. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { ERRORS, EdgeSyncError } from "#core/errors.ts";
import { isPlatform, isVersion } from "#core/release.ts";
import { channelRef, integer, isAppName } from "#core/values.ts";
import { setChannel } from "./channel.ts";
import type { Arguments, Command, Shell } from "./command.ts";
import { deltaCommands } from "./commands/delta.ts";
import { initRepository } from "./init.ts";
import { refuseKeysInside } from "./keys.ts";
import type { Keyring } from "./keys.ts";
import { refusePrivateKeys } from "./private-keys.ts";
import { renew } from "./publish.ts";
import { addRelease } from "./release.ts";
import { openRepository } from "./repository.ts";
import { serve } from "./serve.ts";
import { verifyRepository } from "./verify.ts";

/** Side by side in the working folder, so that a first try needs no options. */
const REPOSITORY = "repository";
const KEYS_FOLDER = "keys";

const KEYS = {
  keys: `folder of private keys, outside the repository; ./${KEYS_FOLDER} when not given`,
  "passphrase-file":
    "file whose first line is the passphrase of the keys (else EDGESYNC_PASSPHRASE)",
};

async function openKeys(args: Arguments, repository: string, shell: Shell): Promise<Keyring> {
  const keyring = await shell.keyring(
    args.optional("keys") ?? KEYS_FOLDER,
    args.optional("passphrase-file"),
  );
  await refuseKeysInside(repository, keyring.folder);
  return keyring;
}

function usage(message: string): EdgeSyncError {
  return new EdgeSyncError("USAGE", message);
}

const init: Command = {
  name: "init",
  summary: "Makes a repository to be served and, apart from it, a folder of private keys.",
  example: "edgesync init ./repository --keys ./keys",
  positionals: ["[<repository>]"],
  options: KEYS,
  async run(args, shell) {
    const [repository = REPOSITORY] = args.positionals;
    const keyring = await shell.keyring(
      args.optional("keys") ?? KEYS_FOLDER,
      args.optional("passphrase-file"),
    );
    const root = await initRepository(repository, keyring, shell.now());
    return {
      lines: [
        `repository  ${repository}`,
        `keys        ${keyring.folder} (never served; keep root.pem offline)`,
        `trust root  ${root} (give this to your sites)`,
      ],
      json: { repository, keys: keyring.folder, root },
    };
  },
};

const releaseAdd: Command = {
  name: "release add",
  summary:
    "Publishes a folder as a version of an app for a platform, with deltas from earlier releases.",
  example:
    "edgesync release add ./build --repository ./repository --keys ./keys --app web --version 1.4.0 --platform linux-arm64",
  positionals: ["<folder>"],
  options: {
    repository: `folder that init made; ./${REPOSITORY} when not given`,
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

const channelSet: Command = {
  name: "channel set",
  summary:
    "Points a channel at a version, for every platform that has it; sites follow when they next look.",
  example: "edgesync channel set web/stable 1.4.0 --repository ./repository --keys ./keys",
  positionals: ["<app>/<channel>", "<version>"],
  options: { repository: `folder that init made; ./${REPOSITORY} when not given`, ...KEYS },
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

const renewCommand: Command = {
  name: "renew",
  summary:
    "Signs the timestamp anew, and whatever else is in the last third of its life and has its key here. Run it daily.",
  example: "edgesync renew ./repository --keys ./keys",
  positionals: ["[<repository>]"],
  options: KEYS,
  async run(args, shell) {
    const [path = REPOSITORY] = args.positionals;
    const keyring = await openKeys(args, path, shell);
    await using repository = await openRepository(path, shell.now());
    const renewed = await renew(repository, keyring, shell.now());
    return { lines: [`signed anew: ${renewed.join(", ")}`], json: { renewed } };
  },
};

const serveCommand: Command = {
  name: "serve",
  summary:
    "Serves a repository for trying out; any static web server or object store does in earnest.",
  example: "edgesync serve ./repository --port 8443 --tls-cert server.crt --tls-key server.key",
  positionals: ["[<repository>]"],
  options: {
    host: "address to listen on; 127.0.0.1 when not given",
    port: "port to listen on, 0 for any; 8080 when not given",
    "tls-cert": "PEM certificate chain; with --tls-key, serves HTTPS",
    "tls-key": "PEM private key, outside the repository",
  },
  async run(args, shell, signal) {
    const [root = REPOSITORY] = args.positionals;
    await refusePrivateKeys(root, signal).catch((error: unknown) => {
      throw notAFolder(error, root);
    });
    const number = integer(0, 65_535);
    const port = number.parse(args.optional("port") ?? "8080");
    if (port === undefined) throw usage(`--port must be ${number.allowed}`);
    const [cert, key] = [args.optional("tls-cert"), args.optional("tls-key")];
    if ((cert === undefined) !== (key === undefined))
      throw usage("--tls-cert and --tls-key are given together or not at all");
    const tls =
      cert === undefined || key === undefined
        ? undefined
        : { cert: await readOption("tls-cert", cert), key: await readOption("tls-key", key) };
    await using serving = await serve({
      root,
      host: args.optional("host") ?? "127.0.0.1",
      port,
      tls,
    });
    shell.announce({
      lines: [`serving ${root} at ${serving.url}`],
      json: { repository: root, url: serving.url },
    });
    if (!signal.aborted)
      await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
    return undefined;
  },
};

function notAFolder(error: unknown, path: string): unknown {
  if (error instanceof EdgeSyncError || !(error instanceof Error)) return error;
  return new EdgeSyncError("REPOSITORY_INVALID", `${path} cannot be read as a folder`, {
    cause: error,
  });
}

async function readOption(option: string, path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (cause) {
    throw new EdgeSyncError("CONFIG_INVALID", `--${option}: ${path} cannot be read`, { cause });
  }
}

const verify: Command = {
  name: "verify",
  summary: "Walks a repository as a client would, and checks every channel, manifest and blob.",
  example: "edgesync verify ./repository --root ./root.json",
  positionals: ["[<repository>]"],
  options: { root: "trust root that sites have; the repository's first one when not given" },
  async run(args, shell, signal) {
    const [path = REPOSITORY] = args.positionals;
    const rootFile = args.optional("root") ?? join(path, "metadata", "1.root.json");
    const root = await readFile(rootFile).catch((cause: unknown) => {
      throw new EdgeSyncError("REPOSITORY_INVALID", `the trust root ${rootFile} cannot be read`, {
        cause,
      });
    });
    const { problems, expires, ...counts } = await verifyRepository(
      path,
      root,
      shell.now(),
      signal,
    );
    const [first] = problems;
    const until = expires === undefined ? null : new Date(expires).toISOString();
    const summary = `${counts.channels} channels, ${counts.releases} releases, ${counts.blobs} blobs (${counts.bytes} bytes)`;
    return {
      lines: [
        ...problems.map(({ code, message }) => `${code}: ${message}`),
        first === undefined
          ? `good: ${summary}; the first signature expires at ${until}`
          : `${problems.length} problems in ${summary}`,
      ],
      json: { good: first === undefined, ...counts, expires: until, problems },
      ...(first !== undefined && { exit: ERRORS[first.code].exit }),
    };
  },
};

export const COMMANDS: readonly Command[] = [
  init,
  releaseAdd,
  channelSet,
  renewCommand,
  serveCommand,
  verify,
  ...deltaCommands,
];
