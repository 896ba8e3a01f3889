/** Files of real releases, fetched on demand with `npm pack`: never dependencies, their scripts never run, every byte pinned. */
import { createHash } from "node:crypto";
import { readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { cacheFolder, exists } from "./cache.ts";
import { runAll } from "./process.ts";

export interface Package {
  /** As npm takes it: `name@version`. */
  readonly spec: string;
  /** As lock files have it: `sha512-` and base64. */
  readonly integrity: string;
}

const LIMIT_SECONDS = 600;

/**
 * One file of a package, from the cache when it is there.
 *
 * @param path inside the package
 * @throws Error when the package cannot be had, or is not the pinned one
 */
export async function packagedFile(
  pack: Package,
  path: string,
  signal: AbortSignal,
): Promise<string> {
  const folder = await packageFolder(pack, signal);
  return join(folder, path);
}

/** The package as one tar in the order of its paths, which is what peers that know only files are given. */
export async function packagedTar(pack: Package, signal: AbortSignal): Promise<string> {
  const folder = await packageFolder(pack, signal);
  const tar = `${folder}.tar`;
  if (!(await exists(tar))) {
    const partial = `${tar}.partial`;
    const same = ["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"];
    const args = [...same, "--format=ustar", "-cf", partial, "-C", folder, "."];
    await runAll([{ program: "tar", args }], false, LIMIT_SECONDS, signal);
    await rename(partial, tar);
  }
  return tar;
}

/** The unpacked package. */
export async function packageFolder(pack: Package, signal: AbortSignal): Promise<string> {
  const packages = await cacheFolder("packages");
  const name = pack.spec.replace(/^@/, "").replaceAll(/[/@]/g, "-");
  const folder = join(packages, name);
  if (await exists(folder)) return folder;
  const archive = `${folder}.tgz`;
  if (!(await exists(archive))) {
    const args = [
      "pack",
      pack.spec,
      "--ignore-scripts",
      "--silent",
      "--pack-destination",
      packages,
    ];
    await runAll([{ program: "npm", args }], false, LIMIT_SECONDS, signal);
  }
  const integrity = `sha512-${createHash("sha512")
    .update(await readFile(archive))
    .digest("base64")}`;
  if (integrity !== pack.integrity) {
    await rm(archive, { force: true });
    throw new Error(`${pack.spec} is ${integrity}, not the pinned ${pack.integrity}`);
  }
  const partial = await cacheFolder("packages", `${name}.partial`);
  const args = ["-xzf", archive, "-C", partial, "--strip-components=1", "--no-same-owner"];
  await runAll([{ program: "tar", args }], false, LIMIT_SECONDS, signal);
  await rename(partial, folder);
  return folder;
}
