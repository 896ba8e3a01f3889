/** A disk that does not make durable what it is told to: what is left of a protection that somebody forgot. */
import { EdgeSyncError } from "#core/errors.ts";
import type { Disk, WritableFile } from "../../../sidecar/disk/durable.ts";

/** What was to be made durable: a file or a folder, and what was done last before that. */
export interface Sync {
  readonly operation: "sync" | "syncDirectory";
  readonly path: string;
  /** Such as `rename /site/payload/state.json`. */
  readonly after: string;
}

/** @param fate what becomes of it: it may be made durable, be passed over in spite of the answer that all is well, or fail */
export function lyingDisk(
  disk: Disk,
  fate: (sync: Sync) => "made" | "passed over" | "failed",
): Disk {
  let after = "";
  async function sync(what: Omit<Sync, "after">, make: () => Promise<void>): Promise<void> {
    const found = fate({ ...what, after });
    if (what.operation === "syncDirectory") after = `${what.operation} ${what.path}`;
    if (found === "failed") throw new EdgeSyncError("DISK_FAILED", `${what.path} was made to fail`);
    if (found === "made") await make();
  }
  const watched = <F extends WritableFile>(file: F, path: string): F => ({
    ...file,
    sync: () => sync({ operation: "sync", path }, () => file.sync()),
  });
  return {
    ...disk,
    async create(path, mode) {
      return watched(await disk.create(path, mode), path);
    },
    async append(path, mode) {
      return watched(await disk.append(path, mode), path);
    },
    async makeDirectory(path, mode) {
      await disk.makeDirectory(path, mode);
      after = `makeDirectory ${path}`;
    },
    async rename(from, to) {
      await disk.rename(from, to);
      after = `rename ${to}`;
    },
    async remove(path) {
      await disk.remove(path);
      after = `remove ${path}`;
    },
    syncDirectory: (path) =>
      sync({ operation: "syncDirectory", path }, () => disk.syncDirectory(path)),
  };
}
