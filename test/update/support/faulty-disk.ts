import { existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { ErrorCode } from "#core/errors.ts";
import { EdgeSyncError } from "#core/errors.ts";
import { nodeDisk } from "../../../sidecar/disk/durable.ts";
import type { Disk, WritableFile } from "../../../sidecar/disk/durable.ts";

/** What happens at an operation that changes the disk. Returning lets it go on. */
export type Interference = (
  operation: string,
  path: string,
  number: number,
) => void | Promise<void>;

export interface FaultyDisk extends AsyncDisposable {
  readonly disk: Disk;
  /** Operations that have changed the disk, or would have. */
  count(): number;
}

/** The real disk, where something may happen before each operation that changes it. */
export function faultyDisk(interfere: Interference): FaultyDisk {
  let number = 0;
  const open = new Set<AsyncDisposable>();
  const before = async (operation: string, path: string): Promise<void> => {
    number += 1;
    await interfere(operation, path, number);
  };
  const watched = <F extends WritableFile>(file: F, path: string): F => {
    open.add(file);
    return {
      ...file,
      async write(bytes) {
        await before("write", path);
        await file.write(bytes);
      },
      async chmod(mode) {
        await before("chmod", path);
        await file.chmod(mode);
      },
      async sync() {
        await before("sync", path);
        await file.sync();
      },
      async [Symbol.asyncDispose]() {
        open.delete(file);
        await file[Symbol.asyncDispose]();
      },
    };
  };
  const disk: Disk = {
    ...nodeDisk,
    async openRead(path) {
      const file = await nodeDisk.openRead(path);
      if (file === undefined) return undefined;
      open.add(file);
      return {
        ...file,
        async [Symbol.asyncDispose]() {
          open.delete(file);
          await file[Symbol.asyncDispose]();
        },
      };
    },
    async create(path, mode) {
      await before("create", path);
      return watched(await nodeDisk.create(path, mode), path);
    },
    async append(path, mode) {
      await before("append", path);
      return watched(await nodeDisk.append(path, mode), path);
    },
    async chmod(path, mode) {
      await before("chmod", path);
      await nodeDisk.chmod(path, mode);
    },
    async truncate(path, size) {
      await before("truncate", path);
      await nodeDisk.truncate(path, size);
    },
    async makeDirectory(path, mode) {
      await before("makeDirectory", path);
      await nodeDisk.makeDirectory(path, mode);
    },
    async syncDirectory(path) {
      await before("syncDirectory", path);
      await nodeDisk.syncDirectory(path);
    },
    async rename(from, to) {
      await before("rename", to);
      await nodeDisk.rename(from, to);
    },
    async link(existing, path) {
      await before("link", path);
      return nodeDisk.link(existing, path);
    },
    async symlink(target, path) {
      await before("symlink", path);
      await nodeDisk.symlink(target, path);
    },
    async remove(path) {
      await before("remove", path);
      await nodeDisk.remove(path);
    },
    async removeTree(path) {
      await before("removeTree", path);
      await nodeDisk.removeTree(path);
    },
  };
  return {
    disk,
    count: () => number,
    async [Symbol.asyncDispose]() {
      for (const file of open) await file[Symbol.asyncDispose]();
    },
  };
}

/** At the operation with this number, and at those after it, nothing happens any more: the process has been killed. */
export function killedAt(number: number, killed: () => void): Interference {
  return async (operation, path, now) => {
    // A tree is not removed at one stroke: the kill comes when a file of it is gone.
    const [file] = operation === "removeTree" && now === number ? filesIn(path) : [];
    if (file !== undefined) rmSync(file);
    if (now < number) return;
    killed();
    await new Promise(() => undefined);
  };
}

function filesIn(folder: string): readonly string[] {
  if (!existsSync(folder)) return [];
  const items = readdirSync(folder, { recursive: true, withFileTypes: true });
  return items.filter((item) => item.isFile()).map((item) => join(item.parentPath, item.name));
}

/** Operations with these numbers fail. */
export function failingAt(from: number, times: number, code: ErrorCode): Interference {
  return (operation, path, now) => {
    if (now >= from && now < from + times)
      throw new EdgeSyncError(code, `${operation} ${path} was made to fail`);
  };
}
