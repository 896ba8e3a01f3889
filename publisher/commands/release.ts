/** Commands for the releases of an app. */
import { fileName, integer } from "#core/values.ts";
import {
  findRelease,
  listReleases,
  namedByChannels,
  readRelease,
  refuseUnknown,
} from "../catalog.ts";
import type { Listed } from "../catalog.ts";
import type { Arguments, Command } from "../command.ts";
import { refuseToPublish } from "../keys.ts";
import { compareReleases, transferOf } from "../release-diff.ts";
import type { PathChange } from "../release-diff.ts";
import { removeReleases } from "../release-remove.ts";
import { CHAIN, addRelease } from "../release.ts";
import type { View } from "../repository.ts";
import type { NamedTree } from "../tree.ts";
import {
  REPOSITORY_OPTION,
  WRITES,
  appOf,
  countOf,
  openKeys,
  openLocked,
  openToRead,
  pathOf,
  platformOf,
  unfit,
  usage,
  versionOf,
} from "./shared.ts";

const PLATFORM = { platform: "<os>-<arch>, such as linux-arm64; needed where there are several" };

const add: Command = {
  name: "release add",
  summary:
    "Publishes a folder as a version of an app for a platform, with deltas from earlier releases.",
  example:
    "edgesync release add ./build --repository ./repository --keys ./keys --app web --version 1.4.0 --platform linux-arm64",
  examples: [
    "edgesync release add --tree model=./model --tree rules=./rules --app detector --version 2.1.0 --platform linux-arm64",
  ],
  notes:
    "Several trees become directories of one release: a site takes all of them at one instant, tries them together and goes back with all of them.",
  positionals: ["[<folder>]"],
  options: {
    ...WRITES,
    app: "name of the app",
    version: "version; never published twice with another content",
    platform: "<os>-<arch> as Node names them, such as linux-arm64",
    deltas: "from how many of the previous releases to make deltas; 3 when not given",
    chain:
      "from how many releases before those sites come by a chain of the deltas that are there already; 3 when not given",
    level:
      "of zstd for whole files, 1 to 19; when not given 19, and 12 for a tree of more than 1 GiB",
  },
  lists: {
    tree: "<name>=<folder>: one of several trees, instead of <folder>",
  },
  async run(args, shell, signal) {
    const folder = foldersOf(args);
    const wanted = {
      folder,
      ...releaseName(args),
      deltas: countOfReleases("deltas", args.optional("deltas"), DELTAS),
      chain: countOfReleases("chain", args.optional("chain"), CHAIN),
      level: levelOf(args.optional("level")),
    };
    const keyring = await openKeys(args, pathOf(args), shell);
    for (const part of typeof folder === "string" ? [folder] : folder.map((tree) => tree.folder))
      await refuseToPublish(part, pathOf(args), keyring.folder);
    await using repository = await openLocked(args, shell, signal);
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
  return {
    app: appOf(args.required("app"), "--app"),
    version: versionOf(args.required("version"), "--version"),
    platform: platformOf(args.required("platform")),
  };
}

function levelOf(input: string | undefined): number | undefined {
  if (input === undefined) return undefined;
  const allowed = integer(1, 19);
  const value = allowed.parse(input);
  if (value === undefined) throw unfit("level", input, allowed.allowed);
  return value;
}

/** Releases from which there are deltas. */
const DELTAS = 3;

function countOfReleases(option: string, input: string | undefined, otherwise: number): number {
  const allowed = integer(0, 20);
  const value = input === undefined ? otherwise : allowed.parse(input);
  if (value === undefined) throw unfit(option, input, allowed.allowed);
  return value;
}

function foldersOf(args: Arguments): string | readonly NamedTree[] {
  const [folder] = args.positionals;
  const trees = args.all("tree").map((text): NamedTree => {
    const at = text.indexOf("=");
    const name = fileName.parse(text.slice(0, Math.max(0, at)));
    if (name === undefined || at === text.length - 1)
      throw usage(`--tree is ${JSON.stringify(text)}; expected <name>=<folder>, with a file name`);
    return { name, folder: text.slice(at + 1) };
  });
  if ((folder === undefined) === (trees.length === 0))
    throw usage("release add takes either <folder> or --tree <name>=<folder>");
  const names = new Set(trees.map(({ name }) => name.toLowerCase()));
  if (names.size < trees.length) throw usage("each --tree needs a name of its own");
  return folder ?? trees;
}

const list: Command = {
  name: "release list",
  summary: "Lists the releases, the newest first, and the channels that name them.",
  example: "edgesync release list web --platform linux-arm64",
  positionals: ["[<app>]"],
  options: { ...REPOSITORY_OPTION, platform: "only those of this platform" },
  async run(args) {
    const [name] = args.positionals;
    const input = args.optional("platform");
    const app = name === undefined ? undefined : appOf(name);
    const platform = input === undefined ? undefined : platformOf(input);
    const repository = await openToRead(args);
    if (app !== undefined) refuseUnknown(repository, app);
    const releases = listReleases(repository, { app, platform });
    const named = new Map<string, ReadonlyMap<string, readonly string[]>>();
    for (const item of new Set(releases.map((release) => release.app)))
      named.set(item, await namedByChannels(repository, item));
    const rows = releases.map((release) => ({
      ...nameOf(release),
      channels: named.get(release.app)?.get(release.version) ?? [],
    }));
    return { lines: rows.length === 0 ? ["no releases"] : tableOf(rows), json: { releases: rows } };
  },
};

function nameOf({ app, version, platform }: Listed): Pick<Listed, "app" | "version" | "platform"> {
  return { app, version, platform };
}

function tableOf(
  rows: readonly (Pick<Listed, "app" | "version" | "platform"> & {
    readonly channels: readonly string[];
  })[],
): readonly string[] {
  const cells = rows.map((row) => [row.app, row.version, row.platform, row.channels.join(", ")]);
  const widths = [0, 1, 2].map((at) => Math.max(...cells.map((row) => row[at]?.length ?? 0)));
  return cells.map((row) =>
    row
      .map((cell, at) => cell.padEnd(widths[at] ?? 0))
      .join("  ")
      .trimEnd(),
  );
}

const show: Command = {
  name: "release show",
  summary: "Shows what a release holds, and what a site fetches for it.",
  example: "edgesync release show web 1.4.0 --platform linux-arm64",
  positionals: ["<app>", "<version>"],
  options: { ...REPOSITORY_OPTION, ...PLATFORM },
  async run(args, _shell, signal) {
    const repository = await openToRead(args);
    const [app = "", version = ""] = args.positionals;
    const listed = findWanted(repository, args, app, version);
    const release = await readRelease(repository, listed, signal);
    const { platform } = listed;
    let bytes = 0;
    for (const { size } of release.contents) bytes += size;
    const bases: { from: string; bytes: number; requests: number; full: number }[] = [];
    for (const from of await basesOf(repository, listed, release, signal)) {
      const { bytes: wire, requests, contents } = transferOf(release, from);
      bases.push({ from: from.version, bytes: wire, requests, full: contents.full });
    }
    const first = transferOf(release, undefined);
    const channels = (await namedByChannels(repository, app)).get(version) ?? [];
    return {
      lines: [
        `${app} ${version} ${platform}`,
        `  tree       ${release.tree}`,
        `  entries    ${release.entries.length}, contents ${release.contents.length}, ${bytes} bytes`,
        `  first time ${countOf(first.bytes, "byte")} in ${countOf(first.requests, "request")}`,
        ...bases.map(
          (base) =>
            `  from ${base.from}  ${countOf(base.bytes, "byte")} in ${countOf(base.requests, "request")}${base.full === 0 ? "" : `, ${countOf(base.full, "file")} whole`}`,
        ),
        `  channels   ${channels.length === 0 ? "none" : channels.join(", ")}`,
      ],
      json: {
        ...nameOf(listed),
        tree: release.tree,
        entries: release.entries.length,
        contents: release.contents.length,
        bytes,
        first: { bytes: first.bytes, requests: first.requests },
        updates: bases,
        channels,
      },
    };
  },
};

type Release = Awaited<ReturnType<typeof readRelease>>;

/** Earlier releases that are listed and from which there is a delta, the newest first. */
async function basesOf(
  repository: View,
  { app, platform, order }: Listed,
  release: Release,
  signal: AbortSignal,
): Promise<readonly Release[]> {
  const bases = new Set<string>();
  for (const { deltas } of [...release.contents, ...release.steps])
    for (const { base } of deltas) bases.add(base);
  const found: Release[] = [];
  for (const listed of listReleases(repository, { app, platform })) {
    if (listed.order >= order || found.length === 20) continue;
    const earlier = await readRelease(repository, listed, signal);
    let helps = false;
    for (const { sha256 } of earlier.contents) helps ||= bases.has(sha256);
    if (helps) found.push(earlier);
  }
  return found;
}

function findWanted(repository: View, args: Arguments, app: string, version: string): Listed {
  const input = args.optional("platform");
  const platform = input === undefined ? undefined : platformOf(input);
  return findRelease(repository, appOf(app), versionOf(version), platform);
}

const diff: Command = {
  name: "release diff",
  summary:
    "Shows which files differ between two releases, and what an update from the first to the second transfers.",
  example: "edgesync release diff web 1.3.0 1.4.0 --platform linux-arm64",
  positionals: ["<app>", "<from>", "<to>"],
  options: { ...REPOSITORY_OPTION, ...PLATFORM },
  async run(args, _shell, signal) {
    const repository = await openToRead(args);
    const [app = "", from = "", to = ""] = args.positionals;
    const next = findWanted(repository, args, app, to);
    const platform = { optional: () => next.platform };
    const old = findWanted(repository, { ...args, ...platform }, app, from);
    const { changes, same, transfer } = compareReleases(
      await readRelease(repository, old, signal),
      await readRelease(repository, next, signal),
    );
    const count = (kind: PathChange["change"]): number =>
      changes.filter(({ change }) => change === kind).length;
    const { bytes, requests, contents, fullBytes } = transfer;
    const share = fullBytes === 0 ? 0 : (bytes * 100) / fullBytes;
    return {
      lines: [
        ...changes.map(lineOf),
        `${count("added")} added, ${count("removed")} removed, ${count("changed")} changed, ${same} the same`,
        `an update transfers ${countOf(bytes, "byte")} in ${countOf(requests, "request")} (${share.toFixed(1)} % of the ${fullBytes} bytes of a first installation): ${countOf(contents.delta, "content")} by delta, ${contents.chain === 0 ? "" : `${contents.chain} by a chain of deltas, `}${contents.full} whole`,
      ],
      json: { app, platform: next.platform, from, to, changes, same, transfer },
    };
  },
};

function lineOf({ path, change, before, after, differs }: PathChange): string {
  const sign = { added: "+", removed: "-", changed: "~" }[change];
  const size = (value: number | null): string => (value === null ? "" : `${value} bytes`);
  if (change === "added") return `${sign} ${path}  ${size(after)}`.trimEnd();
  if (change === "removed") return `${sign} ${path}  ${size(before)}`.trimEnd();
  const sizes = differs.includes("content") ? `  ${before ?? 0} -> ${size(after)}` : "";
  return `${sign} ${path}${sizes}  (${differs.join(", ")})`;
}

const remove: Command = {
  name: "release remove",
  summary:
    "Takes a version off the list. Its files go with the next gc, as far as nothing else needs them.",
  notes:
    "Refused while a channel names it: as what it points to, as what its roll-out came from, or as its minimum. Sites that run it go on, and get the next release as others do.",
  example: "edgesync release remove web 1.0.0",
  examples: ["edgesync release remove web 1.0.0 1.1.0 --platform linux-arm64"],
  positionals: ["<app>", "<version>", "[<version>]", "[<version>]", "[<version>]"],
  options: { ...WRITES, platform: "only of this platform" },
  async run(args, shell, signal) {
    const [name = "", ...versions] = args.positionals;
    const app = appOf(name);
    const input = args.optional("platform");
    const platform = input === undefined ? undefined : platformOf(input);
    const keyring = await openKeys(args, pathOf(args), shell);
    await using repository = await openLocked(args, shell, signal);
    const wanted = { app, platform, versions: versions.map((item) => versionOf(item)) };
    const removed = await removeReleases(repository, keyring, wanted, shell.now());
    return {
      lines: removed.map(
        (item) => `removed ${item.app} ${item.version} ${item.platform} from the list`,
      ),
      json: { removed: removed.map(nameOf) },
    };
  },
};

export const releaseCommands: readonly Command[] = [add, list, show, diff, remove];
