/**
 * A Kubernetes Secret that is mounted in the sidecar, as Sealed Secrets and the like make them: each key is a field. The kubelet
 * shows a new version by moving the link `..data`, so what is read through one target of it belongs together. A folder without
 * the link, as a service manager makes one, is read as it is.
 */
import { readFile, readdir, readlink, stat } from "node:fs/promises";
import { isUtf8 } from "node:buffer";
import { join } from "node:path";
import { EdgeSyncError } from "#core/errors.ts";
import type { SecretOptions } from "#core/pod-options.ts";
import type { SecretData } from "#core/secret-file.ts";
import { openPolled } from "./polled.ts";
import type { Place, PolledDeps } from "./polled.ts";
import type { Source } from "./source.ts";

/** The API server takes no larger Secret. */
const LIMIT_BYTES = 1_048_576;
/** The kubelet moves the link between two of our steps, and not three times. */
const ATTEMPTS = 3;

/** @param folder where the Secret is mounted; the kubelet takes up to a minute to show a change there */
export function openMounted(
  key: string,
  folder: string,
  secrets: readonly SecretOptions[],
  deps: PolledDeps,
): Source {
  const place: Place = {
    kind: "mounted",
    mark: () => markOf(folder),
    read: () => throughLink(folder, readFields),
    failure: "the secret could not be read",
  };
  return openPolled(key, place, secrets, deps);
}

/** What is another text whenever there is another version. */
export async function markOf(folder: string): Promise<string> {
  try {
    return await readlink(join(folder, "..data"));
  } catch {
    // No link: the files themselves are looked at.
  }
  try {
    const names = (await readdir(folder)).toSorted();
    const files = await Promise.all(
      names.map(async (name) => {
        const { mtimeMs, size, ino } = await stat(join(folder, name));
        return `${name} ${ino} ${size} ${mtimeMs}`;
      }),
    );
    return files.join("\n");
  } catch (error) {
    throw unreadable(folder, error);
  }
}

/**
 * Reads what belongs together: the kubelet may move the link and take the old files away meanwhile.
 *
 * @param read is given the folder that the link leads to
 */
export async function throughLink<T>(
  folder: string,
  read: (target: string) => Promise<T>,
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    const target = await readlink(join(folder, "..data")).catch(() => ".");
    try {
      return await read(join(folder, target));
    } catch (error) {
      if (attempt < ATTEMPTS && !(error instanceof EdgeSyncError)) continue;
      throw error instanceof EdgeSyncError ? error : unreadable(folder, error);
    }
  }
}

async function readFields(folder: string): Promise<SecretData> {
  const fields: [string, unknown][] = [];
  let total = 0;
  for (const entry of (await readdir(folder)).toSorted()) {
    const path = join(folder, entry);
    const about = entry.startsWith("..") ? undefined : await stat(path);
    if (about?.isFile() !== true) continue;
    total += about.size;
    if (total > LIMIT_BYTES)
      throw new EdgeSyncError(
        "SECRET_INVALID",
        `the mounted Secret is larger than ${LIMIT_BYTES} bytes`,
      );
    const bytes = await readFile(path);
    // What is no text keeps its bytes.
    fields.push([entry, isUtf8(bytes) ? bytes.toString() : new Uint8Array(bytes)]);
  }
  return Object.fromEntries(fields);
}

function unreadable(folder: string, cause: unknown): EdgeSyncError {
  return new EdgeSyncError("SECRET_INVALID", `what is mounted at ${folder} cannot be read`, {
    cause,
  });
}
