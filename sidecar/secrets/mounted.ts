/**
 * A Kubernetes Secret that is mounted in the sidecar, as Sealed Secrets and the like make them: each key is a field. The kubelet
 * shows a new version by moving the link `..data`, so what is read through one target of it belongs together. A folder without
 * the link, as a service manager makes one, is read as it is.
 */
import { readFile, readdir, readlink, stat } from "node:fs/promises";
import { isUtf8 } from "node:buffer";
import { join } from "node:path";
import type { Clock } from "#core/clock.ts";
import { EdgeSyncError, codeOf } from "#core/errors.ts";
import type { ErrorCode } from "#core/errors.ts";
import type { SecretOptions } from "#core/pod-options.ts";
import type { SecretData } from "#core/secret-file.ts";
import type { Log } from "#core/telemetry.ts";
import { filesOf } from "./files.ts";
import type { Source, Version } from "./source.ts";

export interface MountedDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly defaultMode: number;
  /** There is something to publish. */
  readonly changed: () => void;
}

/** Milliseconds between two looks at the link. The kubelet itself takes up to a minute to notice a change. */
const POLL_MS = 2_000;
/** The API server takes no larger Secret. */
const LIMIT_BYTES = 1_048_576;
/** The kubelet moves the link between two of our steps, and not three times. */
const ATTEMPTS = 3;

/** @param folder where the Secret is mounted */
export function openMounted(
  key: string,
  folder: string,
  secrets: readonly SecretOptions[],
  deps: MountedDeps,
): Source {
  const { clock, log, defaultMode } = deps;
  const names = secrets.map((secret) => secret.name).join(",");
  let current: Version | undefined;
  let code: ErrorCode | undefined;
  /** The version, or the failure, that was looked at last. */
  let seen: string | undefined;

  const look = async (): Promise<void> => {
    try {
      const mark = await markOf(folder);
      if (mark === seen && code === undefined) return;
      const data = await readTogether(folder);
      const files = filesOf(secrets, data, defaultMode);
      const version = { leaseId: undefined, generation: 0, grant: undefined, expiresAt: undefined };
      current = { data, files, ...version };
      code = undefined;
      seen = mark;
      deps.changed();
    } catch (error) {
      const failure = codeOf(error);
      // Once for each reason: it is looked at again and again.
      if (failure !== code)
        log.warn({ secret: names, code: failure, err: error }, "the secret could not be read");
      code = failure;
    }
  };
  return {
    key,
    kind: "mounted",
    secrets,
    get current() {
      return current;
    },
    get code() {
      return code;
    },
    async run(signal) {
      for (;;) {
        await look();
        await clock.sleep(POLL_MS, signal);
      }
    },
    superseded: () => undefined,
  };
}

/** What is another text whenever there is another version. */
async function markOf(folder: string): Promise<string> {
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

async function readTogether(folder: string): Promise<SecretData> {
  for (let attempt = 1; ; attempt++) {
    const target = await readlink(join(folder, "..data")).catch(() => ".");
    try {
      return await readFields(join(folder, target));
    } catch (error) {
      // The kubelet has moved the link and taken the old files away.
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
  return new EdgeSyncError("SECRET_INVALID", `the Secret mounted at ${folder} cannot be read`, {
    cause,
  });
}
