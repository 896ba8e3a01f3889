/** Commands for deltas. */
import { integer } from "#core/values.ts";
import { findRelease, listReleases } from "../catalog.ts";
import type { Listed } from "../catalog.ts";
import type { Arguments, Command } from "../command.ts";
import { buildDeltas } from "../delta-build.ts";
import type { BuiltStep } from "../delta-build.ts";
import type { View } from "../repository.ts";
import {
  WRITES,
  appOf,
  openKeys,
  openLocked,
  openToRead,
  pathOf,
  platformOf,
  unfit,
  usage,
  versionOf,
} from "./shared.ts";

const build: Command = {
  name: "delta build",
  summary:
    "Makes deltas to a release from others that have none to it yet, so that their sites need not fetch whole files.",
  notes:
    "The release stays the same tree. A delta that is not smaller than 0.9 of the compressed file is not kept.",
  example: "edgesync delta build web 1.4.0 --from 1.0.0 --from 1.1.0",
  examples: ["edgesync delta build web 1.4.0 --last 10 --platform linux-arm64"],
  positionals: ["<app>", "<version>"],
  options: {
    ...WRITES,
    last: "from so many of the releases before it, from 1 to 100",
  },
  lists: {
    from: "a version to start from",
    platform: "only for this platform; every one that has the version when not given",
  },
  async run(args, shell, signal) {
    const [name = "", input = ""] = args.positionals;
    const [app, version] = [appOf(name), versionOf(input)];
    const choose = choiceOf(args);
    const platforms = args.all("platform").map((item) => platformOf(item));
    const keyring = await openKeys(args, pathOf(args), shell);
    const built: (BuiltStep & { readonly platform: string; readonly to: string })[] = [];
    for (const { path, platform } of targetsOf(await openToRead(args), app, version, platforms)) {
      // Opened anew for each platform: what is open does not see what has been published since.
      await using repository = await openLocked(args, shell, signal);
      const to = listReleases(repository, { app, platform }).find((item) => item.path === path);
      if (to === undefined) continue;
      const deps = { now: shell.now(), progress: shell.progress };
      const from = choose(repository, to);
      const steps = await buildDeltas(repository, keyring, to, from, deps, signal);
      built.push(...steps.map((step) => ({ platform, to: version, ...step })));
    }
    return {
      lines:
        built.length === 0
          ? ["no release to start from"]
          : built.map(
              ({ platform, from, made, before, after }) =>
                `${platform}  ${from} -> ${version}  ${made} deltas made, an update takes ${after} bytes${made === 0 ? "" : ` instead of ${before}`}`,
            ),
      json: { app, version, built },
    };
  },
};

/** Which releases to start from. @throws EdgeSyncError USAGE */
function choiceOf(args: Arguments): (repository: View, to: Listed) => readonly Listed[] {
  const from = args.all("from").map((item) => versionOf(item, "--from"));
  const last = args.optional("last");
  if ((from.length === 0) === (last === undefined))
    throw usage("delta build needs either --from <version>, once or more, or --last <number>");
  const allowed = integer(1, 100);
  const count = last === undefined ? 0 : allowed.parse(last);
  if (count === undefined) throw unfit("last", last, allowed.allowed);
  return (repository, to) => {
    const { app, platform } = to;
    if (from.length > 0)
      return from
        .filter((version) => version !== to.version)
        .map((version) => findRelease(repository, app, version, platform));
    return listReleases(repository, { app, platform })
      .filter(({ order }) => order < to.order)
      .slice(0, count);
  };
}

function targetsOf(
  repository: View,
  app: string,
  version: string,
  platforms: readonly string[],
): readonly Listed[] {
  if (platforms.length > 0)
    return platforms.map((platform) => findRelease(repository, app, version, platform));
  const found = listReleases(repository, { app }).filter((item) => item.version === version);
  // Says what there is.
  return found.length > 0 ? found : [findRelease(repository, app, version, undefined)];
}

export const deltaCommands: readonly Command[] = [build];
