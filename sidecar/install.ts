/** From a version that a channel names to a complete, verified bank on the payload volume. */
import { createHash } from "node:crypto";
import { basename, join } from "node:path";
import { knownCodecs } from "#core/delta/codec.ts";
import { EdgeSyncError, codeOf } from "#core/errors.ts";
import type { ErrorCode } from "#core/errors.ts";
import { makePlan } from "#core/plan.ts";
import type { Fetch, Plan } from "#core/plan.ts";
import { RELEASE_DOCUMENT_LIMIT, parseReleaseDocument } from "#core/release-document.ts";
import type { ReleaseDocument } from "#core/release-document.ts";
import { manifestPath } from "#core/release.ts";
import type { Release } from "#core/release.ts";
import type { TrustDeps, TrustedSet } from "#core/trust/refresh.ts";
import { fetchTarget } from "#core/trust/target.ts";
import type { Bank, Target } from "#core/update-state.ts";
import type { FullFallback } from "#core/values.ts";
import { beginBank, verifyBank } from "./bank.ts";
import type { OldFile, OldFiles } from "./bank.ts";
import type { Downloads } from "./download.ts";
import { bringManifest } from "./manifest.ts";
import type { BroughtManifest } from "./manifest.ts";
import type { Store } from "./store.ts";

export interface InstallDeps {
  readonly store: Store;
  readonly downloads: Downloads;
  readonly trusted: TrustedSet;
  readonly trust: TrustDeps;
  readonly app: string;
  readonly platform: string;
  readonly fallback: FullFallback;
  /** Bytes that the volume may hold in all; undefined for what the file system has room for. */
  readonly budget: number | undefined;
  /** Told of the plan, and of each that takes its place. */
  readonly planned: (plan: Plan, from: string | null) => void;
}

/**
 * @param from the bank that is committed; null for a first installation
 * @throws EdgeSyncError with what stands in the way; downloads are kept, so that the next attempt goes on from there
 */
export async function install(
  target: Target,
  from: Bank | null,
  deps: InstallDeps,
  signal: AbortSignal,
): Promise<Bank> {
  try {
    return await installOnce(target, from, deps, signal);
  } catch (error) {
    if (DOUBTFUL.has(codeOf(error))) deps.downloads.doubt();
    throw error;
  }
}

/** What a download can be the cause of that has been damaged on the disk after it was verified. */
const DOUBTFUL: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "DELTA_INVALID",
  "DIGEST_MISMATCH",
  "DISK_FAILED",
  "FALLBACK_REFUSED",
  "RELEASE_INVALID",
]);

async function installOnce(
  target: Target,
  from: Bank | null,
  deps: InstallDeps,
  signal: AbortSignal,
): Promise<Bank> {
  const { document, digest } = await fetchDocument(target, deps, signal);
  const { store } = deps;
  const { tree } = document;
  if (from?.tree === tree) return { ...target, tree, id: from.id };
  const base = from?.id ?? (await store.current());
  const basePath = base === undefined ? undefined : store.manifestPath(base);
  const { partial } = store;
  const manifest = await bringManifest(
    document,
    basePath,
    { ...deps, disk: store.disk, partial },
    signal,
  );
  const { release } = manifest;
  const name = `${release.version}-${tree.slice(0, 12)}`;
  const taken = new Set(await store.banks());
  if (taken.has(name) && (await verifyBank(store.disk, store.bankPath(name), release, signal)))
    return { ...target, tree, id: name };
  // A bank of this name that is not what it says may still be in use: it is left to the sweep.
  const id = freeName(name, taken);
  const installed = base === undefined ? undefined : await store.manifest(base, signal);
  // Also of a bank that nobody vouches for any more: each file is hashed before it is used.
  const usable = from === null || installed?.tree === from.tree ? installed : undefined;
  const old = openOldBank(usable, store.bankPath(base ?? ""));
  const start = { first: from === null, installed: usable?.version ?? null, old, digest };
  await build(id, manifest, start, deps, signal);
  return { ...target, tree, id };
}

async function fetchDocument(
  { version }: Target,
  { app, platform, trusted, trust }: InstallDeps,
  signal: AbortSignal,
): Promise<{ readonly document: ReleaseDocument; readonly digest: string }> {
  const path = manifestPath(app, version, platform);
  const bytes = await fetchTarget(trusted, path, RELEASE_DOCUMENT_LIMIT, trust, signal);
  const document = parseReleaseDocument(bytes);
  if (document.app !== app || document.version !== version || document.platform !== platform)
    throw new EdgeSyncError(
      "RELEASE_INVALID",
      `${path} is the document of ${manifestPath(document.app, document.version, document.platform)}`,
    );
  return { document, digest: createHash("sha256").update(bytes).digest("hex") };
}

function freeName(name: string, taken: ReadonlySet<string>): string {
  if (!taken.has(name)) return name;
  let number = 2;
  while (taken.has(`${name}.${number}`)) number += 1;
  return `${name}.${number}`;
}

/** What the installed bank has, as far as it has not turned out to be damaged. */
interface OldBank extends OldFiles {
  has(sha256: string): boolean;
  remove(sha256: string): void;
  /** Any of its files. */
  some(): OldFile | undefined;
}

function openOldBank(release: Release | undefined, folder: string): OldBank {
  const removed = new Set<string>();
  const find = (sha256: string): number | undefined =>
    removed.has(sha256) ? undefined : release?.find(sha256);
  function fileOf(content: number | undefined): OldFile | undefined {
    if (release === undefined || content === undefined) return undefined;
    const entry = release.entries.at(release.firstEntryOf(content));
    if (entry.type !== "file") return undefined;
    return { path: join(folder, entry.path), executable: (entry.mode & 0o111) !== 0 };
  }
  return {
    has: (sha256) => find(sha256) !== undefined,
    get: (sha256) => fileOf(find(sha256)),
    remove: (sha256) => void removed.add(sha256),
    some: () => fileOf((release?.contents.length ?? 0) > 0 ? 0 : undefined),
  };
}

interface Start {
  readonly first: boolean;
  readonly installed: string | null;
  readonly old: OldBank;
  /** Of the document, which is a download too. */
  readonly digest: string;
}

async function build(
  id: string,
  { release, path }: BroughtManifest,
  { first, installed, old, digest }: Start,
  deps: InstallDeps,
  signal: AbortSignal,
): Promise<void> {
  const { store, downloads } = deps;
  const codecs = new Set(knownCodecs);
  const rejected = new Set<string>();
  await using building = await beginBank(store, id, release, signal);
  // Each round without success takes something out that it could rely on before, so there is an end.
  for (;;) {
    const plan = makePlan({
      release,
      installed,
      available: old,
      codecs,
      rejected,
      fallback: deps.fallback,
      first,
    });
    deps.planned(plan, installed);
    const names = plan.fetches.flatMap(namesOf);
    await downloads.keepOnly(new Set([digest, basename(path), ...names]));
    await requireSpace(plan, release, old, building.written(), deps, signal);
    for (const fetch of plan.fetches) await downloads.fetch(fetch, signal);
    const setback = await building.add(plan, old, downloads.read, signal);
    if (setback.damaged.length === 0 && setback.rejected.length === 0) break;
    for (const sha256 of setback.damaged) old.remove(sha256);
    for (const sha256 of setback.rejected) rejected.add(sha256);
  }
  await building.complete(path);
}

/** Names in `partial/` that a fetch uses. */
function namesOf(fetch: Fetch): readonly string[] {
  if (fetch.fetch === "blob") return [fetch.blob.sha256];
  if (fetch.fetch === "pack") return [fetch.pack.sha256];
  return fetch.parts.map((part) => part.sha256);
}

/** Room for directories, links and what else a file system needs for an entry, in bytes. */
const ENTRY_BYTES = 4096;
/** Never taken: the journal and the metadata need room in order to say that there is none. */
const RESERVE_BYTES = 1024 * 1024;

/**
 * @param written bytes of the bank that are on disk already
 * @throws EdgeSyncError DISK_FULL before anything is fetched for nothing
 */
async function requireSpace(
  plan: Plan,
  release: Release,
  old: OldBank,
  written: number,
  { store, downloads, budget }: InstallDeps,
  signal: AbortSignal,
): Promise<void> {
  let needed = RESERVE_BYTES + plan.writtenBytes - written + release.entries.length * ENTRY_BYTES;
  if (!(await canLink(store, old))) needed += plan.keptBytes;
  needed += plan.downloadBytes;
  for (const fetch of plan.fetches) needed -= await downloads.present(fetch, signal);
  const free = await store.freeBytes();
  if (needed > free)
    throw new EdgeSyncError(
      "DISK_FULL",
      `${release.version} needs ${needed} bytes, the payload volume has ${free} free`,
    );
  if (budget === undefined) return;
  const used = await store.usedBytes();
  if (used + needed > budget)
    throw new EdgeSyncError(
      "DISK_FULL",
      `${release.version} needs ${needed} bytes beside the ${used} in use, payload-size allows ${budget}`,
    );
}

/** Whether files of the old bank can be linked: not with another owner under fs.protected_hardlinks, for instance. */
async function canLink({ disk, partial }: Store, old: OldBank): Promise<boolean> {
  const file = old.some();
  if (file === undefined) return true;
  const probe = join(partial, "link-probe");
  await disk.remove(probe);
  const linked = (await disk.stat(file.path)) !== undefined && (await disk.link(file.path, probe));
  await disk.remove(probe);
  return linked;
}
