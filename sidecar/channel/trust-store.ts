/** Verified TUF metadata on a disk. */
import { join } from "node:path";
import type { MetadataStore } from "#core/trust/refresh.ts";
import { readSmallFile, replaceFile } from "../disk/durable.ts";
import type { Disk } from "../disk/durable.ts";

/** Bytes; more than any metadata that `src/trust` accepts. */
const METADATA_LIMIT = 16 * 1024 * 1024;

/**
 * Each file is what was served, byte for byte. A kill between any two operations leaves each name with its old bytes or its new ones,
 * and at most one `*.new` beside it, which the next save of that name removes.
 *
 * @throws EdgeSyncError DISK_FULL or DISK_FAILED when the folder cannot be made
 */
export async function openTrustStore(folder: string, disk: Disk): Promise<MetadataStore> {
  await disk.makeDirectory(folder, 0o700);
  return {
    load: (name) => readSmallFile(disk, join(folder, name), METADATA_LIMIT),
    save: (name, bytes) => replaceFile(disk, join(folder, name), bytes),
    async remove(name) {
      await disk.remove(join(folder, name));
      await disk.syncDirectory(folder);
    },
  };
}
