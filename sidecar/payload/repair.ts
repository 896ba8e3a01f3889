/**
 * Makes damaged files of a bank anew: beside the tree first, whole, verified and durable, and then under their names by one rename. Whoever
 * has the damaged file open keeps it; who opens the name gets the old file or the new one. Nothing is written down about it: done twice
 * is done once. What a kill leaves in `partial/` is removed when the same file is mended, and at the latest by the next update.
 */
import { dirname, join } from "node:path";
import { knownCodecs } from "#core/delta/codec-names.ts";
import { EdgeSyncError, codeOf } from "#core/errors.ts";
import { makePlan } from "#core/plan.ts";
import type { Plan } from "#core/plan.ts";
import type { Release } from "#core/release.ts";
import type { Source } from "#core/route.ts";
import type { Bank } from "#core/update-state.ts";
import type { FullFallback } from "#core/values.ts";
import type { Trusted } from "../channel/channel.ts";
import type { Downloads } from "../repository/download.ts";
import type { Disk } from "../disk/durable.ts";
import { DOUBTFUL, fetchDocument, namesOf } from "./install.ts";
import { EXECUTABLE_MODE, FILE_MODE, makeFile } from "./make-file.ts";
import type { Here } from "./here.ts";
import type { OldFile, Trouble } from "./make-file.ts";
import { bringManifest } from "./manifest.ts";
import type { Seed } from "./seed.ts";
import { requireRoom } from "./space.ts";
import type { Limits } from "./space.ts";
import type { Store } from "./store.ts";
import { atOnce } from "../disk/unsynced.ts";

export interface Volume {
  readonly store: Store;
  readonly downloads: Downloads;
}

export interface RepairDeps {
  readonly volume: Volume;
  readonly app: string;
  readonly platform: string;
  readonly fallback: FullFallback;
  readonly limits: Limits;
  readonly seed: Seed | undefined;
  /** What the last look at the channel verified; undefined before the first. */
  readonly trusted: () => Trusted | undefined;
  /** Whether windows and budgets let anything be fetched now; without it nothing keeps it back. */
  readonly mayFetch?: () => boolean;
}

export const DIRECTORY_MODE = 0o755;
/** Ends the names of what is made in `partial/` for a bank. By `.new` a shared volume knows what is not finished, and another leader's. */
const SCRAP = ".scrub.new";

interface Bare {
  /** Of the bank. */
  readonly id: string;
  readonly release: Release;
  readonly folder: string;
  /** Numbers of its entries. */
  readonly broken: Pick<ReadonlySet<number>, "has">;
}

interface Damaged extends Bare {
  readonly broken: ReadonlySet<number>;
  /** Names in `partial/` of what has been fetched, to be thrown away when all is mended. */
  readonly fetched: Set<string>;
}

/**
 * @param mended told of each entry, which then is no longer in `broken`
 * @throws EdgeSyncError with what stands in the way; what has been mended stays so
 */
export async function repairFiles(
  bank: Damaged,
  mended: (number: number) => void,
  deps: RepairDeps,
  signal: AbortSignal,
): Promise<void> {
  try {
    await repair(bank, mended, deps, signal);
  } catch (error) {
    if (DOUBTFUL.has(codeOf(error))) deps.volume.downloads.doubt();
    throw error;
  }
}

async function repair(
  bank: Damaged,
  mended: (number: number) => void,
  { volume, fallback, limits, seed, mayFetch }: RepairDeps,
  signal: AbortSignal,
): Promise<void> {
  const { store, downloads } = volume;
  const { release, broken } = bank;
  const here = await openRemains(bank, store, seed, signal);
  const codecs = new Set(knownCodecs);
  const rejected = new Set<string>();
  // Each round without success takes something out that it could rely on before, so there is an end.
  while (broken.size > 0) {
    const means = { release, installed: null, codecs, rejected, fallback, first: false };
    const plan = makePlan({
      ...means,
      available: here,
      foreign: here.foreign,
      damaged: here.damaged,
    });
    const needed = sizeOf(bank) + plan.chainBytes + plan.downloadBytes;
    await requireRoom(`the repair of ${release.version}`, needed, store, limits);
    if (plan.fetches.length > 0 && mayFetch?.() === false)
      throw new EdgeSyncError(
        "DOWNLOAD_WAITS",
        `${plan.downloadBytes} bytes are missing, and no download-window is open or the budget is spent`,
      );
    for (const fetch of plan.fetches) {
      for (const name of namesOf(fetch)) bank.fetched.add(name);
      await downloads.fetch(fetch, signal);
    }
    for (const number of broken) {
      signal.throwIfAborted();
      const source = sourceOf(number, plan, bank, here);
      if (source === undefined) continue;
      const trouble = await remake(number, source, bank, here, volume, signal);
      if (trouble === undefined) mended(number);
      else if ("damaged" in trouble) here.remove(trouble.damaged);
      else rejected.add(trouble.rejected);
    }
  }
}

function sizeOf({ release, broken }: Damaged): number {
  let bytes = 0;
  for (const number of broken) {
    const content = release.contentOf(number);
    if (content !== undefined) bytes += release.contents.at(content).size;
  }
  return bytes;
}

/** An equal file that was made anew just now is linked. */
function sourceOf(
  number: number,
  plan: Plan,
  { release }: Damaged,
  here: Here,
): Source | undefined {
  const content = release.contentOf(number);
  if (content === undefined) return undefined;
  const source = plan.source(content);
  return here.has(source.content.sha256) ? { how: "keep", content: source.content } : source;
}

async function remake(
  number: number,
  source: Source,
  { release, folder }: Damaged,
  old: Here,
  { store, downloads }: Volume,
  signal: AbortSignal,
): Promise<Trouble> {
  const { disk, partial } = store;
  const entry = release.entries.at(number);
  const executable = entry.type === "file" && (entry.mode & 0o111) !== 0;
  const mode = executable ? EXECUTABLE_MODE : FILE_MODE;
  const scrap = join(partial, `${source.content.sha256}${SCRAP}`);
  await disk.remove(scrap);
  const stock = { old, read: downloads.read, room: partial };
  const place = { disk, path: scrap, mode, unsynced: atOnce };
  const trouble = await makeFile(source, place, stock, signal);
  if (trouble !== undefined) return trouble;
  const path = join(folder, entry.path);
  const before = await disk.stat(path);
  if (before?.kind === "directory") await disk.removeTree(path);
  // Renamed already by an attempt that failed after that: between two names of one file rename does nothing (rename(2)).
  if (before !== undefined && before.identity === (await disk.stat(scrap))?.identity)
    await disk.remove(scrap);
  else await disk.rename(scrap, path);
  await disk.syncDirectory(dirname(path));
  return undefined;
}

/** A link of the tree; nothing is in its place, or another link. */
export async function replaceLink(
  disk: Disk,
  { store }: Volume,
  path: string,
  target: string,
): Promise<void> {
  const scrap = join(store.partial, `link${SCRAP}`);
  await disk.remove(scrap);
  await disk.symlink(target, scrap);
  await disk.rename(scrap, path);
}

/** What may still be good: the rest of the bank, other banks, the seed. */
export async function openRemains(
  { id, release, folder, broken }: Bare,
  store: Store,
  seed: Seed | undefined,
  signal: AbortSignal,
): Promise<Here> {
  const others: { readonly release: Release; readonly folder: string }[] = [];
  for (const other of await store.banks()) {
    const found = other === id ? undefined : await store.manifest(other, signal);
    if (found !== undefined) others.push({ release: found, folder: store.bankPath(other) });
  }
  const seeded = await seed?.files(signal);
  /** Paths of what did not do. */
  const spent = new Set<string>();
  const lost = new Set<string>();

  /** An entry of this bank that has a content and is not to be made anew. */
  function ownEntry(content: number): number | undefined {
    const first = release.firstEntryOf(content);
    if (!broken.has(first)) return first;
    for (let number = first + 1; number < release.entries.length; number++)
      if (release.contentOf(number) === content && !broken.has(number)) return number;
    return undefined;
  }

  function* candidates(sha256: string): Generator<OldFile> {
    const content = release.find(sha256);
    const own = content === undefined ? undefined : ownEntry(content);
    if (own !== undefined)
      yield { path: join(folder, release.entries.at(own).path), foreign: false };
    for (const other of others) {
      const found = other.release.find(sha256);
      if (found === undefined) continue;
      const { path } = other.release.entries.at(other.release.firstEntryOf(found));
      yield { path: join(other.folder, path), foreign: false };
    }
    const path = seeded?.get(sha256);
    if (path !== undefined) yield { path, foreign: true };
  }

  function get(sha256: string): OldFile | undefined {
    for (const file of candidates(sha256)) if (!spent.has(file.path)) return file;
    return undefined;
  }

  return {
    get,
    has: (sha256) => get(sha256) !== undefined,
    foreign: { has: (sha256) => get(sha256)?.foreign === true },
    damaged: { has: (sha256) => lost.has(sha256) && get(sha256) === undefined },
    some() {
      const [other] = others;
      if (other === undefined || other.release.contents.length === 0) return undefined;
      const { path } = other.release.entries.at(other.release.firstEntryOf(0));
      return { path: join(other.folder, path), foreign: false };
    },
    remove(sha256) {
      const file = get(sha256);
      if (file !== undefined) spent.add(file.path);
      lost.add(sha256);
    },
  };
}

/**
 * Brings the manifest of a bank again.
 *
 * @throws EdgeSyncError RELEASE_NOT_FOUND when the repository does not have that release any more, and as a download
 */
export async function bringBankManifest(
  bank: Bank,
  deps: RepairDeps,
  signal: AbortSignal,
): Promise<Release> {
  const { store } = deps.volume;
  // Not of the first importance, and its bytes count like any.
  if (deps.mayFetch?.() === false)
    throw new EdgeSyncError(
      "DOWNLOAD_WAITS",
      "the list of files is missing, and no download-window is open or the budget is spent",
    );
  const trusted = deps.trusted();
  if (trusted === undefined)
    throw new EdgeSyncError("ORIGIN_UNAVAILABLE", "the channel has not been looked at yet");
  const from = { ...deps, trusted: trusted.set, trust: trusted.deps };
  const { document, digest } = await fetchDocument(bank, from, signal);
  if (document.tree !== bank.tree)
    throw new EdgeSyncError("RELEASE_NOT_FOUND", `${bank.version} is not what was installed`);
  const { disk, partial } = store;
  const { downloads } = deps.volume;
  const brought = await bringManifest(document, undefined, { disk, partial, downloads }, signal);
  const path = store.manifestPath(bank.id);
  await disk.rename(brought.path, path);
  await disk.syncDirectory(dirname(path));
  await downloads.discard([digest]);
  return brought.release;
}
