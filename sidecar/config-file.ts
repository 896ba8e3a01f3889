/** The configuration file of a daemon: read, and trusted only where nobody but root and the daemon's own user could have written it. */
import { readFile, stat } from "node:fs/promises";
import { CONFIG_LIMIT, namesPrograms, parseDaemonConfig } from "#core/daemon-config.ts";
import { EdgeSyncError } from "#core/errors.ts";
import type { Settings } from "#core/settings.ts";
import { strangersAt } from "./programs.ts";

/**
 * @param uid of the daemon
 * @throws EdgeSyncError CONFIG_INVALID
 */
export async function readConfigFile(path: string, uid: number): Promise<Settings> {
  const text = await textOf(path);
  try {
    const { mode } = await stat(path);
    if ((mode & 0o022) !== 0)
      throw new EdgeSyncError("CONFIG_INVALID", "it can be written by others; chmod go-w it");
    const settings = parseDaemonConfig(text);
    // Whoever could change the file, or put another one in its place, could have programs run.
    const problem = namesPrograms(settings) ? await strangersAt(path, uid) : undefined;
    if (problem !== undefined)
      throw new EdgeSyncError("CONFIG_INVALID", `it names programs to run, but ${problem}`);
    return settings;
  } catch (error) {
    if (!(error instanceof EdgeSyncError)) throw error;
    throw new EdgeSyncError(error.code, `${path}: ${error.message}`, { cause: error.cause });
  }
}

async function textOf(path: string): Promise<string> {
  try {
    const { size } = await stat(path);
    if (size <= CONFIG_LIMIT) return await readFile(path, "utf8");
  } catch (cause) {
    throw new EdgeSyncError("CONFIG_INVALID", `${path} cannot be read`, { cause });
  }
  throw new EdgeSyncError("CONFIG_INVALID", `${path} has more than ${CONFIG_LIMIT} bytes`);
}
