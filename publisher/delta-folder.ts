/**
 * A folder as one file, so that a delta of it is solid: an index, then the contents of the files in the order of their paths. The index
 * is JSON with a length of four bytes before it.
 */
import { lstat, mkdir, open, readdir, readlink, rename, symlink } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import type { RandomAccess } from "#core/delta/decoder.ts";
import type { Parted } from "#core/delta/plan.ts";
import { EdgeSyncError } from "#core/errors.ts";
import { comparePaths, isTreePath, staysInside } from "#core/tree-path.ts";
import { roomBeside } from "./delta-file.ts";
import { openRandom } from "./files.ts";
import { linkProblem } from "./tree.ts";

const LENGTH_BYTES = 4;
/** Far more than any tree needs. Bytes. */
const MAX_INDEX = 256 * 1024 * 1024;

type Entry =
  | { readonly path: string; readonly type: "directory" }
  | { readonly path: string; readonly type: "link"; readonly target: string }
  | {
      readonly path: string;
      readonly type: "file";
      readonly executable: boolean;
      readonly size: number;
    };

/**
 * @param role a new one is refused when {@link unpackFolder} would not make it; of an old one only the bytes matter
 * @throws EdgeSyncError TREE_INVALID also for what is neither file nor folder nor link
 */
export async function openFolder(
  folder: string,
  role: "old" | "new",
  signal: AbortSignal,
): Promise<Parted & AsyncDisposable> {
  const entries = await listEntries(folder, signal);
  if (role === "new")
    for (const entry of entries) {
      const problem = entry.type === "link" ? linkProblem(entry.path, entry.target) : undefined;
      if (problem !== undefined)
        throw new EdgeSyncError("TREE_INVALID", `${entry.path} ${problem}`);
    }
  const text = Buffer.from(JSON.stringify(entries));
  const index = Buffer.alloc(LENGTH_BYTES + text.length);
  index.writeUInt32LE(text.length, 0);
  text.copy(index, LENGTH_BYTES);
  let size = index.length;
  const parts = entries
    .filter((entry) => entry.type === "file")
    .map((entry) => {
      const part = { name: entry.path, offset: size, size: entry.size };
      size += entry.size;
      return part;
    })
    .filter((part) => part.size > 0);
  let current: { readonly part: (typeof parts)[number]; readonly file: OpenFile } | undefined;

  async function fileOf(part: (typeof parts)[number]): Promise<RandomAccess> {
    if (current?.part !== part) {
      const before = current;
      current = { part, file: await openRandom(join(folder, part.name)) };
      await before?.file[Symbol.asyncDispose]();
      if (current.file.size !== part.size)
        throw new EdgeSyncError("TREE_INVALID", `${part.name} changed while it was read`);
    }
    return current.file;
  }

  /** One read after the other: only one file is open at a time. */
  async function readInto(bytes: Uint8Array, position: number): Promise<void> {
    let done = 0;
    if (position < index.length) {
      done = Math.min(bytes.length, index.length - position);
      bytes.set(index.subarray(position, position + done));
    }
    for (let at = findPart(parts, position + done); done < bytes.length; at++) {
      const part = parts[at];
      if (part === undefined) throw new RangeError(`no byte at ${position + done}`);
      const from = position + done - part.offset;
      const count = Math.min(bytes.length - done, part.size - from);
      await (await fileOf(part)).readInto(bytes.subarray(done, done + count), from);
      done += count;
    }
  }
  let turn: Promise<unknown> = Promise.resolve();
  return {
    size,
    parts,
    readInto(bytes, position) {
      const result = turn.then(() => readInto(bytes, position));
      turn = result.catch(() => undefined);
      return result;
    },
    async [Symbol.asyncDispose]() {
      await turn;
      await current?.file[Symbol.asyncDispose]();
    },
  };
}

type OpenFile = RandomAccess & AsyncDisposable;

/** The part that a position is in. */
function findPart(parts: readonly { readonly offset: number }[], position: number): number {
  let [low, high] = [0, parts.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((parts[middle]?.offset ?? 0) <= position) low = middle;
    else high = middle - 1;
  }
  return low;
}

async function listEntries(folder: string, signal: AbortSignal): Promise<readonly Entry[]> {
  const entries: Entry[] = [];
  // Level by level: a recursive readdir goes through links to folders, also to those outside.
  const folders = [""];
  for (const parent of folders)
    for (const name of await readdir(join(folder, parent))) {
      signal.throwIfAborted();
      const path = parent === "" ? name : `${parent}/${name}`;
      // What is no UTF-8 comes as U+FFFD, and there is nothing of that name.
      if (name.includes("\uFFFD") || !isTreePath(path))
        throw new EdgeSyncError("TREE_INVALID", `${JSON.stringify(path)} is no usable path`);
      const found = await lstat(join(folder, path));
      if (found.isDirectory()) {
        entries.push({ path, type: "directory" });
        folders.push(path);
      } else if (found.isSymbolicLink())
        entries.push({ path, type: "link", target: await readlink(join(folder, path)) });
      else if (found.isFile()) {
        const executable = (found.mode & 0o111) !== 0;
        entries.push({ path, type: "file", executable, size: found.size });
      } else throw new EdgeSyncError("TREE_INVALID", `${path} is no file, folder or link`);
    }
  return entries.sort((a, b) => comparePaths(a.path, b.path));
}

/**
 * Makes the folder from the bytes of {@link openFolder}, beside its place, and puts it there when all of it is right.
 *
 * @throws EdgeSyncError TREE_INVALID when the folder exists, DELTA_INVALID when the bytes are no folder
 */
export async function unpackFolder(
  folder: string,
  pieces: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<void> {
  if ((await lstat(folder).catch(() => undefined)) !== undefined)
    throw new EdgeSyncError("TREE_INVALID", `${folder} exists already`);
  // Without a slash at its end.
  const place = resolve(folder);
  await mkdir(dirname(place), { recursive: true });
  await using room = await roomBeside(place);
  const partial = join(room.path, basename(place));
  await mkdir(partial);
  const bytes = openBytes(pieces);
  const length = (await bytes.collect(LENGTH_BYTES)).readUInt32LE(0);
  if (length > MAX_INDEX) throw notAFolder();
  for (const entry of parseIndex(await bytes.collect(length))) {
    signal.throwIfAborted();
    const path = join(partial, entry.path);
    if (entry.type === "directory") await mkdir(path, { recursive: true });
    else if (entry.type === "link") await symlink(entry.target, path);
    else {
      await mkdir(dirname(path), { recursive: true });
      await using file = await open(path, "wx", entry.executable ? 0o755 : 0o644);
      await bytes.each(entry.size, (piece) => file.writeFile(piece));
    }
  }
  await bytes.end();
  await rename(partial, place);
}

function notAFolder(): EdgeSyncError {
  return new EdgeSyncError("DELTA_INVALID", "the delta does not make a folder");
}

/** What is written must stay below the folder, whoever wrote the index. */
function parseIndex(text: Buffer): readonly Entry[] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text.toString("utf8"));
  } catch (cause) {
    throw new EdgeSyncError("DELTA_INVALID", "the delta does not make a folder", { cause });
  }
  if (!Array.isArray(parsed)) throw notAFolder();
  const links = new Set<string>();
  return parsed.map((input: unknown): Entry => {
    if (typeof input !== "object" || input === null) throw notAFolder();
    const { path, type, target, executable, size } = input as Readonly<Record<string, unknown>>;
    if (typeof path !== "string" || !isTreePath(path)) throw notAFolder();
    const above = path.split("/").map((_, index, parts) => parts.slice(0, index).join("/"));
    if (above.some((folder) => links.has(folder))) throw notAFolder();
    if (type === "directory") return { path, type };
    if (type === "link" && typeof target === "string" && staysInside(path, target)) {
      links.add(path);
      return { path, type, target };
    }
    if (type === "file" && Number.isSafeInteger(size) && Number(size) >= 0)
      return { path, type, executable: executable === true, size: Number(size) };
    throw notAFolder();
  });
}

/** Pieces as one stream of bytes, of which the next so many are wanted. */
function openBytes(pieces: AsyncIterable<Uint8Array>) {
  const iterator = pieces[Symbol.asyncIterator]();
  let rest: Uint8Array = Buffer.alloc(0);
  async function each(
    count: number,
    take: (piece: Uint8Array) => Promise<void> | void,
  ): Promise<void> {
    for (let missing = count; missing > 0;) {
      if (rest.length === 0) {
        const next = await iterator.next();
        if (next.done === true) throw notAFolder();
        rest = next.value;
      }
      const piece = rest.subarray(0, missing);
      await take(piece);
      rest = rest.subarray(piece.length);
      missing -= piece.length;
    }
  }
  return {
    each,
    async collect(count: number): Promise<Buffer> {
      const parts: Buffer[] = [];
      await each(count, (piece) => {
        parts.push(Buffer.from(piece));
      });
      return Buffer.concat(parts);
    },
    /** Nothing may follow; this is also where the digest is compared. */
    async end(): Promise<void> {
      if (rest.length > 0 || (await iterator.next()).done !== true) throw notAFolder();
    },
  };
}
