/** Commands for sites that no network reaches. */
import { readFile } from "node:fs/promises";
import { EdgeSyncError } from "#core/errors.ts";
import type { Command } from "../command.ts";
import { exportBundle } from "../export.ts";
import { importBundle } from "../import.ts";
import { DAY_MS } from "../metadata.ts";
import {
  REPOSITORY,
  WAIT,
  WRITES,
  appOf,
  countOf,
  durationOf,
  openKeys,
  openLocked,
  pathOf,
  platformOf,
  usage,
  versionOf,
} from "./shared.ts";

/** Long enough to carry it to every site; a lost stick can hold a site back for as long. */
const LIFETIME = "90d";

const exportCommand: Command = {
  name: "export",
  summary:
    "Writes what one app needs on one platform into a tar, for sites that no network reaches.",
  example: "edgesync export web --platform linux-arm64 --output web.tar",
  examples: [
    "edgesync export web --platform linux-arm64 --channel stable --from 1.3.0 --lifetime 30d --output update.tar",
  ],
  notes:
    "The bundle has a timestamp of its own that lives for --lifetime. Put it on a volume that the annotation edgesync.dev/import-volume names, or take it into a folder with `edgesync import`.",
  positionals: ["<app>"],
  options: {
    platform: "<os>-<arch> as Node names them, such as linux-arm64",
    output: "file to write; replaced when it exists; ./<app>-<platform>.tar when not given",
    lifetime: `for how long sites may take it up, such as 30d; ${LIFETIME} when not given`,
    ...WRITES,
  },
  lists: {
    channel: "name of a channel of the app; all of them when not given",
    version: "a release beside those that the channels name",
    from: "a release that the sites have: the bundle then holds only what an update from there takes",
  },
  async run(args, shell, signal) {
    const [name = ""] = args.positionals;
    const app = appOf(name);
    const platform = platformOf(args.required("platform"));
    const lifetimeMs = durationOf("lifetime", args.optional("lifetime") ?? LIFETIME);
    if (lifetimeMs < 3_600_000 || lifetimeMs > 366 * DAY_MS)
      throw usage("--lifetime must be from 1h to 366d");
    const output = args.optional("output") ?? `${app}-${platform}.tar`;
    const path = pathOf(args);
    const keyring = await openKeys(args, path, shell);
    await using repository = await openLocked(args, shell, signal);
    const wanted = {
      app,
      platform,
      channels: args.all("channel").map((item) => appOf(item, "--channel")),
      versions: args.all("version").map((item) => versionOf(item, "--version")),
      from: args.all("from").map((item) => versionOf(item, "--from")),
      lifetimeMs,
    };
    const place = { output, now: shell.now() };
    const done = await exportBundle(repository, keyring, wanted, place, shell.progress, signal);
    const until = new Date(done.expires).toISOString();
    return {
      lines: [
        `${output}: ${app} ${done.versions.join(", ")} for ${platform}, channels ${done.channels.join(", ")}; ${countOf(done.files, "file")}, ${countOf(done.bytes, "byte")}; good until ${until}`,
      ],
      json: { output, app, platform, ...done, expires: until },
    };
  },
};

const importCommand: Command = {
  name: "import",
  summary:
    "Verifies a bundle and takes it into a folder that then serves as a part of its repository.",
  example: "edgesync import web.tar --into ./mirror --root ./root.json",
  examples: ["edgesync import web.tar --into ./mirror --check"],
  notes:
    "Serve the folder with any web server at the site, or let it be the volume of edgesync.dev/import-volume. Metadata never go back; files that are there already are kept.",
  positionals: ["<bundle>"],
  options: {
    into: `folder of the part of the repository; ./${REPOSITORY} when not given`,
    root: "trust root that sites have; the folder's first one when not given",
    ...WAIT,
  },
  flags: { check: "only verify it" },
  async run(args, shell, signal) {
    const [bundle = ""] = args.positionals;
    const folder = args.optional("into") ?? REPOSITORY;
    const rootFile = args.optional("root");
    const root = rootFile === undefined ? undefined : await readRoot(rootFile);
    const check = args.flag("check");
    const options = { root, now: shell.now(), check };
    const done = await importBundle(bundle, folder, options, shell.progress, signal);
    const until = new Date(done.expires).toISOString();
    const what = `${done.releases.join(", ")}; channels ${done.channels.join(", ")}; good until ${until}`;
    const news = done.taken
      ? `${done.bytes} bytes taken into ${folder}`
      : `${done.bytes} bytes taken into ${folder}, whose metadata are as new or newer and were kept`;
    return {
      lines: [`${bundle}: ${what}`, check ? "verified; nothing was taken" : news],
      json: { bundle, folder, ...done, expires: until, check },
    };
  },
};

async function readRoot(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (cause) {
    throw new EdgeSyncError("CONFIG_INVALID", `--root: ${path} cannot be read`, { cause });
  }
}

export const bundleCommands: readonly Command[] = [exportCommand, importCommand];
