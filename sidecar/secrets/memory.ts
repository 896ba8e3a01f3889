/** Where secrets may be written: in memory, and, where annotation `require` says so, in memory that never gets to a disk. */
import { readFile, realpath, statfs } from "node:fs/promises";
import { EdgeSyncError } from "#core/errors.ts";
import { STORAGE_REASONS } from "#core/reasons.ts";
import type { StorageReason } from "#core/reasons.ts";
import { isSwappable, mountOf, swapAreas, zramOf } from "#core/swap.ts";
import type { Log, SidecarMetrics } from "#core/telemetry.ts";
import { errnoOf } from "../disk/durable.ts";

export interface StorageStatus {
  readonly reason: StorageReason;
  readonly means: string;
}

export interface Memory {
  /**
   * To be called before anything is written: swap may be turned on at any time.
   *
   * @throws EdgeSyncError SECRET_STORAGE_UNSAFE when the folder is not in memory, SECRET_STORAGE_SWAPS when it may be swapped and must not
   */
  check(): Promise<void>;
  /** `undefined` when nothing that is written there gets to a disk. */
  status(): StorageStatus | undefined;
}

export interface MemoryDeps {
  readonly folder: string;
  /** Annotation `require`. */
  readonly require: "nothing" | "noswap";
  readonly log: Log;
  readonly metrics: SidecarMetrics;
  /** What is asked of the system; tests give other answers. */
  readonly system?: MemorySystem | undefined;
}

export interface MemorySystem {
  /** The magic number of the file system, as in statfs(2). */
  type(folder: string): Promise<number>;
  realpath(folder: string): Promise<string>;
  read(path: string): Promise<string>;
}

const TMPFS_MAGIC = 0x01021994;
const RAMFS_MAGIC = 0x858458f6;

const SYSTEM: MemorySystem = {
  type: async (folder) => (await statfs(folder)).type,
  realpath: (folder) => realpath(folder),
  read: (path) => readFile(path, "utf8"),
};

export function openMemory(deps: MemoryDeps): Memory {
  const { folder, log, metrics, system = SYSTEM } = deps;
  let told: StorageReason | undefined;
  let reason: StorageReason | undefined;
  return {
    async check() {
      await requireMemory(folder, system);
      reason = await swapReason(folder, system);
      metrics.set("edgesync_sidecar_secrets_swappable", {}, Number(reason !== undefined));
      if (reason === undefined) {
        told = undefined;
        return;
      }
      const means = STORAGE_REASONS[reason];
      if (deps.require === "noswap")
        throw new EdgeSyncError(
          "SECRET_STORAGE_SWAPS",
          `${folder}: ${means}; edgesync.dev/require: noswap does not allow that`,
        );
      if (told === reason) return;
      told = reason;
      log.warn({ reason }, `secrets may get to a disk: ${means}`);
    },
    status: () => reason && { reason, means: STORAGE_REASONS[reason] },
  };
}

async function requireMemory(folder: string, system: MemorySystem): Promise<void> {
  let type: number;
  try {
    // Some platforms give it with its sign.
    type = (await system.type(folder)) >>> 0;
  } catch (cause) {
    throw new EdgeSyncError("SECRET_STORAGE_UNSAFE", `${folder} cannot be examined`, { cause });
  }
  if (type !== TMPFS_MAGIC && type !== RAMFS_MAGIC)
    throw new EdgeSyncError(
      "SECRET_STORAGE_UNSAFE",
      `${folder} is on a file system of type 0x${type.toString(16)}; secrets are written to tmpfs only`,
    );
}

async function swapReason(
  folder: string,
  system: MemorySystem,
): Promise<StorageReason | undefined> {
  try {
    const mount = mountOf(await system.read("/proc/self/mountinfo"), await system.realpath(folder));
    if (mount !== undefined && !isSwappable(mount)) return undefined;
    for (const area of swapAreas(await optional(system, "/proc/swaps")))
      if (await reachesDisk(area, system)) return "swap_on";
    return undefined;
  } catch {
    return "swap_unknown";
  }
}

/** A compressed area in memory stays there, unless it was given a disk to move its idle pages to (zram, CONFIG_ZRAM_WRITEBACK). */
async function reachesDisk(area: string, system: MemorySystem): Promise<boolean> {
  const zram = zramOf(area);
  if (zram === undefined) return true;
  const backing = await optional(system, `/sys/block/${zram}/backing_dev`);
  return !["", "none"].includes(backing.trim());
}

/** Empty where the kernel was built without what the file is about. */
async function optional(system: MemorySystem, path: string): Promise<string> {
  try {
    return await system.read(path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return "";
    throw error;
  }
}
