/**
 * A disk in memory that loses in a power cut what a real one may lose. It follows POSIX, which promises little, and not one file
 * system, which may promise more:
 *
 * - Bytes that were appended or taken off since the file was last synced are lost, kept, or torn at pages of 4 KiB; the length of the file may have
 *   reached the platter without them. So may its mode. What was synced stays.
 * - A name that was made, changed or removed since its folder was last synced is as it is now, as it was at that sync, or anything it has been
 *   between; each name for itself. That a file was synced says nothing of its name, and a folder without a name has lost what is in it.
 * - Hard links are names of one file and share what becomes of its bytes. A rename that replaces is never a mixture, but old and new name
 *   may both be there, or neither, except for folders, which have one name at most.
 *
 * Symbolic links come and go with their names. Files grow and shrink at their ends, because {@link Disk} offers nothing else.
 */
import { basename, dirname } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { EdgeSyncError } from "#core/errors.ts";
import type { Disk, Kind, Stat, WritableFile } from "../../sidecar/disk/durable.ts";

/** A file, a folder or a link as it lies on the platter. One object under two paths is one file with two names. */
export interface Node {
  readonly kind: Kind;
  /** Content, or the target of a symbolic link. */
  readonly bytes: Buffer;
  readonly mode: number;
}

/** What is on a platter, by path. Parents come before what they hold. */
export type Image = ReadonlyMap<string, Node>;

/** Told before each operation that changes something. What it throws is thrown by the operation, which then has not happened. */
export type Watcher = (operation: string, path: string, number: number) => void;

export interface CrashDisk {
  readonly disk: Disk;
  /** Takes the place of the watcher. */
  watch(watcher: Watcher): void;
  /** Operations so far that have changed something, or made something durable. */
  count(): number;
  /** Content of a file as programs see it. */
  peek(path: string): Buffer | undefined;
  /** Target of a symbolic link as programs see it. */
  peekLink(path: string): string | undefined;
  /** Names in a folder as programs see it. */
  peekNames(path: string): readonly string[];
  /** What programs see: what a kill leaves, without a power cut. */
  image(): Image;
  /** Each case of what may be found after a power cut now; undefined when there are more than `limit`. */
  everyImage(limit: number): readonly Drawn[] | undefined;
  /** One case. */
  draw(choose: Chooser): Drawn;
}

export interface Drawn {
  readonly image: Image;
  /** Equal for equal images of one disk. */
  readonly fingerprint: string;
}

/** What there is to choose from, oldest first: the last one is what programs see. */
export interface Choice {
  readonly of: "name" | "bytes" | "mode";
  /** Number of the operation that made each of them; 0 for what is durable. */
  readonly made: readonly number[];
}
/** @returns an index */
export type Chooser = (choice: Choice) => number;

interface FileInode {
  readonly kind: "file";
  readonly id: number;
  content: Buffer;
  /** Content at the last sync. */
  durable: Buffer;
  /** Bytes at the beginning that have not changed since. */
  synced: number;
  /** How often its end was taken off. */
  cuts: number;
  mode: number;
  /** Modes that the platter may have, the present one last. */
  modes: number[];
  /** Numbers of the operations that wrote since the last sync: the first, and the last. */
  written: number;
  changed: number;
}
interface LinkInode {
  readonly kind: "symlink";
  readonly id: number;
  readonly target: string;
}
interface FolderInode {
  readonly kind: "directory";
  readonly id: number;
  mode: number;
  readonly names: Map<string, Inode>;
  /** What a name has been, from the last sync on; nothing for names that are durable. */
  readonly loose: Map<string, Value[]>;
}
type Inode = FileInode | LinkInode | FolderInode;
interface Value {
  readonly inode: Inode | undefined;
  readonly made: number;
}

const PAGE = 4096;

/** What may have become of bytes that were not synced, from nothing to everything. */
const BYTES = ["lost", "short", "length", "torn", "holes", "kept"] as const;

/** @param free bytes that the disk says it has left */
export function crashDisk(
  image: Image = new Map(),
  watcher: Watcher = () => undefined,
  free: number = 1 << 30,
): CrashDisk {
  let watch = watcher;
  let ids = 0;
  let count = 0;
  const folder = (mode: number): FolderInode => ({
    kind: "directory",
    id: ids++,
    mode,
    names: new Map(),
    loose: new Map(),
  });
  const root = folder(0o755);
  const made = new Map<Node, Inode>();
  for (const [path, node] of image) {
    const inode = (node.kind === "file" ? made.get(node) : undefined) ?? inodeOf(node);
    made.set(node, inode);
    parentOf(path).names.set(basename(path), inode);
  }

  function inodeOf({ kind, bytes, mode }: Node): Inode {
    if (kind === "directory") return folder(mode);
    if (kind === "symlink") return { kind, id: ids++, target: bytes.toString() };
    return newFile(bytes, mode);
  }

  function newFile(content: Buffer, mode: number): FileInode {
    return {
      kind: "file",
      id: ids++,
      content,
      durable: content,
      synced: content.length,
      cuts: 0,
      mode,
      modes: [mode],
      written: 0,
      changed: count,
    };
  }

  function find(path: string): Inode | undefined {
    let inode: Inode | undefined = root;
    for (const name of path.split("/").filter((part) => part !== "")) {
      if (inode?.kind !== "directory") return undefined;
      inode = inode.names.get(name);
    }
    return inode;
  }

  function parentOf(path: string): FolderInode {
    const inode = find(dirname(path));
    return inode?.kind === "directory" ? inode : refuse(path, "ENOENT");
  }

  function refuse(path: string, errno: string): never {
    const cause = Object.assign(new Error(errno), { code: errno });
    throw new EdgeSyncError("DISK_FAILED", `${path}: ${errno}`, { cause });
  }

  function step(operation: string, path: string): void {
    count += 1;
    watch(operation, path, count);
  }

  function name(path: string, inode: Inode | undefined): void {
    const { names, loose } = parentOf(path);
    const key = basename(path);
    const before = names.get(key);
    const values = loose.get(key) ?? [{ inode: before, made: 0 }];
    values.push({ inode, made: count });
    loose.set(key, values);
    if (inode === undefined) names.delete(key);
    else names.set(key, inode);
  }

  function writable(inode: FileInode, path: string): WritableFile {
    return {
      async write(bytes) {
        step("write", path);
        if (!isLoose(inode)) inode.written = count;
        inode.content = Buffer.concat([inode.content, bytes]);
        inode.changed = count;
      },
      async chmod(mode) {
        step("chmod", path);
        inode.mode = mode;
        inode.modes.push(mode);
        inode.changed = count;
      },
      async sync() {
        step("sync", path);
        const { content, mode } = inode;
        await turn();
        // Not what was written while the disk was at work.
        inode.durable = content;
        inode.synced = Math.min(content.length, inode.content.length);
        inode.modes = [mode, ...inode.modes.slice(inode.modes.lastIndexOf(mode) + 1)];
      },
      [Symbol.asyncDispose]: () => Promise.resolve(),
    };
  }

  /** As rm -r does it: one name after the other, and each may be the last. */
  function removeTree(path: string): void {
    const inode = find(path);
    if (inode === undefined) return;
    if (inode.kind === "directory")
      for (const key of inode.names.keys()) removeTree(`${path}/${key}`);
    step("removeTree", path);
    name(path, undefined);
  }

  const disk: Disk = {
    async openRead(path) {
      const inode = find(path);
      if (inode === undefined) return undefined;
      if (inode.kind !== "file") return refuse(path, "EISDIR");
      const { content } = inode;
      const stretch = (position: number, length: number): Buffer =>
        position + length > content.length
          ? refuse(path, "EIO")
          : content.subarray(position, position + length);
      return {
        size: content.length,
        // A copy, because whoever reads may write into it.
        read: async (position, length) => Buffer.from(stretch(position, length)),
        async readInto(into, position) {
          into.set(stretch(position, into.byteLength));
        },
        [Symbol.asyncDispose]: () => Promise.resolve(),
      };
    },
    async create(path, mode) {
      if (parentOf(path).names.has(basename(path))) refuse(path, "EEXIST");
      step("create", path);
      const inode = newFile(Buffer.alloc(0), mode);
      name(path, inode);
      return writable(inode, path);
    },
    async append(path, mode) {
      const known = find(path);
      if (known !== undefined) {
        if (known.kind !== "file") return refuse(path, "EISDIR");
        return { ...writable(known, path), size: known.content.length };
      }
      step("append", path);
      const inode = newFile(Buffer.alloc(0), mode);
      name(path, inode);
      return { ...writable(inode, path), size: 0 };
    },
    async truncate(path, size) {
      const inode = find(path);
      if (inode?.kind !== "file" || inode.content.length < size) refuse(path, "EINVAL");
      step("truncate", path);
      if (!isLoose(inode)) inode.written = count;
      inode.content = inode.content.subarray(0, size);
      inode.synced = Math.min(inode.synced, size);
      inode.cuts += 1;
      inode.changed = count;
    },
    async chmod(path, mode) {
      const inode = find(path);
      if (inode?.kind !== "file" && inode?.kind !== "directory") refuse(path, "ENOENT");
      step("chmod", path);
      inode.mode = mode;
      if (inode.kind === "file") {
        inode.modes.push(mode);
        inode.changed = count;
      }
    },
    async makeDirectory(path, mode) {
      if (find(path) !== undefined) return;
      parentOf(path);
      step("makeDirectory", path);
      name(path, folder(mode));
    },
    async syncDirectory(path) {
      const inode = find(path);
      const { loose } = inode?.kind === "directory" ? inode : refuse(path, "ENOENT");
      step("syncDirectory", path);
      const until = count;
      await turn();
      for (const [key, values] of loose) {
        const latest = values.findLast(({ made }) => made <= until);
        const since = values.filter(({ made }) => made > until);
        if (since.length === 0) loose.delete(key);
        else if (latest !== undefined) loose.set(key, [{ ...latest, made: 0 }, ...since]);
      }
    },
    async rename(from, to) {
      const inode = find(from) ?? refuse(from, "ENOENT");
      const replaced = find(to);
      if (replaced?.kind === "directory" && replaced.names.size > 0) refuse(to, "ENOTEMPTY");
      if (
        replaced !== undefined &&
        (replaced.kind === "directory") !== (inode.kind === "directory")
      )
        refuse(to, replaced.kind === "directory" ? "EISDIR" : "ENOTDIR");
      parentOf(to);
      step("rename", to);
      name(from, undefined);
      name(to, inode);
    },
    async link(existing, path) {
      const inode = find(existing) ?? refuse(existing, "ENOENT");
      if (find(path) !== undefined) refuse(path, "EEXIST");
      parentOf(path);
      step("link", path);
      name(path, inode);
      return true;
    },
    async symlink(target, path) {
      if (find(path) !== undefined) refuse(path, "EEXIST");
      parentOf(path);
      step("symlink", path);
      name(path, { kind: "symlink", id: ids++, target });
    },
    async readLink(path) {
      const inode = find(path);
      return inode?.kind === "symlink" ? inode.target : undefined;
    },
    async remove(path) {
      const inode = find(path);
      if (inode === undefined) return;
      if (inode.kind === "directory") refuse(path, "EISDIR");
      step("remove", path);
      name(path, undefined);
    },
    removeTree: async (path) => removeTree(path),
    async list(path) {
      const inode = find(path);
      if (inode?.kind !== "directory") return [];
      return [...inode.names].map(([key, { kind }]) => ({ name: key, kind }));
    },
    stat: async (path) => statOf(find(path)),
    freeBytes: () => Promise.resolve(free),
  };

  function draw(choose: Chooser): Drawn {
    const found = new Map<string, Node>();
    /** What has been made of an inode already, so that its other names are names of the same. */
    const nodes = new Map<Inode, Node>();
    const prints: string[] = [];
    const place = (path: string, inode: Inode): void => {
      const known = nodes.get(inode);
      // A folder has one name; which of two it is has been chosen with the order of the names.
      if (known !== undefined && inode.kind === "directory") return;
      if (known === undefined) {
        const [node, print] = nodeOf(inode, choose);
        nodes.set(inode, node);
        prints.push(`${path}=${print}`);
        found.set(path, node);
      } else {
        prints.push(`${path}=${inode.id}`);
        found.set(path, known);
      }
      if (inode.kind === "directory") visit(path, inode);
    };
    const visit = (path: string, { names, loose }: FolderInode): void => {
      for (const key of new Set([...names.keys(), ...loose.keys()])) {
        const values = loose.get(key);
        const chosen =
          values === undefined
            ? names.get(key)
            : values[choose({ of: "name", made: values.map((value) => value.made) })]?.inode;
        if (chosen !== undefined) place(`${path}/${key}`, chosen);
      }
    };
    visit("", root);
    return { image: found, fingerprint: prints.toSorted().join("\n") };
  }

  return {
    disk,
    watch(other) {
      watch = other;
    },
    count: () => count,
    peek(path) {
      const inode = find(path);
      return inode?.kind === "file" ? inode.content : undefined;
    },
    peekLink(path) {
      const inode = find(path);
      return inode?.kind === "symlink" ? inode.target : undefined;
    },
    peekNames(path) {
      const inode = find(path);
      return inode?.kind === "directory" ? [...inode.names.keys()] : [];
    },
    image: () => draw(({ made }) => made.length - 1).image,
    draw,
    everyImage(limit) {
      const drawn = new Map<string, Drawn>();
      /** The choices of the case before, as digits of a number that is counted up. */
      let digits: { value: number; base: number }[] = [];
      for (let cases = 0; cases < limit; cases++) {
        let at = 0;
        const next: { value: number; base: number }[] = [];
        const one = draw(({ made }) => {
          const digit = { value: digits[at++]?.value ?? 0, base: made.length };
          next.push(digit);
          return digit.value;
        });
        drawn.set(one.fingerprint, one);
        while (next.length > 0 && (next.at(-1)?.value ?? 0) + 1 >= (next.at(-1)?.base ?? 0))
          next.pop();
        const last = next.at(-1);
        if (last === undefined) return [...drawn.values()];
        last.value += 1;
        digits = next;
      }
      return undefined;
    },
  };
}

function isLoose({ content, durable, synced }: FileInode): boolean {
  return content.length > synced || durable.length > synced;
}

/** @returns what lies on the platter, and what tells it from other outcomes */
function nodeOf(inode: Inode, choose: Chooser): readonly [Node, string] {
  if (inode.kind === "directory")
    return [{ kind: "directory", bytes: Buffer.alloc(0), mode: inode.mode }, `${inode.id}/`];
  if (inode.kind === "symlink")
    return [{ kind: "symlink", bytes: Buffer.from(inode.target), mode: 0o777 }, inode.target];
  const { content, durable, synced, modes, id, written, cuts } = inode;
  const mode =
    modes.length === 1
      ? inode.mode
      : (modes[
          choose({ of: "mode", made: modes.map((_, index) => (index === 0 ? 0 : written)) })
        ] ?? inode.mode);
  const made = BYTES.map((_, index) => (index === 0 ? 0 : written));
  const fate = !isLoose(inode) ? "kept" : (BYTES[choose({ of: "bytes", made })] ?? "kept");
  const bytes = fate === "lost" ? durable : fated(content, synced, fate);
  // Whatever became of it, it is the same content when it is a beginning of what was written.
  const whole = fate === "kept" || fate === "lost" || fate === "short";
  const print = whole ? "whole" : `${synced}:${fate}`;
  return [{ kind: "file", bytes, mode }, `${id}:${cuts}:${bytes.length}:${print}:${mode}`];
}

/** Bytes that were written and not synced, as a power cut may leave them. */
function fated(content: Buffer, synced: number, fate: (typeof BYTES)[number]): Buffer {
  const half = Math.floor((synced + content.length) / 2);
  if (fate === "kept") return content;
  if (fate === "lost") return content.subarray(0, synced);
  if (fate === "short") return content.subarray(0, half);
  const bytes = Buffer.alloc(content.length);
  content.copy(bytes, 0, 0, fate === "torn" ? half : synced);
  if (fate === "holes")
    for (let page = Math.floor(synced / PAGE); page * PAGE < content.length; page++) {
      // One in three is missing, the first of them too; what was written after it is there.
      if (page % 3 === Math.floor(synced / PAGE) % 3) continue;
      const end = Math.min((page + 1) * PAGE, content.length);
      content.copy(bytes, page * PAGE, page * PAGE, end);
    }
  return bytes;
}

function statOf(inode: Inode | undefined): Stat | undefined {
  if (inode === undefined) return undefined;
  const size = inode.kind === "file" ? inode.content.length : PAGE;
  return {
    kind: inode.kind,
    size,
    mode: inode.kind === "symlink" ? 0o777 : inode.mode,
    allocated: Math.ceil(size / PAGE) * PAGE,
    identity: `model:${inode.id}`,
    changed: inode.kind === "file" ? String(inode.changed) : "0",
  };
}
