/**
 * A disk in memory that loses in a power cut what a real one may lose: bytes that were not synced, wholly or from the middle on, and names
 * that were made, changed or removed in a folder that was not synced since. It knows files, folders and no links.
 */
import { basename, dirname } from "node:path";
import { EdgeSyncError } from "#core/errors.ts";
import type { Disk, Kind, WritableFile } from "../../sidecar/durable.ts";

interface Inode {
  readonly kind: Kind;
  now: Buffer;
  synced: Buffer;
}

const MAX_CASES = 1_000;

/** What is on a platter, by path. */
export type Image = ReadonlyMap<string, { readonly kind: Kind; readonly bytes: Buffer }>;

export interface CrashDisk {
  readonly disk: Disk;
  /** Operations so far that have changed something. */
  count(): number;
  /** What may be found after a power cut now: each case that is legal. */
  afterPowerCut(): readonly Image[];
}

/** @param changed told before each operation that changes something, with its number */
export function crashDisk(
  image: Image = new Map(),
  changed: (number: number) => void = () => undefined,
): CrashDisk {
  /** What programs see. */
  const now = new Map<string, Inode>();
  for (const [path, { kind, bytes }] of image) now.set(path, { kind, now: bytes, synced: bytes });
  /** Names as they are on the platter. */
  const synced = new Map(now);
  let count = 0;
  const step = (): void => {
    count += 1;
    changed(count);
  };
  const refuse = (path: string): never => {
    throw new EdgeSyncError("DISK_FAILED", path);
  };
  const unused = (path: string): Promise<never> =>
    Promise.reject(new Error(`the model has no operation for ${path}`));
  const writable = (inode: Inode): WritableFile => ({
    async write(bytes: Uint8Array) {
      step();
      inode.now = Buffer.concat([inode.now, bytes]);
    },
    chmod: () => Promise.resolve(),
    async sync() {
      step();
      inode.synced = inode.now;
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  });

  const disk: Disk = {
    async openRead(path) {
      const inode = now.get(path);
      if (inode === undefined) return undefined;
      const bytes = inode.now;
      return {
        size: bytes.length,
        read: (position, length) => Promise.resolve(bytes.subarray(position, position + length)),
        readInto: (into, position) => Promise.resolve(void bytes.copy(into, 0, position)),
        [Symbol.asyncDispose]: () => Promise.resolve(),
      };
    },
    async create(path) {
      step();
      if (now.has(path)) refuse(path);
      const inode: Inode = { kind: "file", now: Buffer.alloc(0), synced: Buffer.alloc(0) };
      now.set(path, inode);
      return writable(inode);
    },
    async makeDirectory(path) {
      if (now.has(path)) return;
      step();
      now.set(path, { kind: "directory", now: Buffer.alloc(0), synced: Buffer.alloc(0) });
    },
    async syncDirectory(folder) {
      step();
      const names = new Set([...now.keys(), ...synced.keys()]);
      for (const path of names) {
        if (dirname(path) !== folder) continue;
        const inode = now.get(path);
        if (inode === undefined) synced.delete(path);
        else synced.set(path, inode);
      }
    },
    async rename(from, to) {
      step();
      now.set(to, now.get(from) ?? refuse(from));
      now.delete(from);
    },
    async remove(path) {
      if (!now.has(path)) return;
      step();
      now.delete(path);
    },
    async list(folder) {
      const found = now.entries().filter(([path]) => dirname(path) === folder);
      return [...found].map(([path, { kind }]) => ({ name: basename(path), kind }));
    },
    async stat(path) {
      const inode = now.get(path);
      if (inode === undefined) return undefined;
      const size = inode.now.length;
      return {
        kind: inode.kind,
        size,
        mode: 0o644,
        allocated: size,
        identity: path,
        changed: path,
      };
    },
    freeBytes: () => Promise.resolve(1 << 30),
    append: unused,
    truncate: unused,
    link: unused,
    symlink: (_, path) => unused(path),
    readLink: unused,
    removeTree: unused,
  };

  function afterPowerCut(): readonly Image[] {
    let cases: Image[] = [new Map()];
    for (const path of new Set([...now.keys(), ...synced.keys()])) {
      // Each name for itself: a file system that keeps their order only makes fewer cases.
      const found = [...new Set([now.get(path), synced.get(path)])].flatMap(contentsOf);
      cases = cases.flatMap((one) =>
        found.map((content) => (content === undefined ? one : new Map(one).set(path, content))),
      );
      // Whoever saves one thing after the other has one of them in the air.
      if (cases.length > MAX_CASES) throw new Error("too much is written and not synced");
    }
    return cases;
  }

  return { disk, count: () => count, afterPowerCut };
}

type Content = { readonly kind: Kind; readonly bytes: Buffer };

/** What of a file may have reached the platter. */
function contentsOf(inode: Inode | undefined): readonly (Content | undefined)[] {
  if (inode === undefined) return [undefined];
  const { kind, now, synced } = inode;
  const torn = Buffer.concat([now.subarray(0, now.length / 2), Buffer.alloc(now.length / 2)]);
  const all = now.equals(synced) ? [now] : [synced, now, torn];
  return all.map((bytes) => ({ kind, bytes }));
}
