/** A folder as the entries of a release. */
import { lstat, readdir, readlink, stat } from "node:fs/promises";
import { join } from "node:path";
import { EdgeSyncError } from "#core/errors.ts";
import { comparePaths, isTreePath, staysInside } from "#core/tree-path.ts";
import type { Entry } from "#core/release.ts";
import { digestOf, errnoOf, readRange } from "./files.ts";
import type { Run } from "#core/delta/encode.ts";
import type { Progress } from "./work.ts";

const MAX_ENTRIES = 250_000;
/** Problems that one message names. */
const MAX_NAMED = 20;

/** A file of the tree, once for each content. */
export interface Source {
  readonly sha256: string;
  readonly size: number;
  /** Where it can be read. */
  readonly file: string;
  /** A path of it in the tree, for messages. */
  readonly path: string;
}

export interface Tree {
  /** Sorted. */
  readonly entries: readonly Entry[];
  /** In the order of the first entry that has the content. */
  readonly sources: readonly Source[];
}

/** A file whose content is not known yet. */
interface Found {
  readonly path: string;
  /** Where it can be read. */
  readonly file: string;
  readonly mode: number;
  readonly size: number;
}

/** One of several trees of a release: a folder that becomes a directory with a name of its own. */
export interface NamedTree {
  readonly name: string;
  readonly folder: string;
}

/**
 * The entries and contents of a folder, or of several that stand beside each other.
 *
 * @throws EdgeSyncError TREE_INVALID with everything that is wrong
 */
export async function scanTree(
  folder: string | readonly NamedTree[],
  run: Run,
  progress: Progress,
  signal: AbortSignal,
): Promise<Tree> {
  const trees = typeof folder === "string" ? [{ name: "", folder }] : folder;
  for (const tree of trees) await refuseNoFolder(tree.folder);
  try {
    return await scan(trees, run, progress, signal);
  } catch (cause) {
    const code = errnoOf(cause);
    if (code !== "ENOENT" && code !== "ENOTDIR" && code !== "EACCES") throw cause;
    const path = cause instanceof Error && "path" in cause ? String(cause.path) : "a file";
    throw new EdgeSyncError("TREE_INVALID", `${path} cannot be read (${code})`, { cause });
  }
}

async function refuseNoFolder(folder: string): Promise<void> {
  const found = await stat(folder).catch(() => undefined);
  if (found?.isDirectory() !== true)
    throw new EdgeSyncError(
      "TREE_INVALID",
      `${folder} ${found === undefined ? "cannot be found" : "is not a folder"}; expected a folder with the files of the release`,
    );
}

/** Of a directory that only stands for a tree's name: what its folder's mode is says nothing about the release. */
const TREE_MODE = 0o755;

async function scan(
  trees: readonly NamedTree[],
  run: Run,
  progress: Progress,
  signal: AbortSignal,
): Promise<Tree> {
  const problems: string[] = [];
  const entries: Entry[] = [];
  const found: Found[] = [];
  for (const { name, folder } of trees) {
    if (name !== "") entries.push({ type: "directory", path: name, mode: TREE_MODE });
    await walk(folder, name, { problems, entries, found }, signal);
  }
  if (entries.length + found.length > MAX_ENTRIES)
    problems.push(`the tree has more than ${MAX_ENTRIES} entries`);
  refuse(problems);

  progress.begin("reading");
  for (const item of found) progress.expect(item.size);
  const sources = new Map<string, Source>();
  const hashed = await Promise.all(
    found.map((item) =>
      run(async () => {
        signal.throwIfAborted();
        const { sha256, size } = await digestOf(readRange(item.file, 0, item.size));
        progress.advance(size, item.path);
        return { ...item, sha256, size };
      }),
    ),
  );
  for (const { path, mode, sha256 } of hashed) entries.push({ type: "file", path, mode, sha256 });
  entries.sort((a, b) => comparePaths(a.path, b.path));
  hashed.sort((a, b) => comparePaths(a.path, b.path));
  for (const { path, file, sha256, size } of hashed)
    if (!sources.has(sha256)) sources.set(sha256, { sha256, size, file, path });
  return { entries, sources: [...sources.values()] };
}

interface Collected {
  readonly problems: string[];
  readonly entries: Entry[];
  readonly found: Found[];
}

/** @param folder path of it in the release, which is empty for the release itself */
async function walk(
  root: string,
  folder: string,
  collected: Collected,
  signal: AbortSignal,
): Promise<void> {
  const { problems, entries, found } = collected;
  signal.throwIfAborted();
  const names = (await readdir(root)).toSorted();
  refuseAlike(folder, names, problems);
  for (const name of names) {
    const path = folder === "" ? name : `${folder}/${name}`;
    if (name.includes("\uFFFD") || !isTreePath(path)) {
      problems.push(`${JSON.stringify(path)} is not a path that a release can have`);
      continue;
    }
    const file = join(root, name);
    const stat = await lstat(file);
    const mode = stat.mode & 0o777;
    if (stat.isDirectory()) {
      // A set-group-id bit on a directory only says how files in it were made; it is not carried.
      entries.push({ type: "directory", path, mode });
      await walk(file, path, collected, signal);
    } else if (stat.isSymbolicLink()) {
      const target = await readlink(file);
      const problem = linkProblem(path, target);
      if (problem === undefined) entries.push({ type: "symlink", path, target });
      else problems.push(`${path} ${problem}`);
    } else if (!stat.isFile()) {
      problems.push(`${path} is a device, socket or FIFO`);
    } else if ((stat.mode & 0o6000) !== 0) {
      problems.push(`${path} is setuid or setgid`);
    } else found.push({ path, file, mode, size: stat.size });
  }
}

/** Names that some file systems take for the same. */
function refuseAlike(folder: string, names: readonly string[], problems: string[]): void {
  const seen = new Map<string, string>();
  for (const name of names) {
    const key = name.normalize("NFC").toLowerCase().normalize("NFC");
    const other = seen.get(key);
    if (other === undefined) seen.set(key, name);
    else
      problems.push(
        `${join(folder, other)} and ${join(folder, name)} differ only by case or Unicode form`,
      );
  }
}

/** What is wrong with a symlink of a tree, after its path. */
export function linkProblem(path: string, target: string): string | undefined {
  if (target.includes("\uFFFD") || Buffer.byteLength(target) > 4096)
    return "is a symlink whose target is not a path";
  if (!staysInside(path, target))
    return `is a symlink that leaves the tree or has '..' after a name, to ${target}`;
  return undefined;
}

function refuse(problems: readonly string[]): void {
  if (problems.length === 0) return;
  const more = problems.length - MAX_NAMED;
  const named = problems.slice(0, MAX_NAMED).join("; ");
  throw new EdgeSyncError("TREE_INVALID", more > 0 ? `${named}; and ${more} more` : named);
}
