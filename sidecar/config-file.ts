/** The configuration file of a daemon: read, and trusted only where nobody but root and the daemon's own user could have written it. */
import { constants } from "node:fs";
import { open, stat } from "node:fs/promises";
import { CONFIG_LIMIT, filesOf, parseDaemonConfig } from "#core/daemon-config.ts";
import { EdgeSyncError } from "#core/errors.ts";
import type { Settings } from "#core/settings.ts";
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
 * Whether the files are there that a configuration names; they may come later, so only `--check` asks.
 *
 * @throws EdgeSyncError CONFIG_INVALID
 */
export async function checkFiles(path: string, settings: Settings): Promise<void> {
  const problems: string[] = [];
  for (const { key, path } of filesOf(settings)) {
    const isFile = await stat(path).then(
      (stats) => stats.isFile(),
      () => false,
    );
    if (!isFile) problems.push(`${key} is ${path}, and no file is there`);
  }
  if (problems.length > 0)
    throw new EdgeSyncError("CONFIG_INVALID", `${path}: ${problems.join("; ")}`);
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
