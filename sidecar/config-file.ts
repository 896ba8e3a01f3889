/** The configuration file of a daemon: read, and trusted only where nobody but root and the daemon's own user could have written it. */
import { constants } from "node:fs";
import { access, open, readFile, stat, statfs } from "node:fs/promises";
import { CONFIG_LIMIT, filesOf, parseDaemonConfig } from "#core/daemon-config.ts";
import { EdgeSyncError } from "#core/errors.ts";
import { keyFor } from "#core/payloads.ts";
import { payloadNames, settingsOf } from "#core/settings.ts";
import type { Settings } from "#core/settings.ts";
import { parseRoot } from "#core/trust/metadata.ts";
import { errnoOf } from "./disk/durable.ts";
import { trustedPath } from "./disk/trusted-path.ts";

/**
 * @param uid of the daemon
 * @throws EdgeSyncError CONFIG_INVALID
 */
export async function readConfigFile(path: string, uid: number): Promise<Settings> {
  // Whoever could change the file, or put another one in its place, could have programs run, or name a repository of their own.
  const found = await trustedPath(path, uid);
  if ("problem" in found)
    throw new EdgeSyncError(
      "CONFIG_INVALID",
      found.absent === true
        ? `${path} cannot be read: ${found.problem}`
        : `${path}: ${found.problem}; the configuration must be root's or the daemon's, and nobody else's to write`,
    );
  const text = await textOf(found.path, uid);
  try {
    return parseDaemonConfig(text);
  } catch (error) {
    if (!(error instanceof EdgeSyncError)) throw error;
    throw new EdgeSyncError(error.code, `${path}: ${error.message}`, { cause: error.cause });
  }
}

/**
 * Whether all is there that a configuration names; it may come later, so only `--check` asks.
 *
 * @returns what is not wrong, and yet not as one would want it
 * @throws EdgeSyncError CONFIG_INVALID
 */
export async function checkFiles(path: string, settings: Settings): Promise<readonly string[]> {
  const problems: string[] = [];
  const warnings: string[] = [];
  for (const { key, path } of filesOf(settings)) {
    const isFile = await stat(path).then(
      (stats) => stats.isFile(),
      () => false,
    );
    if (!isFile) problems.push(`${key} is ${path}, and no file is there`);
    else if (key.startsWith("trust-root-file") && !(await isRoot(path)))
      problems.push(`${key} is ${path}, which holds no root of a repository`);
  }
  for (const name of payloadNames(settings)) {
    const { payloadDir: folder, payloadReserve: reserve } = settingsOf(settings, name);
    if (folder === undefined) continue;
    const key = `${keyFor("payload-dir", name)} is ${folder}`;
    try {
      if (!(await stat(folder)).isDirectory()) problems.push(`${key}, and no folder is there`);
      await access(folder, constants.W_OK | constants.X_OK);
      const { type, bavail, bsize } = await statfs(folder);
      if (type === TMPFS) warnings.push(`${key}, in memory: releases are lost with the power`);
      if (bavail * bsize <= reserve)
        warnings.push(`${key}, where less is free than payload-reserve keeps: nothing fits`);
    } catch (error) {
      problems.push(`${key}; expected a folder to write in: ${errnoOf(error)}`);
    }
  }
  if (problems.length > 0)
    throw new EdgeSyncError("CONFIG_INVALID", [path, ...problems, ...warnings].join("\n  "));
  return warnings;
}

/** See statfs(2). */
const TMPFS = 0x01021994;

async function isRoot(path: string): Promise<boolean> {
  try {
    parseRoot(await readFile(path));
    return true;
  } catch {
    // Unreadable or something else: either is said in the same words.
    return false;
  }
}

/** Of one open file: what is judged is what is read. */
async function textOf(path: string, uid: number): Promise<string> {
  try {
    const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
    await using file = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    const stats = await file.stat();
    if (!stats.isFile() || ![0, uid].includes(stats.uid) || (stats.mode & 0o022) !== 0)
      throw new EdgeSyncError("CONFIG_INVALID", `${path} was changed while it was looked at`);
    if (stats.size <= CONFIG_LIMIT) return await file.readFile("utf8");
  } catch (cause) {
    if (cause instanceof EdgeSyncError) throw cause;
    throw new EdgeSyncError("CONFIG_INVALID", `${path} cannot be read`, { cause });
  }
  throw new EdgeSyncError("CONFIG_INVALID", `${path} has more than ${CONFIG_LIMIT} bytes`);
}
