/**
 * Builds the tree of a release as a bank: unchanged files are links to those of the old bank, the others are made from deltas or
 * full blobs. Every byte is hashed on its way into the tree, those of linked files too, so what is complete is also verified; modes
 * and earlier checks are not relied on. Memory does not depend on the size of files.
 */
import { join } from "node:path";
import { EdgeSyncError } from "#core/errors.ts";
import type { Plan } from "#core/plan.ts";
import type { Release } from "#core/release.ts";
import type { Source } from "#core/route.ts";
import { parentOf } from "#core/tree-path.ts";
import type { Disk } from "../disk/durable.ts";
import { EXECUTABLE_MODE, FILE_MODE, copyFile, hasDigest, makeFile } from "./make-file.ts";
import type { OldFiles, ReadBlob, Stock, Trouble } from "./make-file.ts";
import type { Store } from "./store.ts";
import { openUnsynced } from "../disk/unsynced.ts";

/** What turned out not to be usable; the plan has to be made anew without it. */
export interface Setback {
  /** Contents of old files that are damaged. */
  readonly damaged: readonly string[];
  /** Deltas that do not give their file. */
  readonly rejected: readonly string[];
}

export interface Building extends AsyncDisposable {
  /**
   * Adds every file that is still missing and whose source works.
   *
   * @throws EdgeSyncError DIGEST_MISMATCH when a full blob does not give its file; DISK_FULL, DISK_FAILED
   */
  add(plan: Plan, old: OldFiles, read: ReadBlob, signal: AbortSignal): Promise<Setback>;
  /** Bytes written so far; links take none. */
  written(): number;
  /**
   * Makes the tree durable and gives it its name; every file must have been added.
   *
   * @param manifest as `completeBank` takes it
   */
  complete(manifest: string): Promise<void>;
}

type Mode = typeof FILE_MODE | typeof EXECUTABLE_MODE;
const DIRECTORY_MODE = 0o755;

/**
 * Begins a bank. What has not been completed is removed at the end of the scope, or after an abort by the next sweep: a process that
 * is told to end has no time for it.
 */
export async function beginBank(
  store: Store,
  id: string,
  release: Release,
  signal: AbortSignal,
): Promise<Building> {
  const { disk } = store;
  const folder = await store.beginBank(id);
  // By content, the entry that has it already, counted from 1: equal files are links to each other.
  const placed = {
    [FILE_MODE]: new Uint32Array(release.contents.length),
    [EXECUTABLE_MODE]: new Uint32Array(release.contents.length),
  };
  const done = new Uint8Array(release.entries.length);
  const unsynced = openUnsynced();
  let completed = false;
  let written = 0;
  try {
    for (const entry of release.entries) {
      const path = join(folder, entry.path);
      if (entry.type === "directory") await disk.makeDirectory(path, DIRECTORY_MODE);
      else if (entry.type === "symlink") await disk.symlink(entry.target, path);
    }
  } catch (error) {
    await discard();
    throw error;
  }

  /** As far as that goes. */
  async function discard(): Promise<void> {
    if (signal.aborted) return;
    try {
      await disk.removeTree(folder);
    } catch {
      // The error that brought us here matters more, and the next sweep removes what is left.
    }
  }

  function placedPath(mode: Mode, content: number): string | undefined {
    const number = placed[mode][content] ?? 0;
    return number === 0 ? undefined : join(folder, release.entries.at(number - 1).path);
  }

  async function addFile(
    number: number,
    contentNumber: number,
    source: Source,
    stock: Stock,
    signal: AbortSignal,
  ): Promise<Trouble> {
    const { content } = source;
    const entry = release.entries.at(number);
    const path = join(folder, entry.path);
    const executable = entry.type === "file" && (entry.mode & 0o111) !== 0;
    const mode = executable ? EXECUTABLE_MODE : FILE_MODE;
    const twin = placedPath(mode, contentNumber);
    if (twin !== undefined && (await disk.link(twin, path))) return undefined;
    const sibling = twin ?? placedPath(executable ? FILE_MODE : EXECUTABLE_MODE, contentNumber);
    if (sibling !== undefined) {
      if (!(await copyFile({ disk, path, mode, unsynced }, sibling, content, signal)))
        throw new EdgeSyncError("DISK_FAILED", `${sibling} reads back as something else`);
      return undefined;
    }
    const trouble = await makeFile(source, { disk, path, mode, unsynced }, stock, signal);
    if (trouble !== undefined) return trouble;
    placed[mode][contentNumber] = number + 1;
    // As the plan counts it: what is copied because it cannot be linked is its keptBytes.
    if (source.how !== "keep" || stock.old.get(content.sha256)?.foreign === true)
      written += content.size;
    return undefined;
  }

  return {
    async add(plan, old, read, signal) {
      const stock = { old, read, room: store.partial };
      const damaged = new Set<string>();
      const rejected = new Set<string>();
      for (let number = 0; number < done.length; number++) {
        const content = release.contentOf(number);
        if (content === undefined || done[number] === 1) continue;
        const trouble = await addFile(number, content, plan.source(content), stock, signal);
        if (trouble === undefined) done[number] = 1;
        else if ("damaged" in trouble) damaged.add(trouble.damaged);
        else rejected.add(trouble.rejected);
      }
      await unsynced.sync();
      return { damaged: [...damaged], rejected: [...rejected] };
    },
    written: () => written,
    async complete(manifest) {
      // Children first: a directory is on the disk only when what it names is.
      for (let number = done.length - 1; number >= 0; number--) {
        const entry = release.entries.at(number);
        if (entry.type === "directory") await disk.syncDirectory(join(folder, entry.path));
      }
      await disk.syncDirectory(folder);
      await store.completeBank(folder, id, manifest);
      completed = true;
    },
    async [Symbol.asyncDispose]() {
      await unsynced[Symbol.asyncDispose]();
      if (!completed) await discard();
    },
  };
}

/** Whether a bank on disk is exactly the tree of a release: nothing is missing, damaged or added. */
export async function verifyBank(
  disk: Disk,
  folder: string,
  release: Release,
  signal: AbortSignal,
): Promise<boolean> {
  const names = new Map<string, number>();
  for (const entry of release.entries) {
    const path = join(folder, entry.path);
    const stat = await disk.stat(path);
    if (stat?.kind !== entry.type) return false;
    if (entry.type === "symlink" && (await disk.readLink(path)) !== entry.target) return false;
    if (entry.type === "file") {
      if (((stat.mode & 0o111) === 0) !== ((entry.mode & 0o111) === 0)) return false;
      if (!(await hasDigest(disk, path, entry.sha256, signal))) return false;
    }
    const parent = parentOf(entry.path);
    names.set(parent, (names.get(parent) ?? 0) + 1);
    if (entry.type === "directory") names.set(entry.path, names.get(entry.path) ?? 0);
  }
  for (const [directory, count] of names)
    if ((await disk.list(join(folder, directory))).length !== count) return false;
  return true;
}
