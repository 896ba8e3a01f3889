/**
 * The disk as the leader of a shared volume has it: what is not finished lies in the folder of its epoch, whatever path it is asked for by. So each
 * change of what others see is a rename out of that folder, or into it, and fails for a leader whose folder has been taken away.
 */
import { basename, dirname, join, relative, sep } from "node:path";
import { EdgeSyncError } from "#core/errors.ts";
import type { Disk, Item } from "../disk/durable.ts";

/** How the names end that the store and the module of durable files give to what is not finished. */
const UNFINISHED = /\.(?:new|building-\d+|removing-\d+)$/;

/**
 * @param root of the volume
 * @param work the folder of the epoch
 * @param mayAct whether the pod still leads, as far as time can tell
 */
export function fencedDisk(disk: Disk, root: string, work: string, mayAct: () => boolean): Disk {
  function at(path: string): string {
    const parts = relative(root, path).split(sep);
    // Deeper names are those of a release, which may be anything.
    const index = parts.slice(0, 2).findIndex((part) => UNFINISHED.test(part));
    if (index < 0 || parts[0] === "..") return path;
    const name = encodeURIComponent(parts.slice(0, index + 1).join("/"));
    return join(work, name, ...parts.slice(index + 1));
  }

  /** What lies in the epoch's folder instead of in this one. */
  async function moved(path: string): Promise<readonly Item[]> {
    const within = relative(root, path);
    const items: Item[] = [];
    for (const { name, kind } of await disk.list(work)) {
      const own = decodeURIComponent(name);
      if (dirname(own) === within) items.push({ name: basename(own), kind });
    }
    return items;
  }

  return {
    openRead: (path) => disk.openRead(at(path)),
    create: (path, mode) => disk.create(at(path), mode),
    append: (path, mode) => disk.append(at(path), mode),
    truncate: (path, size) => disk.truncate(at(path), size),
    chmod: (path, mode) => disk.chmod(at(path), mode),
    makeDirectory: (path, mode) => disk.makeDirectory(at(path), mode),
    syncDirectory: (path) => disk.syncDirectory(at(path)),
    async rename(from, to) {
      if (!mayAct())
        throw new EdgeSyncError("LEASE_LOST", `${to} is another pod's to change by now`);
      await disk.rename(at(from), at(to));
    },
    link: (existing, path) => disk.link(at(existing), at(path)),
    symlink: (target, path) => disk.symlink(target, at(path)),
    readLink: (path) => disk.readLink(at(path)),
    remove: (path) => disk.remove(at(path)),
    removeTree: (path) => disk.removeTree(at(path)),
    list: async (path) => [...(await disk.list(at(path))), ...(await moved(path))],
    stat: (path) => disk.stat(at(path)),
    freeBytes: (path) => disk.freeBytes(path),
  };
}
