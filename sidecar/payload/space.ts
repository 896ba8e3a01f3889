/**
 * Whether there is room for a release, before a byte of it is fetched. Past some limits there is no ENOSPC: the kubelet evicts a pod whose
 * volumes or local storage grow beyond theirs. So those limits are the sidecar's own to keep.
 */
import { join } from "node:path";
import { EdgeSyncError } from "#core/errors.ts";
import type { Plan } from "#core/plan.ts";
import type { Release } from "#core/release.ts";
import type { Settings } from "#core/settings.ts";
import { formatBytes } from "#core/values.ts";
import type { Downloads } from "../repository/download.ts";
import type { Here } from "./here.ts";
import type { Store } from "./store.ts";

/** Bytes. */
export interface Limits {
  /** What the payload volume may hold in all: payload-size, which is below the volume's own sizeLimit. */
  readonly volume: number | undefined;
  /** What the pod may take of the node's storage, where the payload counts for it. */
  readonly local: number | undefined;
  /** What stays free of the file system and of the pod's share of the node, for everybody else. */
  readonly reserve: number;
}

export function limitsOf(
  settings: Pick<Settings, "payloadSize" | "ephemeralStorage" | "payloadReserve">,
): Limits {
  return {
    volume: settings.payloadSize,
    local: settings.ephemeralStorage,
    reserve: settings.payloadReserve,
  };
}

type Volume = Pick<Store, "freeBytes" | "usedBytes">;

/** Room for directories, links and what else a file system needs for an entry, in bytes. */
const ENTRY_BYTES = 4096;
/** Never taken: the journal and the metadata need room in order to say that there is none. */
const OWN_BYTES = 1024 * 1024;

/**
 * @param what for the message
 * @param bytes that will be written
 * @throws EdgeSyncError DISK_FULL
 */
export async function requireRoom(
  what: string,
  bytes: number,
  volume: Volume,
  { volume: size, local, reserve }: Limits,
): Promise<void> {
  const needed = OWN_BYTES + bytes;
  const free = await volume.freeBytes();
  const left = Math.max(reserve, OWN_BYTES);
  if (bytes + left > free)
    throw new EdgeSyncError(
      "DISK_FULL",
      `${what} needs ${bytes} bytes, the payload volume has ${free} free, of which payload-reserve keeps ${formatBytes(left)}`,
    );
  if (size === undefined && local === undefined) return;
  const used = await volume.usedBytes();
  if (size !== undefined && used + needed > size)
    throw new EdgeSyncError(
      "DISK_FULL",
      `${what} needs ${needed} bytes beside the ${used} in use, payload-size allows ${size}`,
    );
  if (local !== undefined && used + bytes + left > local)
    throw new EdgeSyncError(
      "DISK_FULL",
      `${what} needs ${bytes} bytes beside the ${used} in use; past ${local} bytes the kubelet evicts the pod, and payload-reserve keeps ${formatBytes(left)} of them`,
    );
}

/**
 * Bytes that a plan will write: the bank, as far as it is not there yet, what is downloaded for it, and what chains take in between.
 *
 * @param written bytes of the bank that are on disk already
 */
export async function bytesNeeded(
  plan: Plan,
  release: Release,
  here: Here,
  written: number,
  { store, downloads }: { readonly store: Store; readonly downloads: Downloads },
  signal: AbortSignal,
): Promise<number> {
  let needed = plan.writtenBytes - written + plan.chainBytes + release.entries.length * ENTRY_BYTES;
  if (!(await canLink(store, here))) needed += plan.keptBytes;
  needed += plan.downloadBytes;
  for (const fetch of plan.fetches) needed -= await downloads.present(fetch, signal);
  return needed;
}

/** Whether files of the old bank can be linked: not with another owner under fs.protected_hardlinks, for instance. */
async function canLink({ disk, partial }: Store, here: Here): Promise<boolean> {
  const file = here.some();
  if (file === undefined) return true;
  const probe = join(partial, "link-probe");
  await disk.remove(probe);
  const linked = (await disk.stat(file.path)) !== undefined && (await disk.link(file.path, probe));
  await disk.remove(probe);
  return linked;
}
