/** The real disk, which loses in a power cut what was not synced: a file's end, torn, and the names in a folder. */
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { nodeDisk } from "../../../sidecar/disk/durable.ts";
import type { Disk, WritableFile } from "../../../sidecar/disk/durable.ts";

interface Tracked {
  /** Bytes of it that are on the platter for good. */
  synced: number;
  named: boolean;
  /** What was taken off its end, which may come back. */
  tail: Buffer;
}

export interface LosingDisk {
  readonly disk: Disk;
  /** @param random a number in [0,1), again and again */
  cut(random: () => number): Promise<void>;
}

/** @param written told before each write; while it does not resolve, nothing is written any more */
export function losingDisk(written: () => Promise<unknown>): LosingDisk {
  const files = new Map<string, Tracked>();
  const open = new Set<AsyncDisposable>();

  function track<F extends WritableFile>(file: F, path: string, size: number): F {
    const known = files.get(path) ?? { synced: size, named: false, tail: Buffer.alloc(0) };
    files.set(path, known);
    open.add(file);
    return {
      ...file,
      async [Symbol.asyncDispose]() {
        open.delete(file);
        await file[Symbol.asyncDispose]();
      },
      async write(bytes) {
        await written();
        await file.write(bytes);
      },
      async sync() {
        const now = readFileSync(path).length;
        await file.sync();
        known.synced = now;
        known.tail = Buffer.alloc(0);
      },
    };
  }

  const disk: Disk = {
    ...nodeDisk,
    async create(path, mode) {
      return track(await nodeDisk.create(path, mode), path, 0);
    },
    async append(path, mode) {
      const file = await nodeDisk.append(path, mode);
      return track(file, path, file.size);
    },
    async truncate(path, size) {
      const known = files.get(path);
      const tail = readFileSync(path).subarray(size);
      await nodeDisk.truncate(path, size);
      if (known === undefined) files.set(path, { synced: size, named: true, tail });
      else {
        known.synced = Math.min(known.synced, size);
        known.tail = tail;
      }
    },
    async syncDirectory(path) {
      await nodeDisk.syncDirectory(path);
      for (const [name, known] of files) if (dirname(name) === path) known.named = true;
    },
    async remove(path) {
      await nodeDisk.remove(path);
      files.delete(path);
    },
  };

  return {
    disk,
    async cut(random) {
      for (const file of open) await file[Symbol.asyncDispose]();
      for (const [path, { synced, named, tail }] of files) {
        if (!existsSync(path)) continue;
        if (!named && random() < 0.5) {
          rmSync(path);
          continue;
        }
        const now = readFileSync(path);
        const length = synced + Math.floor(random() * (now.length - synced + 1));
        const left = Buffer.from(now.subarray(0, length));
        // Blocks that were given to the file and never written.
        if (random() < 0.7) left.fill(0, synced + Math.floor(random() * (length - synced)));
        const back = random() < 0.3 ? tail.subarray(Math.max(0, length - synced)) : Buffer.alloc(0);
        writeFileSync(path, Buffer.concat([left, back]));
      }
      files.clear();
    },
  };
}
